"""What comparisons look like on terminals of several widths."""

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from gmemlab.lab.compare import Row, Setting
from gmemlab.policy import PRESETS, find
from gmemlab.report.details import print_details
from gmemlab.report.status import policy_as_json, write_status
from gmemlab.report.table import (
    COLUMNS,
    HeadlineTable,
    print_findings,
    print_legend,
    print_notes,
    print_setting,
    write_count,
    write_ratio,
    write_share,
)
from lab_world import make_row

SETTING = Setting(
    title="A day",
    duration_ns=86_400 * 10**9,
    seeds=(0,),
    host="16G, empty",
    total_bytes=16 << 30,
    free_bytes=15 << 30,
    assumptions=("W2 (digitised): lifetimes", "P9 (assumption): scattered", "P10, P2 (assumption): both"),
    notes=(),
)
NULL = {
    "mapped_2m_mean": 0.75,
    "peak_host_per_guest": 1.0,
    "free_2m_after": 12_345.0,
    "free_1g_after": 15.0,
    "launches_failed": 0.0,
}


def screen(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)


def text_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def some_rows() -> list[Row]:
    return [
        make_row("4k", NULL, launches=19.0, free_2m_after=7790.0),
        make_row(
            "thp-strict-refuse", NULL, mapped_2m_mean=(0.985, 0.98, 0.9871), launches=19.0, launches_failed=2.0,
            free_2m_after=(7_900.5, 7_900.0, 7_901.0), shattered=12.0, stale=8192.0, free_2m_start=8063.0,
        ),
    ]  # fmt: skip


def headline(width: int, rows: Sequence[Row]) -> list[str]:
    console = screen(width)
    table = HeadlineTable(console, [row.policy for row in rows])
    table.start()
    for row in rows:
        table.add(row)
    return text_of(console)


def test_120_columns_have_everything_side_by_side() -> None:
    lines = headline(120, some_rows())
    assert max(map(len, lines)) <= 120
    assert all(part in " ".join(lines[:2]) for column in COLUMNS for part in column.header.split("\n"))
    assert lines[2].split()[:4] == ["4k", "0.0%", "0.0%", "(75.0%)"]
    assert "0/19 (0)" in lines[2]
    assert "2/19 (0)" in lines[4]
    assert "98.5% (75.0%)" in lines[4]
    assert "98.0–98.7" in lines[5]
    assert "7,900–7,901" in lines[5]
    assert lines[3].split() == ["merged"]
    assert lines[5].startswith("in words*")
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_fewer_columns_put_the_null_model_below(width: int) -> None:
    lines = headline(width, some_rows())
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    if width >= 60:
        assert "over time" in lines[1]
        assert any("(75.0%)" in line and "98.5%" not in line for line in lines)
    if width >= 80:
        assert "failed" in lines[1]
        assert "left after" in lines[1]


def test_columns_of_all_rows_line_up() -> None:
    lines = headline(120, some_rows())
    assert lines[2].index("(75.0%)") == lines[4].index("(75.0%)")


def test_a_figure_that_does_not_exist() -> None:
    row = make_row("thp")
    lines = headline(120, [replace(row, figures={**row.figures, "mapped_2m_ready": None})])
    assert lines[2].split()[:3] == ["thp", "-", "0.0%"]


def test_what_a_pool_holds_is_told_beside_what_is_free() -> None:
    lines = headline(80, [make_row("hugetlb-2m", NULL, free_2m_after=3169.0, pool_idle_after=float(9 << 30))])
    assert any("+9G pool" in line for line in lines)


def test_a_long_name_is_folded() -> None:
    policy = find("thp-strict-zero").with_choices({"merge": "never", "effort": "none"})
    lines = headline(80, [replace(some_rows()[1], policy=policy)])
    assert max(map(len, lines)) <= 80
    assert "".join(line[:24].strip() for line in lines[2:]).startswith(policy.name)


def test_setting_and_legend() -> None:
    console = screen(80)
    print_setting(console, SETTING)
    print_setting(console, replace(SETTING, seeds=(3, 4)))
    print_legend(console, SETTING, [find("4k")])
    print_legend(console, replace(SETTING, seeds=(3, 4)), [find("thp-inplace")])
    lines = text_of(console)
    whole = " ".join(lines)
    assert lines[:2] == ["A day", "1d on 16G, empty: 15G of 16G free; seed 0"]
    assert "seeds 3 to 4" in whole
    assert whole.count("assumptions P2 P9 P10 below") == 2
    assert whole.count("* an extrapolation") == 1
    assert whole.count("medians and ranges") == 1
    assert max(map(len, lines)) <= 80


def test_details_leave_out_what_says_nothing() -> None:
    console = screen(80)
    print_details(console, some_rows())
    whole = "\n".join(text_of(console))
    assert "shat-" in whole
    assert "8K" in whole
    assert "2M, movable" in whole
    assert "lost" not in whole
    assert "in pool" not in whole
    assert "Host memory" not in whole


def test_unmovable_pages_are_shown_where_they_are_fewer() -> None:
    console = screen(120)
    print_details(console, [make_row("4k", free_2m_start=5.0, free_2m_unmovable_start=3.0)])
    assert "2M, unmovable" in "\n".join(text_of(console))


def test_paragraphs_and_notes_keep_to_the_width() -> None:
    console = screen(40)
    print_findings(console, ["word " * 30, "thp-strict-refuse " * 5])
    print_notes(console, ["a note " * 10], SETTING.assumptions)
    print_notes(console, [], [])
    lines = text_of(console)
    assert max(map(len, lines)) <= 40
    assert not any(line.endswith("-") for line in lines)
    assert [line for line in lines if line in ("Notes", "Figures and assumptions")] == ["Notes", "Figures and assumptions"]


def test_numbers() -> None:
    assert [write_count(value) for value in (0, 5.5, 1234.5, 9_999, 12_345)] == ["0", "5.5", "1,234", "9,999", "12.3k"]
    assert write_share(0.98765) == "98.8%"
    assert write_ratio(1.005) == "1.00"


def test_every_status_fits_and_says_whether_it_is_an_extrapolation() -> None:
    for policy in PRESETS.values():
        assert len(write_status(policy)) <= 12
        assert write_status(policy).endswith("*") == policy_as_json(policy)["extrapolation"]
    assert not policy_as_json(find("thp"))["extrapolation"]
    assert policy_as_json(find("thp").with_choices({"punch": "zero"}))["extrapolation"]
