"""``gmemlab explain``: what keeps a guest page from being mapped at 2M, and which event made it so."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
)
from gmemlab.cli.output import console, print_json
from gmemlab.errors import UsageError
from gmemlab.units import format_count, format_duration

if TYPE_CHECKING:
    from gmemlab.lab.explain import Explanation, Step

LARGEST_GFN: Final = 1 << 40


def run(
    scenario: Annotated[str, typer.Argument(help="Name of a shipped scenario, or a TOML file.")],
    policy: Annotated[str, typer.Option(help="The policy.")],
    gfn: Annotated[str, typer.Option(help="Guest frame number of the page: 0x7d9d7, or decimal.")],
    vm: Annotated[int, typer.Option(min=0, help="Which guest, in order of creation.")] = 0,
    host: Annotated[str, typer.Option(help=HOST_HELP)] = LIVE,
    fragmentation: Annotated[float | None, typer.Option(help=FRAGMENTATION_HELP)] = None,
    cpus: Annotated[int, typer.Option(min=0, max=512, help=CPUS_HELP)] = 0,
    nodes: Annotated[int, typer.Option(min=1, max=32, help=NODES_HELP)] = 1,
    watermarks: Annotated[bool | None, typer.Option("--watermarks/--no-watermarks", help=WATERMARKS_HELP)] = None,
    cma: Annotated[str | None, typer.Option(help=CMA_HELP)] = None,
    guests: Annotated[str | None, typer.Option(help=GUESTS_HELP)] = None,
    set: Annotated[list[str] | None, typer.Option(help=SET_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the host and of the events.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: stable keys, nanoseconds.")] = False,
) -> int:
    """Run a scenario under one policy and explain how one guest page ends up.

    Args:
        scenario: name or file.
        policy: name of the policy.
        gfn: guest frame number.
        vm: number of the guest.
        host: live, a size or a file.
        fragmentation: of a host that is given by its size.
        cpus: that keep lists of their own.
        nodes: NUMA nodes of a host that is given by its size.
        watermarks: whether that has them.
        cma: size of its CMA.
        guests: their hardware.
        set: choices to set.
        seed: of host and events.
        json: whether to print JSON instead.

    Raises:
        UsageError: an unknown scenario, host, policy, hardware, guest or guest frame, or a scenario larger than the host.
        UnsupportedError: this machine's free memory cannot be read.
    """
    frame = _frame(gfn)
    with Ticker() as ticker:
        from gmemlab.lab.compare import host_assumptions
        from gmemlab.lab.explain import explain
        from gmemlab.workload.scenario import load, with_hardware
        from gmemlab.workload.trace import generate

        wanted = with_hardware(load(scenario), guests)
        (chosen,) = chosen_policies([policy], set or ())
        ticker.show("preparing the host", 0.0)
        machine = host_factory(host, fragmentation, cpus, nodes, watermarks, cma)(seed)
        trace = generate(wanted, machine.usable_bytes, seed)
        assumptions = (*trace.assumptions, *host_assumptions(machine, wanted))
        found = explain(machine, trace, chosen, vm, frame, lambda share: ticker.show(chosen.name, share))
    if json:
        head = {"scenario": wanted.title, "host": machine.description, "policy": chosen.name, "vm": vm}
        print_json({**head, **_as_json(found), "assumptions": list(assumptions), "notes": list(machine.notes)})
        return 0
    _print(found, frame, f"{chosen.name}\n{wanted.title}, on {machine.description}", machine.notes, assumptions)
    return 0


def _frame(text: str) -> int:
    try:
        frame = int(text, 0)
    except ValueError:
        frame = -1
    if not 0 <= frame < LARGEST_GFN:
        raise UsageError("not a guest frame number", key="--gfn", value=text, allowed="0x7d9d7, or decimal, below 2^40")
    return frame


def _as_json(found: "Explanation") -> dict[str, Any]:
    return {
        "guest": found.guest,
        "gfn": found.gfn,
        "page": found.watch.page,
        "state": found.state,
        "present": found.watch.present,
        "shared": found.watch.shared,
        "mapped": found.watch.mapped,
        "folio_order": found.watch.folio_order,
        "term": found.term.name,
        "meaning": found.term.meaning,
        "remedy": found.term.remedy,
        "cause": asdict(found.cause) if found.cause else None,
        "broken": asdict(found.broken) if found.broken else None,
        "changes": len(found.watch.changes),
        "first": [asdict(step) for step in found.first],
        "repeats": [asdict(repeat) for repeat in found.repeats],
        "last": [asdict(step) for step in found.last],
    }


def _print(found: "Explanation", frame: int, where: str, notes: tuple[str, ...], assumptions: tuple[str, ...]) -> None:
    from gmemlab.report.table import print_notes

    screen = console()
    _print_head(screen, found, frame, where)
    _print_answer(screen, found)
    _print_history(screen, found)
    print_notes(screen, notes, assumptions)


def _print_head(screen: Console, found: "Explanation", frame: int, where: str) -> None:
    screen.print(Text(f"Guest frame {frame:#x} of {found.guest}", style="bold"), end="")
    screen.print(f" (page {found.watch.page:#x} of its file), under {where}\n")


def _print_answer(screen: Console, found: "Explanation") -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column()
    grid.add_row("at the end", found.state)
    grid.add_row("limited by", Text(found.term.name, style="bold").append(f": {found.term.meaning}", style="not bold"))
    if found.broken:
        grid.add_row("2M lost by", _sentence(found.broken))
    if found.cause != found.broken or found.cause is None:
        grid.add_row("since", _sentence(found.cause) if found.cause else "the start")
    grid.add_row("lifted by", found.term.remedy)
    screen.print(grid)


def _print_history(screen: Console, found: "Explanation") -> None:
    count = len(found.watch.changes)
    screen.print(f"\nWhat limited the page: {format_count(count)} change{'s' if count != 1 else ''}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for header in ("time", "event", "operation", "limit", "at 2M"):
        table.add_column(header, justify="right" if header in ("time", "event") else "left")
    for step in found.first:
        table.add_row(*_cells(step))
    for repeat in found.repeats:
        table.add_row("…", f"{format_count(repeat.count)} x", repeat.operation, f"{repeat.was} → {repeat.term}", style="dim")
    for step in found.last:
        table.add_row(*_cells(step))
    screen.print(table)


def _cells(step: "Step") -> tuple[str, ...]:
    changed = step.term if step.was == step.term else f"{step.was} → {step.term}"
    return format_duration(step.time_ns), f"{step.event:,}", _what(step), changed, "yes" if step.mapped_2m else ""


def _sentence(step: "Step") -> str:
    return f"{format_duration(step.time_ns)}, event {step.event:,}: {_what(step)}"


def _what(step: "Step") -> str:
    if not step.pages:
        return step.operation
    place = "outside all memslots" if step.first_gfn is None else f"at {step.first_gfn:#x}"
    return f"{step.operation} of {step.pages:,} page{'s' if step.pages != 1 else ''} {place}"
