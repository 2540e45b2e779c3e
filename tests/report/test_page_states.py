"""Tables of page states and of their time on terminals of several widths."""

import io
from typing import Literal

import pytest
from rich.console import Console

from gmemlab.costs import Costs
from gmemlab.lab.hazards import hazards
from gmemlab.lab.times import Interval
from gmemlab.model.guests import OPERATIONS
from gmemlab.report.page_states import GROUPS, print_hazards, print_page_states
from gmemlab.report.times import print_page_state_time, write_interval
from lab_world import make_row, with_operations

HAZARDS = {"unaccepted", "host-write"}


def screen(width: int, colours: bool = False) -> Console:
    system: Literal["standard"] | None = "standard" if colours else None
    text = io.StringIO()
    return Console(
        file=text, width=width, markup=False, highlight=False, emoji=False, force_terminal=colours, color_system=system
    )


def text_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_every_operation_has_a_column() -> None:
    """Or is a hazard."""
    shown = [name for _, columns in GROUPS for _, name in columns]
    assert len(shown) == len(set(shown))
    assert set(shown) == OPERATIONS.keys() - HAZARDS


@pytest.mark.parametrize("width", [80, 120])
def test_the_widest_tables_fit(width: int) -> None:
    everything = dict.fromkeys(OPERATIONS, (123_456, 98_765, 1_234_567))
    console = screen(width)
    print_page_states(console, [with_operations(make_row("thp-strict-zero"), everything)])
    print_page_state_time(console, [with_operations(make_row("thp-strict-zero"), everything)], Costs.load([], "snp"))
    lines = text_of(console)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    assert sum("boot" in line.split() and "123k" in line for line in lines) == len(GROUPS)


def test_columns_and_phases_of_nothing_but_zeros_are_left_out() -> None:
    console = screen(80)
    rows = [with_operations(make_row(name), {"psmash": (0, running, 0)}) for name, running in (("4k", 0), ("thp", 7))]
    print_page_states(console, rows)
    lines = text_of(console)
    assert lines[1].startswith("The RMP: ")
    assert [line.split() for line in lines[-2:]] == [["policy", "smash"], ["thp", "running", "7"]]


def test_wide_intervals_say_no_test() -> None:
    assert write_interval(None) == "-"
    assert write_interval(Interval(1000, 2000, 3000)) == "1us–3us"
    assert write_interval(Interval(1000, 2000, 3001)) == "no test:\n1us–3us"
    console = screen(80)
    rows = [with_operations(make_row("thp"), {"psmash": (3, 0, 0), "psc-request": (0, 1, 0)}), make_row("4k")]
    print_page_state_time(console, rows, Costs.load([], "snp"))
    whole = " ".join(" ".join(text_of(console)).split())
    assert "costs from snp" in whole
    assert "thp 0ns–2.33ms 2.96us–3.93us 2.96us–2.34ms" in whole
    assert whole.count("no test:") == 3
    assert "confirms nothing" in whole


def test_hazards_are_red() -> None:
    rows = [with_operations(make_row("thp"), {"host-write": (1, 0, 0)})]
    console = screen(200, colours=True)
    print_hazards(console, hazards(rows, "snp"))
    assert any(line.startswith("\x1b[1;31mthp: 1 4K pages zeroed") for line in text_of(console))
    console = screen(200, colours=True)
    print_hazards(console, hazards(rows, "tdx"))
    assert "\x1b[1;31m" not in "".join(text_of(console))
    assert "Hazards, without harm here" in "".join(text_of(console))
    console = screen(200)
    print_hazards(console, ())
    assert text_of(console) == []
