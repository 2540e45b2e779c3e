"""The headline table of a comparison: printed row by row as policies are done, in 120 columns or 80.

A cell has the median over the seeds, beside or under it in parentheses what the null model says, and under that the range
over the seeds. Column widths are fixed before the first row, so that rows can be printed as they come. All columns fit
into 80 characters; where the name of a policy does not, it is broken at its hyphens.
"""

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmemlab.lab.compare import Row, Setting, Spread
from gmemlab.policy import Policy
from gmemlab.presets import PRESETS
from gmemlab.report.status import EXTRAPOLATED, write_status
from gmemlab.units import format_count, format_duration, format_size

Write = Callable[[float], str]

DIM: Final = "dim"
NOTHING: Final = "-"
STARVED: Final = "!"
RANGE: Final = "–"
LONGEST_NAME: Final = 24
LEAST_NAME: Final = 12  # room for every status
_PARAMETER: Final = re.compile(r"\bP\d+\b")


def write_share(value: float) -> str:
    """Return a share (0 to 1) as a percentage with one decimal; a whole as 100%."""
    return f"{value:.1%}".replace("100.0", "100")


def write_ratio(value: float) -> str:
    """Return a ratio with two decimals."""
    return f"{value:.2f}"


def write_count(value: float) -> str:
    """Return a count in at most five characters; a median between two counts keeps its half where there is room."""
    return format_count(round(value)) if value == int(value) or value >= 1000 else f"{value:.1f}"


@dataclass(frozen=True)
class Column:
    """A headline column: figure, headers, how it is written, and its widths.

    Attributes:
        key: the figure.
        header: over wide columns.
        narrow_header: over narrow ones, with a line more.
        write: makes text of a value.
        beside: characters of a wide column, which has value and null side by side.
        below: characters of a narrow one, which has the null below the value.
        whole: figure that the value is a part of.
        pool: figure of what a pool holds besides.
        marked: whether the value is marked in rows whose guests went without memory.
    """

    key: str
    header: str
    narrow_header: str
    write: Write
    beside: int
    below: int
    whole: str = ""
    pool: str = ""
    marked: bool = False


COLUMNS: Final = (
    Column("mapped_2m_ready", "mapped 2M\nat ready", "at 2M\nwhen\nready", write_share, 12, 6),
    Column("mapped_2m_mean", "mapped 2M\nover time", "at 2M\nover\ntime", write_share, 12, 6),
    Column("mapped_2m_end", "mapped 2M\nat end", "at 2M\nat\nend", write_share, 12, 6),
    Column("peak_host_per_guest", "host/guest\nat peak", "host/\nguest\npeak", write_ratio, 12, 6, marked=True),
    Column("launches_failed", "launches\nfailed", "launch\nfailed", write_count, 8, 6, whole="launches"),
    Column("runtime_failures", "ENOMEM\nrunning", "ENOMEM\nrun-\nning", write_count, 7, 6),
    Column("conversions_refused", "EAGAIN\nrefused", "EAGAIN\nre-\nfused", write_count, 7, 6),
    Column("free_2m_after", "2M pages\nleft after", "2M\nleft\nafter", write_count, 13, 7, pool="pool_idle_after"),
    Column("free_1g_after", "1G pages\nleft after", "1G\nleft\nafter", write_count, 13, 7),
)


class HeadlineTable:
    """One line or more for each policy, printed when it is done.

    Args:
        console: where to; its width decides on the form.
        policies: what will come, for the width of the first column.
    """

    def __init__(self, console: Console, policies: Sequence[Policy]) -> None:
        self._console = console
        longest = max(*(len(policy.name) for policy in policies), *(len(write_status(policy)) for policy in policies))
        wide, narrow = (sum(widths) + len(COLUMNS) for widths in zip(*((c.beside, c.below) for c in COLUMNS), strict=True))
        self._wide = wide + LEAST_NAME <= console.width
        room = console.width - (wide if self._wide else narrow)
        self._name_width = min(longest, LONGEST_NAME, max(room, LEAST_NAME))
        ends = accumulate(self._width(column) + 1 for column in COLUMNS)
        self._columns = [c for c, end in zip(COLUMNS, ends, strict=True) if self._name_width + end <= console.width]

    def start(self) -> None:
        """Print the header."""
        self._console.print(self._table(show_header=True))

    def add(self, row: Row) -> None:
        """Print a policy's lines."""
        table = self._table(show_header=False)
        name = Text("\n".join(textwrap.wrap(row.policy.name, self._name_width)), style="bold")
        name.append(f"\n{write_status(row.policy)}", style="not bold dim")
        table.add_row(name, *(self._cell(row, column) for column in self._columns))
        self._console.print(table)

    def _width(self, column: Column) -> int:
        return column.beside if self._wide else column.below

    def _table(self, *, show_header: bool) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=DIM, show_header=show_header)
        table.add_column("\npolicy" if self._wide else "\n\npolicy", width=self._name_width, overflow="fold")
        for column in self._columns:
            header = column.header if self._wide else column.narrow_header
            table.add_column(header, width=self._width(column), justify="right", no_wrap=True)
        return table

    def _cell(self, row: Row, column: Column) -> Text:
        spread = row.figures[column.key]
        if spread is None:
            return Text(NOTHING)
        width = self._width(column)
        value, null = column.write(spread.median), row.null.get(column.key)
        beside = f" ({column.write(null.median).removesuffix('%')})" if null else ""
        if column.marked and row.starved:
            value += STARVED
        if whole := row.figures[column.whole] if column.whole else None:
            both = f"{value}/{column.write(whole.median)}"
            value = both if len(both + beside * self._wide) <= width else value
        text = Text(value).append(beside if self._wide else beside.replace(" ", "\n"), style=DIM)
        if shown := _range(spread, column.write):
            text.append(_fitted(shown, RANGE, width), style=DIM)
        if (pool := row.figures[column.pool] if column.pool else None) and pool.median:
            text.append(_fitted(f"+{format_size(pool.median)} pool", " ", width), style=DIM)
        return text


def policy_table(rows: Sequence[Row]) -> Table:
    """A table to which columns may be added behind the policies' names (`name_of`)."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=DIM)
    longest = max(len(line) for row in rows for line in name_of(row).splitlines())
    table.add_column("policy", vertical="bottom", overflow="fold", min_width=min(longest, LONGEST_NAME))
    return table


def name_of(row: Row) -> str:
    """A policy's name; one that is longer than any preset's has a line for each choice."""
    name = row.policy.name
    return name if len(name) <= max(map(len, PRESETS)) else name.replace("[", "\n[").replace(",", ",\n ")


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
        "mapped 2M, at 2M: of the private memory that guests map; never at 1G (K7)",
        "host/guest: bytes of the host per byte of guests, both at their most",
        f"{STARVED} not comparable: guests went without memory (failed, ENOMEM)",
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
    return f"{least}{RANGE}{most}" if least != most else ""


def _fitted(text: str, sign: str, width: int) -> str:
    """Return the text as a line of its own, or as two, broken after a sign, if it is wider than the column."""
    return "\n" + (text if len(text) <= width else text.replace(sign, f"{sign}\n".lstrip(" ")))


def _parameters(assumptions: Sequence[str]) -> list[str]:
    """Return the P rows that the lines name, by number."""
    named = {row for line in assumptions for row in _PARAMETER.findall(line)}
    return sorted(named, key=lambda row: int(row[1:]))
