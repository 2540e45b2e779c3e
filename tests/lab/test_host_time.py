"""Counts times costs."""

from dataclasses import replace

from gmemlab.costs import DEFAULT, Cost, Profile
from gmemlab.lab.figures import FIGURES
from gmemlab.lab.host_time import OPERATIONS, Interval, host_time
from lab_world import make_row

COSTS = {
    "shmem-2m-punch-page": Cost("ns per call", 5, 7, 11, "measured", "a test"),
    "merge": Cost("ns per 2M", 100, 200, 300, "assumption", "a test"),
}
PROFILE = Profile("mine", "6.18", "a processor", "2026-11-25", COSTS)


def test_intervals_cover_costs_and_seeds() -> None:
    row = make_row("thp", split_by_punch=(10.0, 8.0, 20.0), backing_healed=3.0, conversions=4.0)
    time = host_time(row, PROFILE)
    assert time.parts == {"split_by_punch": Interval(40.0, 70.0, 220.0), "backing_healed": Interval(300.0, 600.0, 900.0)}
    assert time.total == Interval(340.0, 670.0, 1120.0)
    assert time.not_costed == ("conversion",)


def test_what_never_happened_costs_nothing() -> None:
    time = host_time(make_row("4k"), PROFILE)
    assert (time.parts, time.total, time.not_costed) == ({}, Interval(0, 0, 0), ())


def test_figures_and_entries_exist() -> None:
    assert all(operation.figure in FIGURES for operation in OPERATIONS)
    assert len({operation.figure for operation in OPERATIONS}) == len(OPERATIONS)
    # A cost is per one of what the figure counts: pages, folios, entries, calls. Only 4K pages are counted one by one.
    profile = Profile.load(DEFAULT)
    units = {
        operation.figure: profile.costs[entry].unit
        for operation in OPERATIONS
        for entry in (operation.entry, operation.pool_entry)
        if entry in profile.costs
    }
    assert {figure for figure, unit in units.items() if unit == "ns per 4K page"} == {"allocated_4k", "released_4k"}
    assert {figure for figure, unit in units.items() if unit == "ns per 2M"} == {"allocated_2m", "released_2m"}


def test_pages_from_a_pool_have_their_own_costs() -> None:
    profile = Profile.load(DEFAULT)
    times = [host_time(make_row(name, allocated_2m=10.0), profile) for name in ("thp", "hugetlb-2m")]
    assert [time.total.value for time in times] == [10 * 4_900, 10 * 92_000]


def test_a_figure_that_no_seed_has() -> None:
    row = make_row("thp", split_by_punch=1.0)
    nothing = replace(row, figures={**row.figures, "split_by_punch": None})
    assert host_time(nothing, PROFILE).parts == {}
