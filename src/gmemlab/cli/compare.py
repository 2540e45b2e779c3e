"""``gmemlab compare``: policies side by side on a host and a workload."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gmemlab.cli.options import (
    CMA_HELP,
    CPUS_HELP,
    FRAGMENTATION_HELP,
    GUESTS_HELP,
    HOST_HELP,
    LIVE,
    NODES_HELP,
    SET_HELP,
    WATERMARKS_HELP,
    Ticker,
    chosen_policies,
    host_factory,
    listed,
)
from gmemlab.cli.output import console, print_json
from gmemlab.errors import UsageError
from gmemlab.policy import Policy

if TYPE_CHECKING:
    from gmemlab.costs import Costs
    from gmemlab.lab.compare import Comparison, Row, Setting

COSTS_HELP = (
    "Price work by these profiles, with commas between: files of `gmemlab calibrate -o FILE`, or live-6.18. What they lack is"
    " priced by the shipped profile for the guests' hardware."
)
DEFAULT_POLICIES = ("4k", "thp", "thp-inplace", "thp-strict-zero", "hugetlb-2m")


def run(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a TOML file.")] = "demo",
    host: Annotated[str, typer.Option(help=HOST_HELP)] = LIVE,
    fragmentation: Annotated[float | None, typer.Option(help=FRAGMENTATION_HELP)] = None,
    cpus: Annotated[int, typer.Option(min=0, max=512, help=CPUS_HELP)] = 0,
    nodes: Annotated[int, typer.Option(min=1, max=32, help=NODES_HELP)] = 1,
    watermarks: Annotated[bool | None, typer.Option("--watermarks/--no-watermarks", help=WATERMARKS_HELP)] = None,
    cma: Annotated[str | None, typer.Option(help=CMA_HELP)] = None,
    guests: Annotated[str | None, typer.Option(help=GUESTS_HELP)] = None,
    policies: Annotated[str | None, typer.Option(help="Policies with commas between; by default the scenario's.")] = None,
    set: Annotated[list[str] | None, typer.Option(help=SET_HELP)] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many hosts and streams of events to draw.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    costs: Annotated[list[str] | None, typer.Option(help=COSTS_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: raw bytes and ns, with the time series.")] = False,
) -> int:
    """Compare policies: a row for each, sentences that say what the table shows, details, assumptions.

    Args:
        scenario: name or file.
        host: live, a size or a file.
        fragmentation: of a host that is given by its size.
        cpus: that keep lists of their own.
        nodes: NUMA nodes of a host that is given by its size.
        watermarks: whether that has them.
        cma: size of its CMA.
        guests: their hardware.
        policies: names with commas between.
        set: choices to set, for all of the policies.
        seeds: how many.
        seed: the first one.
        costs: names or files of cost profiles.
        json: whether to print JSON instead.

    Raises:
        UsageError: an unknown scenario, host, hardware, policy, choice or cost profile, or a scenario larger than the host.
        UnsupportedError: this machine's free memory cannot be read.
    """
    with Ticker() as ticker:
        from gmemlab.costs import Costs
        from gmemlab.lab.compare import compare
        from gmemlab.workload.scenario import load, with_hardware

        wanted = with_hardware(load(scenario), guests)
        profiles = Costs.load(_profiles(costs or ()), wanted.guests.hardware)
        chosen = _policies(scenario, wanted.policies, policies, set or ())
        make_host = host_factory(host, fragmentation, cpus, nodes, watermarks, cma)
        screen = console()
        add, begin = (None, None) if json else _printers(ticker, screen, chosen)
        comparison = compare(make_host, wanted, chosen, range(seed, seed + seeds), add, ticker.show, begin)
    print_rest(screen, comparison, chosen, profiles, json)
    return 0


def _printers(
    ticker: Ticker, screen: Console, chosen: Sequence[Policy]
) -> "tuple[Callable[[Row], None], Callable[[Setting], None]]":
    """Return what prints a row as soon as it is there, and what prints the head before the first."""
    from gmemlab.report.table import HeadlineTable, print_setting

    table = HeadlineTable(screen, chosen)

    def begin(setting: "Setting") -> None:
        """Print what is compared, and the head of the table."""
        ticker.clear()
        print_setting(screen, setting)
        table.start()

    def add(row: "Row") -> None:
        """Print a row."""
        ticker.clear()
        table.add(row)

    return add, begin


def print_rest(screen: Console, comparison: "Comparison", chosen: Sequence[Policy], costs: "Costs", json: bool) -> None:
    """Print what follows the rows; or, as JSON, everything.

    Args:
        screen: where to.
        comparison: of all rows.
        chosen: the policies.
        costs: of operations.
        json: whether to print JSON.
    """
    from gmemlab.lab.findings import findings
    from gmemlab.lab.hazards import hazards
    from gmemlab.report.as_json import comparison_as_json
    from gmemlab.report.details import print_details
    from gmemlab.report.page_states import hazards_as_json, print_hazards, print_page_states
    from gmemlab.report.table import print_findings, print_legend, print_notes
    from gmemlab.report.times import cost_notes, costs_as_json, print_host_time, print_page_state_time

    sentences = findings(comparison.rows)
    setting, rows = comparison.setting, comparison.rows
    harm = hazards(rows, setting.hardware)
    assumptions = (*setting.assumptions, *cost_notes(costs))
    if json:
        data = comparison_as_json(comparison, sentences)
        print_json({**data, "assumptions": list(assumptions), "hazards": hazards_as_json(harm), **costs_as_json(rows, costs)})
        return
    print_legend(screen, setting, chosen)
    print_findings(screen, sentences)
    print_hazards(screen, harm)
    print_details(screen, rows)
    if setting.hardware != "generic":
        print_page_states(screen, rows)
    if costs.default is not None:
        print_page_state_time(screen, rows, costs)
    if costs.named:
        print_host_time(screen, rows, costs)
    print_notes(screen, comparison.notes, assumptions)


def _profiles(wanted: Sequence[str]) -> list[str]:
    """Return the cost profiles that the user names: files as they are, else names with commas between."""
    return [name for text in wanted for name in ([text] if Path(text).is_file() else listed(text))]


def _policies(scenario: str, proposed: Sequence[str], named: str | None, settings: Sequence[str]) -> list[Policy]:
    """Return the policies that the user names, or else the scenario (whose mistakes are the scenario's)."""
    if named is not None:
        return chosen_policies(listed(named), settings)
    try:
        presets = chosen_policies(proposed or DEFAULT_POLICIES, ())
    except UsageError as error:
        raise error.at(file=scenario) from None
    return chosen_policies([policy.name for policy in presets], settings)
