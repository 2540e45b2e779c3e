"""``gmemlab compare``: policies side by side on a host and a workload."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gmemlab.cli.options import (
    CPUS_HELP,
    FRAGMENTATION_HELP,
    GUESTS_HELP,
    HOST_HELP,
    LIVE,
    NODES_HELP,
    SET_HELP,
    Ticker,
    chosen_policies,
    host_factory,
    listed,
)
from gmemlab.cli.output import console, print_json
from gmemlab.errors import UsageError
from gmemlab.policy import Policy

if TYPE_CHECKING:
    from gmemlab.costs import Profile
    from gmemlab.lab.compare import Comparison

COSTS_HELP = "Add host time, by a profile of `gmemlab calibrate -o FILE`, or live-6.18."
DEFAULT_POLICIES = ("4k", "thp", "thp-inplace", "thp-strict-zero", "hugetlb-2m")


def run(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a TOML file.")] = "demo",
    host: Annotated[str, typer.Option(help=HOST_HELP)] = LIVE,
    fragmentation: Annotated[float | None, typer.Option(help=FRAGMENTATION_HELP)] = None,
    cpus: Annotated[int, typer.Option(min=0, max=512, help=CPUS_HELP)] = 0,
    nodes: Annotated[int, typer.Option(min=1, max=32, help=NODES_HELP)] = 1,
    guests: Annotated[str | None, typer.Option(help=GUESTS_HELP)] = None,
    policies: Annotated[str | None, typer.Option(help="Policies with commas between; by default the scenario's.")] = None,
    set: Annotated[list[str] | None, typer.Option(help=SET_HELP)] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many hosts and streams of events to draw.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    costs: Annotated[str | None, typer.Option(help=COSTS_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: raw bytes and ns, with the time series.")] = False,
) -> int:
    """Compare policies: a row for each, sentences that say what the table shows, details, assumptions.

    Args:
        scenario: name or file.
        host: live, a size or a file.
        fragmentation: of a host that is given by its size.
        cpus: that keep lists of their own.
        nodes: NUMA nodes of a host that is given by its size.
        guests: their hardware.
        policies: names with commas between.
        set: choices to set, for all of the policies.
        seeds: how many.
        seed: the first one.
        costs: of operations of the host: a cost profile.
        json: whether to print JSON instead.

    Raises:
        UsageError: an unknown scenario, host, hardware, policy, choice or cost profile, or a scenario larger than the host.
        UnsupportedError: this machine's free memory cannot be read.
    """
    with Ticker() as ticker:
        from gmemlab.costs import Profile
        from gmemlab.lab.compare import Row, Setting, compare
        from gmemlab.report.table import HeadlineTable, print_setting
        from gmemlab.workload.scenario import load, with_hardware

        wanted = with_hardware(load(scenario), guests)
        profile = None if costs is None else Profile.load(costs)
        chosen = _policies(scenario, wanted.policies, policies, set or ())
        make_host = host_factory(host, fragmentation, cpus, nodes)
        screen = console()
        table = HeadlineTable(screen, chosen)

        def begin(setting: Setting) -> None:
            """Print what is compared, and the head of the table."""
            ticker.clear()
            print_setting(screen, setting)
            table.start()

        def add(row: Row) -> None:
            """Print a row as soon as it is there."""
            ticker.clear()
            table.add(row)

        drawn = range(seed, seed + seeds)
        shown = (None, ticker.show, None) if json else (add, ticker.show, begin)
        comparison = compare(make_host, wanted, chosen, drawn, *shown)
    print_rest(screen, comparison, chosen, profile, str(costs), json)
    return 0


def print_rest(
    screen: Console, comparison: "Comparison", chosen: Sequence[Policy], profile: "Profile | None", costs: str, json: bool
) -> None:
    """Print what follows the rows; or, as JSON, everything.

    Args:
        screen: where to.
        comparison: of all rows.
        chosen: the policies.
        profile: costs of host operations, if wanted.
        costs: what the user called it.
        json: whether to print JSON.
    """
    from gmemlab.lab.findings import findings
    from gmemlab.report.as_json import comparison_as_json
    from gmemlab.report.details import print_details
    from gmemlab.report.host_time import host_time_as_json, print_host_time
    from gmemlab.report.table import print_findings, print_legend, print_notes

    sentences = findings(comparison.rows)
    if json:
        times = {} if profile is None else {"host_time": host_time_as_json(comparison.rows, profile)}
        print_json({**comparison_as_json(comparison, sentences), **times})
        return
    print_legend(screen, comparison.setting, chosen)
    print_findings(screen, sentences)
    print_details(screen, comparison.rows)
    if profile is not None:
        print_host_time(screen, comparison.rows, profile, costs)
    print_notes(screen, comparison.notes, comparison.setting.assumptions)


def _policies(scenario: str, proposed: Sequence[str], named: str | None, settings: Sequence[str]) -> list[Policy]:
    """Return the policies that the user names, or else the scenario (whose mistakes are the scenario's)."""
    if named is not None:
        return chosen_policies(listed(named), settings)
    try:
        presets = chosen_policies(proposed or DEFAULT_POLICIES, ())
    except UsageError as error:
        raise error.at(file=scenario) from None
    return chosen_policies([policy.name for policy in presets], settings)
