"""Counts times costs."""

import re
from dataclasses import replace

import pytest

from gmemlab.core.hardware import counts
from gmemlab.costs import DEFAULT, FREE, SHIPPED_FOR, Cost, Costs, Profile
from gmemlab.errors import UsageError
from gmemlab.lab.compare import Spread
from gmemlab.lab.figures import FIGURES
from gmemlab.lab.times import HOST_OPERATIONS, Interval, host_time, page_state_times, total
from gmemlab.model.guests import OPERATIONS
from lab_world import make_row, with_operations

ENTRIES = {
    "shmem-2m-punch-page": Cost("ns per call", 5, 7, 11, "measured", "a test"),
    "merge": Cost("ns per 2M", 100, 200, 300, "assumption", "a test"),
    "psmash": Cost("ns per 2M", 0, 2, 3, "assumption", "a test"),
    "fault-4k": Cost("ns per 4K page", 10, 20, 30, "assumption", "a test"),
}
COSTS = Costs((Profile("mine", "6.18", "a processor", "2026-11-25", ENTRIES),), None)
# Which operations a guest of some hardware may have: by the ranges of `hardware.counts`.
SNP_ALONE = {"direct-map-2m", "direct-map-1g", "rmpopt", "launch-in-place"}
BOTH = {name for name, code in OPERATIONS.items() if code >= counts.FAULT_4K and name not in {*SNP_ALONE, "page-add-in-place"}}
SNP = {name for name, code in OPERATIONS.items() if code <= counts.LAUNCH_UPDATE} | BOTH | SNP_ALONE
TDX = {name for name, code in OPERATIONS.items() if counts.PAGE_ADD <= code <= counts.MAP_GPA} | BOTH | {"page-add-in-place"}
HOST = {"host-fault", "host-unmap", "clear-4k", "clear-2m", "convert", "convert-page"}
PLAIN = {"fault-4k", "fault-2m", "refault"} | HOST


def test_intervals_cover_costs_and_seeds() -> None:
    row = make_row("thp", split_by_punch=(10.0, 8.0, 20.0), backing_healed=3.0, split_by_conversion=4.0)
    time = host_time(row, COSTS)
    assert time.parts == {"split_by_punch": Interval(40.0, 70.0, 220.0), "backing_healed": Interval(300.0, 600.0, 900.0)}
    assert time.total == Interval(340.0, 670.0, 1120.0)
    assert time.not_costed == ("split-by-conversion",)


def test_daemons_work_is_priced() -> None:
    """What khugepaged and compaction did; what reclaim dropped is named, as nobody measured it."""
    time = host_time(
        make_row("thp", collapsed=2.0, compact_moved=1000.0, pgsteal_kswapd=3.0), Costs((Profile.load(DEFAULT),), None)
    )
    assert {name: part.value for name, part in time.parts.items()} == {"collapsed": 14_000_000, "compact_moved": 7_500_000}
    assert time.not_costed == ("reclaim",)


def test_what_never_happened_costs_nothing() -> None:
    time = host_time(make_row("4k"), COSTS)
    assert (time.parts, time.total, time.not_costed) == ({}, Interval(0, 0, 0), ())


def test_figures_and_entries_exist() -> None:
    assert all(operation.figure in FIGURES for operation in HOST_OPERATIONS)
    assert len({operation.figure for operation in HOST_OPERATIONS}) == len(HOST_OPERATIONS)
    # A cost is per one of what the figure counts: pages, folios, entries, calls. Only 4K pages are counted one by one.
    profile = Profile.load(DEFAULT)
    units = {
        operation.figure: profile.costs[entry].unit
        for operation in HOST_OPERATIONS
        for entry in (operation.entry, operation.pool_entry)
        if entry in profile.costs
    }
    assert {figure for figure, unit in units.items() if unit == "ns per 4K page"} == {
        "allocated_4k",
        "released_4k",
        "compact_moved",
    }
    assert {figure for figure, unit in units.items() if unit == "ns per 2M"} == {"allocated_2m", "released_2m", "collapsed"}


def test_pages_from_a_pool_have_their_own_costs() -> None:
    costs = Costs((Profile.load(DEFAULT),), None)
    times = [host_time(make_row(name, allocated_2m=10.0), costs) for name in ("thp", "hugetlb-2m")]
    assert [time.total.value for time in times] == [10 * 4_900, 10 * 92_000]


def test_a_figure_that_no_seed_has() -> None:
    row = make_row("thp", split_by_punch=1.0)
    nothing = replace(row, figures={**row.figures, "split_by_punch": None})
    assert host_time(nothing, COSTS).parts == {}


def test_page_states_are_priced_by_phase() -> None:
    row = with_operations(
        make_row("thp"), {"psmash": (0, 5, 0), "fault-4k": (2, 1, 0), "host-write": (1, 1, 1), "track": (7, 0, 0)}
    )
    times = page_state_times(row, COSTS)
    assert list(times) == ["boot", "running", "tear-down"]
    assert times["boot"].total == Interval(20, 40, 60)
    assert not times["boot"].total.useless
    assert times["boot"].not_costed == ("track",)
    assert times["running"].parts == {"psmash": Interval(0, 10, 15), "fault-4k": Interval(10, 20, 30)}
    assert times["running"].total.useless
    assert times["tear-down"].parts == {}
    assert total(()) == Interval(0, 0, 0)
    assert Interval(1, 2, 3).scaled(2) == Interval(2, 4, 6)


def test_seeds_widen_an_interval() -> None:
    row = replace(
        make_row("thp"),
        operations={"fault-4k": {"boot": Spread(2, 1, 4), "running": Spread(0, 0, 0), "tear-down": Spread(0, 0, 0)}},
    )
    assert page_state_times(row, COSTS)["boot"].total == Interval(10, 40, 120)


@pytest.mark.parametrize(("hardware", "operations"), [("snp", SNP), ("tdx", TDX), ("plain", PLAIN)])
def test_every_operation_has_an_entry_or_is_free(hardware: str, operations: set[str]) -> None:
    """In the profile of its hardware; and no entry prices what that hardware does not do."""
    costs = Profile.load(hardware).costs
    assert costs.keys() == operations - FREE.keys()
    assert set(OPERATIONS) == SNP | TDX
    sizes = {"ns per 4K page": "-4k", "ns per 2M": "-2m"}
    one_size = {"psmash", "demote", "refault", "launch-update", "page-add", "launch-in-place", "page-add-in-place"}
    one_size |= {"host-fault", "host-unmap", "convert-page"}
    assert all(name.endswith(sizes.get(cost.unit, "")) or name in one_size for name, cost in costs.items())


@pytest.mark.parametrize("hardware", sorted(set(SHIPPED_FOR.values())))
def test_bounds_are_called_bounds(hardware: str) -> None:
    """Rules of costs.md, section 9; nothing rests on C4, which has C3's work in it once more."""
    profile = Profile.load(hardware)
    assert (profile.hardware, profile.name) == (hardware, hardware)
    for name, cost in profile.costs.items():
        assert cost.confidence == "assumption"
        assert 2 * cost.value <= cost.low + cost.high, f"{name}: no more than the middle, as the notes say"
        rows = re.findall(r"\bC\d+\b", cost.source)
        assert "C4" not in rows
        assert "C3" not in rows or cost.useless
        if cost.low == 0:
            assert "no public figure" in cost.source or cost.source.startswith("as "), name
    assert profile.costs["fault-4k"].low < profile.costs["fault-4k"].value < profile.costs["fault-4k"].high


def test_an_entry_is_that_of_the_first_profile_that_has_it() -> None:
    assert Costs.load([], "generic") == Costs((), None)
    costs = Costs.load([DEFAULT], "tdx")
    assert costs.name == f"{DEFAULT}, tdx"
    assert [costs.owner(name) for name in ("demote", "guest-memfd-punch", "absent")] == ["tdx", DEFAULT, None]
    assert costs.get("absent") is None
    own = replace(COSTS.named[0], costs={"demote": ENTRIES["merge"]})
    mixed = Costs((own, *costs.named), costs.default)
    assert (mixed.get("demote"), mixed.owner("track")) == (ENTRIES["merge"], "tdx")
    assert [profile.name for profile in Costs.load(["tdx"], "tdx").profiles] == ["tdx"]
    assert Costs.load([], "sw-protected").name == "plain"


def test_a_profile_of_other_hardware_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--costs: prices page states of snp guests, and these are tdx .*--guests snp"):
        Costs.load(["snp"], "tdx")
    with pytest.raises(UsageError, match="these are generic"):
        Costs.load([DEFAULT, "plain"], "generic")
