"""What comparisons look like on terminals of several widths."""

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from gmemlab.lab.compare import Row, Setting
from gmemlab.lab.null_model import NULL_FIGURES
from gmemlab.presets import PRESETS, find
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


# How far each column of the narrow form ends from the right side of the table.
FROM_RIGHT = [sum(column.below + 1 for column in COLUMNS[place + 1 :]) for place in range(len(COLUMNS))]


def text_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def some_rows() -> list[Row]:
    return [
        make_row("4k", NULL, launches=19.0, free_2m_after=7790.0),
        make_row(
            "thp-strict-refuse", NULL, mapped_2m_mean=(0.985, 0.98, 0.9871), launches=19.0, launches_failed=2.0,
            peak_host_per_guest=0.95, runtime_failures=3.0, conversions_refused=(1234.0, 1000.0, 2000.0),
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
    assert lines[2].split()[:4] == ["4k", "0.0%", "0.0%", "(75.0)"]
    assert "0/19 (0)" in lines[2]
    assert "2/19 (0)" in lines[4]
    assert "98.5% (75.0)" in lines[4]
    assert "0.95! (1.00)" in lines[4]
    assert "98.0–98.7" in lines[5]
    assert "7,900–7,901" in lines[5]
    assert lines[3].split() == ["merged"]
    assert [line[:15].strip() for line in lines[4:]] == ["thp-strict-", "refuse", "in words*"]
    assert not any("…" in line for line in lines)


def words_of(lines: Sequence[str], column: int, width: int) -> list[str]:
    """What stands in a column of so many characters, from its last character on."""
    return [word for line in lines if (word := line[column - width : column].strip())]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_fewer_columns_put_the_null_model_below(width: int) -> None:
    lines = headline(width, some_rows())
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    if width >= 60:
        assert any("(75.0)" in line and "98.5%" not in line for line in lines)


def test_80_columns_have_everything() -> None:
    lines = headline(80, some_rows())
    header = [line.split() for line in lines[:3]]
    assert [words_of(lines[:3], 80 - end, column.below) for column, end in zip(COLUMNS, FROM_RIGHT, strict=True)] == [
        column.narrow_header.split("\n") for column in COLUMNS
    ]
    assert header[2][0] == "policy"
    body = lines[3:]
    cells = [words_of(body, 80 - end, column.below) for column, end in zip(COLUMNS, FROM_RIGHT, strict=True)]
    assert cells[1] == ["0.0%", "(75.0)", "98.5%", "(75.0)", "98.0–", "98.7"]
    assert cells[3] == ["0.00", "(1.00)", "0.95!", "(1.00)"]
    assert cells[4] == ["0/19", "(0)", "2/19", "(0)"]
    assert cells[5] == ["0", "3"]
    assert cells[6] == ["0", "1,234", "1,000–", "2,000"]
    assert cells[7] == ["7,790", "(12.3k)", "7,900", "(12.3k)", "7,900–", "7,901"]
    assert cells[8] == ["0", "(15)", "0", "(15)"]


def test_columns_of_all_rows_line_up() -> None:
    lines = headline(120, some_rows())
    assert lines[2].index("(75.0)") == lines[4].index("(75.0)")


@pytest.mark.parametrize("width", [80, 120])
def test_the_widest_cells_fit(width: int) -> None:
    null = dict.fromkeys(NULL_FIGURES, 1.0) | {"free_2m_after": 99_949.0, "free_1g_after": 9_999.0}
    row = make_row(
        "thp", null, mapped_2m_ready=(1.0, 0.991, 1.0), mapped_2m_end=(0.999, 0.5, 1.0), peak_host_per_guest=(9.99, 9.0, 9.99),
        launches=12_345.0, launches_failed=(123.0, 0.0, 400.0), runtime_failures=(99_949.0, 5.0, 123_456.0),
        conversions_refused=(8_888.0, 1.0, 9_999.0), free_2m_after=(99_949.0, 9_999.0, 99_999.0), free_1g_after=9_999.0,
        pool_idle_after=float(1023 << 30),
    )  # fmt: skip
    lines = headline(width, [row])
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    whole = " ".join(" ".join(lines).split())
    assert all(text in whole for text in ("100%", "(100)", "9.99!", "99.9k", "(9,999)", "123", "+1023G", "400"))


def test_a_figure_that_does_not_exist() -> None:
    row = make_row("thp")
    lines = headline(120, [replace(row, figures={**row.figures, "mapped_2m_ready": None})])
    assert lines[2].split()[:3] == ["thp", "-", "0.0%"]


def test_what_a_pool_holds_is_told_beside_what_is_free() -> None:
    row = make_row("hugetlb-2m", NULL, free_2m_after=3169.0, pool_idle_after=float(9 << 30))
    assert any("+9G pool" in line for line in headline(120, [row]))
    narrow = [line.strip() for line in headline(80, [make_row("4k"), row])]
    assert narrow[-2:] == ["+9G", "pool"]


def test_rows_whose_guests_went_without_memory_are_marked() -> None:
    """Those alone, and the legend explains the mark."""
    rows = [make_row("4k"), make_row("thp", launches_failed=1.0), make_row("ladder", runtime_failures=(0.0, 0.0, 1.0))]
    for width in (80, 120):
        assert [line.count("0.00!") for line in headline(width, rows) if "0.00" in line] == [0, 1, 1]
    console = screen(120)
    print_legend(console, SETTING, [find("4k")])
    assert "! not comparable: guests went without memory" in " ".join(text_of(console))


def test_a_long_name_is_folded() -> None:
    policy = find("thp-strict-zero").with_choices({"merge": "never", "effort": "none"})
    for width, room in ((80, 15), (100, 24), (120, 15)):
        lines = headline(width, [replace(some_rows()[1], policy=policy)])
        assert max(map(len, lines)) <= width
        assert "".join(line[:room].strip() for line in lines[2 + (width < 120) :]).startswith(policy.name)


def test_a_name_is_broken_at_its_hyphens() -> None:
    lines = headline(80, some_rows())
    assert [line[:15].strip() for line in lines[5:]] == ["thp-strict-", "refuse", "in words*", ""]


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
    assert "VMM" not in whole
    assert "in smaller" not in whole
    assert "Host memory" not in whole


def test_fallbacks_and_failed_punches_of_the_vmm_are_told() -> None:
    console = screen(80)
    print_details(console, [make_row("thp", entries_2m=7.0, fallbacks=5432.0, vmm_punches_failed=1234.0, lost=4096.0)])
    lines = text_of(console)
    assert [line.split() for line in lines if line.startswith("thp")] == [["thp", "7", "5,432"], ["thp", "1,234", "4K"]]
    assert "in smaller" in "\n".join(lines)
    assert "VMM punch" in "\n".join(lines)


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
    assert [write_share(value) for value in (0.9996, 1.0, 0.9994)] == ["100%", "100%", "99.9%"]
    assert write_ratio(1.005) == "1.00"


def test_every_status_fits_and_says_whether_it_is_an_extrapolation() -> None:
    for policy in PRESETS.values():
        assert len(write_status(policy)) <= 12
        assert write_status(policy).endswith("*") == policy_as_json(policy)["extrapolation"]
    assert not policy_as_json(find("thp"))["extrapolation"]
    assert policy_as_json(find("thp").with_choices({"punch": "zero"}))["extrapolation"]
