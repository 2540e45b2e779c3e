"""The headline table of a comparison: printed row by row as policies are done, in 120 columns or 80.

A cell has the median over the seeds, beside or under it in parentheses what the null model says, and under that the range
over the seeds. Column widths are fixed before the first row, so that rows can be printed as they come.
"""

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmemlab.lab.compare import Row, Setting, Spread
from gmemlab.policy import Policy
from gmemlab.report.status import EXTRAPOLATED, write_status
from gmemlab.units import format_count, format_duration, format_size

Write = Callable[[float], str]

DIM: Final = "dim"
NOTHING: Final = "-"
LONGEST_NAME: Final = 24
_PARAMETER: Final = re.compile(r"\bP\d+\b")


def write_share(value: float) -> str:
    """Return a share (0 to 1) as a percentage with one decimal."""
    return f"{value:.1%}"


def write_ratio(value: float) -> str:
    """Return a ratio with two decimals."""
    return f"{value:.2f}"


def write_count(value: float) -> str:
    """Return a count in at most five characters; a median between two counts keeps its half where there is room."""
    return format_count(round(value)) if value == int(value) or value >= 1000 else f"{value:.1f}"


@dataclass(frozen=True)
class Column:
    """A headline column: figure, header, how it is written, width of value and null side by side, and of a range alone."""

    key: str
    header: str
    write: Write
    beside: int
    stacked: int
    whole: str = ""  # figure that the value is a part of
    pool: str = ""  # figure of what a pool holds besides


COLUMNS: Final = (
    Column("mapped_2m_ready", "mapped 2M\nat ready", write_share, 13, 9),
    Column("mapped_2m_mean", "mapped 2M\nover time", write_share, 13, 9),
    Column("mapped_2m_end", "mapped 2M\nat end", write_share, 13, 9),
    Column("peak_host_per_guest", "host/guest\nat peak", write_ratio, 11, 10),
    Column("free_2m_after", "2M pages\nleft after", write_count, 13, 11, pool="pool_idle_after"),
    Column("launches_failed", "launches\nfailed", write_count, 10, 8, whole="launches"),
    Column("free_1g_after", "1G pages\nleft after", write_count, 13, 11),
    Column("conversions_refused", "refused\nEAGAIN", write_count, 7, 7),
)


class HeadlineTable:
    """One line or more for each policy, printed when it is done.

    Args:
        console: where to; its width decides on the form.
        policies: what will come, for the width of the first column.
    """

    def __init__(self, console: Console, policies: Sequence[Policy]) -> None:
        self._console = console
        longest = max(len(policy.name) for policy in policies)
        self._name_width = min(max(longest, *(len(write_status(policy)) for policy in policies)), LONGEST_NAME)
        room = console.width - self._name_width
        self._beside = sum(column.beside + 1 for column in COLUMNS) <= room
        self._columns = [column for column, end in zip(COLUMNS, self._ends(), strict=True) if end <= room]

    def start(self) -> None:
        """Print the header."""
        self._console.print(self._table(show_header=True))

    def add(self, row: Row) -> None:
        """Print a policy's lines."""
        table = self._table(show_header=False)
        name = Text(row.policy.name, style="bold").append(f"\n{write_status(row.policy)}", style="not bold dim")
        table.add_row(name, *(self._cell(row, column) for column in self._columns))
        self._console.print(table)

    def _ends(self) -> list[int]:
        """Return where each column ends, in characters after the first column."""
        widths = [column.beside if self._beside else column.stacked for column in COLUMNS]
        return [sum(width + 1 for width in widths[: index + 1]) for index in range(len(widths))]

    def _table(self, *, show_header: bool) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=DIM, show_header=show_header)
        table.add_column("\npolicy", width=self._name_width, overflow="fold")
        for column in self._columns:
            width = column.beside if self._beside else column.stacked
            table.add_column(column.header, width=width, justify="right", no_wrap=True)
        return table

    def _cell(self, row: Row, column: Column) -> Text:
        spread = row.figures[column.key]
        if spread is None:
            return Text(NOTHING)
        value, null = column.write(spread.median), row.null.get(column.key)
        beside = f" ({column.write(null.median)})" if null else ""
        if whole := row.figures[column.whole] if column.whole else None:
            both = f"{value}/{column.write(whole.median)}"
            value = both if len(both + beside) <= column.beside else value
        text = Text(value).append(beside if self._beside else beside.replace(" ", "\n"), style=DIM)
        if shown := _range(spread, column.write):
            text.append(f"\n{shown}", style=DIM)
        if (pool := row.figures[column.pool] if column.pool else None) and pool.median:
            text.append(f"\n+{format_size(pool.median)} pool", style=DIM)
        return text


def print_paragraph(console: Console, text: str, style: str = "") -> None:
    """Print a text in lines of at most the console's width."""
    for line in textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False):
        console.print(Text(line, style=style), soft_wrap=True)


def print_setting(console: Console, setting: Setting) -> None:
    """Print what is compared on what: the scenario, the host, the seeds."""
    free, total = format_size(setting.free_bytes), format_size(setting.total_bytes)
    first, count = setting.seeds[0], len(setting.seeds)
    seeds = f"seed {first}" if count == 1 else f"seeds {first} to {setting.seeds[-1]}"
    print_paragraph(console, setting.title, style="bold")
    print_paragraph(console, f"{format_duration(setting.duration_ns)} on {setting.host}: {free} of {total} free; {seeds}")
    console.print()


def print_legend(console: Console, setting: Setting, policies: Sequence[Policy]) -> None:
    """Print how to read the headline table, and which assumptions every figure of it rests on."""
    parts = [
        "(…) what simple arithmetic says",
        "mapped 2M: of the private memory that guests map; never at 1G (K7)",
        "host/guest: bytes of the host per byte of guests, both at their most",
    ]
    if len(setting.seeds) > 1:
        parts.append("medians and ranges over the seeds")
    if any(policy.status in EXTRAPOLATED for policy in policies):
        parts.append("* an extrapolation: there is no public code that does this")
    if rows := _parameters(setting.assumptions):
        parts.append(f"every figure rests on the assumptions {' '.join(rows)} below")
    print_paragraph(console, "; ".join(parts) + ".", style=DIM)


def print_findings(console: Console, sentences: Sequence[str]) -> None:
    """Print the sentences, one paragraph each."""
    console.print()
    for sentence in sentences:
        print_paragraph(console, sentence)


def print_notes(console: Console, notes: Sequence[str], assumptions: Sequence[str]) -> None:
    """Print notes, then the figures and assumptions that the events rest on."""
    for title, lines in (("Notes", notes), ("Figures and assumptions", assumptions)):
        if not lines:
            continue
        console.print(f"\n{title}", style="bold")
        grid = Table.grid(padding=(0, 1))
        for line in lines:
            grid.add_row("·", Text(line, style="" if _PARAMETER.search(line) else DIM))
        console.print(grid)


def _range(spread: Spread, write: Write) -> str:
    """Return the range over the seeds, percentages without their sign; nothing if it shows as one value."""
    least, most = (write(value).removesuffix("%") for value in (spread.least, spread.most))
    return f"{least}–{most}" if least != most else ""


def _parameters(assumptions: Sequence[str]) -> list[str]:
    """Return the P rows that the lines name, by number."""
    named = {row for line in assumptions for row in _PARAMETER.findall(line)}
    return sorted(named, key=lambda row: int(row[1:]))
