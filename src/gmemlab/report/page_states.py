"""Tables of what the guests' hardware did, at boot, while they ran and at tear-down; and of what must not happen."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

from gmemlab.lab.compare import Row
from gmemlab.lab.hazards import Hazard
from gmemlab.model.guests import PHASES
from gmemlab.report.table import name_of, policy_table, print_paragraph, write_count

# Titles, and the columns under them: header and operation.
GROUPS: Final[tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "The RMP: entries made private, made shared, smashed; the kernel's own mapping split for good (K11)",
        (
            ("private\n4K", "rmpupdate-private-4k"),
            ("private\n2M", "rmpupdate-private-2m"),
            ("shared\n4K", "rmpupdate-shared-4k"),
            ("shared\n2M", "rmpupdate-shared-2m"),
            ("\nsmash", "psmash"),
            ("kernel\n2M", "direct-map-2m"),
            ("kernel\n1G", "direct-map-1g"),
        ),
    ),
    (
        "Launch images: 4K pages that firmware or module were given, from a source, and in place (G52)",
        (
            ("update", "launch-update"),
            ("in\nplace", "launch-in-place"),
            ("added", "page-add"),
            ("in\nplace", "page-add-in-place"),
        ),
    ),
    (
        "SNP guests: memory validated (PVALIDATE) and given up, requests to the host",
        (
            ("valid\n4K", "pvalidate-4k"),
            ("valid\n2M", "pvalidate-2m"),
            ("given\nup 4K", "rescind-4k"),
            ("given\nup 2M", "rescind-2m"),
            ("2M re-\nfused", "size-mismatch"),
            ("PSC re-\nquests", "psc-request"),
            ("PSC en-\ntries", "psc-entry"),
        ),
    ),
    (
        "TDX: pages augmented and accepted, requests to the host",
        (
            ("aug.\n4K", "aug-4k"),
            ("aug.\n2M", "aug-2m"),
            ("accept\n4K", "accept-4k"),
            ("accept\n2M", "accept-2m"),
            ("2M re-\nfused", "accept-mismatch"),
            ("Map-\nGPA", "map-gpa"),
        ),
    ),
    (
        "TDX: mappings split and taken away",
        (
            ("de-\nmoted", "demote"),
            ("block-\ned", "range-block"),
            ("track-\ned", "track"),
            ("remo-\nved 4K", "remove-4k"),
            ("remo-\nved 2M", "remove-2m"),
        ),
    ),
    (
        "Private pages that the firmware would move, which no kernel does: an upper bound (K16)",
        (("moved\n4K", "page-move-4k"), ("moved\n2M", "page-move-2m")),
    ),
    (
        "The host's kernel: pages of guest_memfd cleared at first use (G27), calls that convert, and pages marked one by one",
        (("clear\n4K", "clear-4k"), ("clear\n2M", "clear-2m"), ("con-\nvert", "convert"), ("marked\n4K", "convert-page")),
    ),
    (
        "Shared pages of guest_memfd in the VMM's own mapping: faulted in, and taken away (G45)",
        (("VMM\nfault", "host-fault"), ("un-\nmapped", "host-unmap")),
    ),
    (
        "RMPOPT: how many 1G of the host it looked at anew, 10s after SNP guests had left (C20)",
        (("1G of\nthe host", "rmpopt"),),
    ),
    (
        "Private faults",
        (
            ("fault\n4K", "fault-4k"),
            ("fault\n2M", "fault-2m"),
            ("beside a\nzap, 4K", "refault"),
            ("RMP\nfault", "rmp-fault"),
        ),
    ),
)


def print_page_states(console: Console, rows: Sequence[Row]) -> None:
    """Print the tables, medians over the seeds; columns and rows of nothing but zeros are left out."""
    for title, columns in GROUPS:
        shown = [
            (header, name) for header, name in columns if any(_count(row, name, phase) for row in rows for phase in PHASES)
        ]
        if not shown:
            continue
        table = policy_table(rows)
        table.add_column("", no_wrap=True)
        for header, _ in shown:
            table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
        for row in rows:
            name = name_of(row)
            for phase in PHASES:
                counts = [_count(row, operation, phase) for _, operation in shown]
                if any(counts):
                    table.add_row(name, phase, *(write_count(count) for count in counts))
                    name = ""
        console.print(f"\n{title}", style="bold")
        console.print(table)


def _count(row: Row, operation: str, phase: str) -> float:
    phases = row.operations.get(operation)
    return phases[phase].median if phases else 0.0


def print_hazards(console: Console, found: Sequence[Hazard]) -> None:
    """Print what must not happen, in red; nothing if nothing did."""
    if not found:
        return
    harm = any(not hazard.harmless for hazard in found)
    console.print("\nHazards: what must not happen, and did" if harm else "\nHazards, without harm here", style="bold")
    for hazard in found:
        print_paragraph(console, hazard.text, style="" if hazard.harmless else "bold red")


def hazards_as_json(found: Sequence[Hazard]) -> list[dict[str, Any]]:
    """Return hazards as plain data."""
    return [
        {
            "policy": hazard.policy,
            "hazard": hazard.kind,
            "unit": hazard.unit,
            "harmless": hazard.harmless,
            "amount": {"median": hazard.amount.median, "min": hazard.amount.least, "max": hazard.amount.most},
            "by_phase": {
                phase: {"median": spread.median, "min": spread.least, "max": spread.most}
                for phase, spread in hazard.phases.items()
            },
            "led_by": {
                name: {"median": spread.median, "min": spread.least, "max": spread.most}
                for name, spread in hazard.led_by.items()
            },
            "cause": hazard.cause,
            "text": hazard.text,
        }
        for hazard in found
    ]
