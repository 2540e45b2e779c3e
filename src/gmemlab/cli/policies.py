"""``gmemlab policies``: the presets, their origin and status, and the choices that a policy is made of."""

from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmemlab.cli.output import console, print_json
from gmemlab.policy import ALLOWED, CHOICES, Policy
from gmemlab.presets import PRESETS, find
from gmemlab.report.status import policy_as_json
from gmemlab.units import format_size

# The choices that are not one of a list of words.
FORMS: Final = {
    "sizes": "powers of two from 2M down to 4K (2M,64K,4K); 2M or 1G alone",
    "fallocate_sizes": "the same as sizes, for shmem only",
    "repair": "none, merge, collapse, compaction, or several with a comma or + between",
    "pool": "auto (what the guests hold at once), a size, or a share of free memory (80%)",
}
WIDE: Final = 100  # columns from which there is room for more of a policy
MEANINGS: Final = {
    "sizes": "folios that are tried, largest first",
    "fallocate_sizes": "the same for fallocate, where it differs (L12)",
    "source": "where pages come from",
    "effort": "how hard a huge allocation tries (K14)",
    "zone": "unmovable or movable memory (K15)",
    "punch": "what happens to a folio that is punched in part",
    "conversion": "private and shared from two sources, or in place",
    "split": "what a split leaves (L13)",
    "shared": "pages of a two-source guest's shared side (K13)",
    "merge": "a range that is private again: merged at once (G72), as its pool takes it back (G65), or never",
    "repair": "khugepaged (T1), compaction (with zone=movable), or its own merge mends what was split",
    "zero_scan": "the shrinker frees zeros in huge pages of shmem (T4)",
    "truncation": "whether truncation zeroes a part before it splits its folio (K1)",
    "accept_mark": "whether a 4K accept forbids 2M there for good (G79)",
    "vmm_punch": "side that the VMM discards on conversion (K12)",
    "hvo": "pool pages give back their page structs (C25)",
    "pool": "size of the pool",
    "pool_at": "the pool grows when the scenario starts, or was taken at boot (hugepages=)",
}


def run(
    name: Annotated[str | None, typer.Argument(help="Show all choices of this policy.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: sizes in bytes, stable keys.")] = False,
) -> int:
    """Print the presets, or one of them with every choice.

    Args:
        name: of one preset.
        json: whether to print JSON instead of tables.

    Raises:
        UsageError: no such policy.
    """
    if json:
        shown = PRESETS.values() if name is None else [find(name)]
        print_json(
            {"policies": [policy_as_json(policy) for policy in shown], "choices": {key: _allowed(key) for key in CHOICES}}
        )
    elif name is None:
        _print_presets(console())
    else:
        _print_choices(console(), find(name))
    return 0


def _allowed(choice: str) -> str:
    return FORMS[choice] if choice in FORMS else ", ".join(ALLOWED[choice])


def _sizes(sizes: tuple[int, ...]) -> str:
    return ",".join(format_size(size) for size in sizes)


def _value(policy: Policy, choice: str) -> str:
    value = getattr(policy, choice)
    return _sizes(value) if isinstance(value, tuple) else str(value)


def _print_presets(screen: Console) -> None:
    headers = ["policy", "sizes", "source", "punch", "conversion", "status"]
    if screen.width >= WIDE:
        headers[5:5] = ["split", "merge"]
    for title, confidential in (("For confidential guests (guest_memfd)", True), ("Ordinary memory", False)):
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for header in headers:
            table.add_column(header, no_wrap=True)
        for policy in PRESETS.values():
            if (policy.memory == "guest_memfd") is confidential:
                table.add_row(Text(policy.name, style="bold"), *(_value(policy, header) for header in headers[1:]))
        screen.print(title, style="bold")
        screen.print(table)
        screen.print()
    grid = Table.grid(padding=(0, 2))
    for policy in PRESETS.values():
        grid.add_row(Text(policy.name, style="bold"), Text(policy.summary).append(f" ({policy.origin})", style="dim"))
    screen.print(grid)
    screen.print("\nAll choices of a policy, and what they may be: gmemlab policies NAME")


def _print_choices(screen: Console, policy: Policy) -> None:
    screen.print(Text(policy.name, style="bold").append(f": {policy.summary}", style="not bold"))
    screen.print(f"{policy.status}; origin: {policy.origin}; memory: {policy.memory}\n")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("choice", no_wrap=True, style="cyan")
    table.add_column("value", no_wrap=True, style="bold")
    table.add_column("allowed")
    table.add_column("meaning")
    for choice in CHOICES:
        table.add_row(choice, _value(policy, choice), _allowed(choice), MEANINGS[choice])
    screen.print(table)
