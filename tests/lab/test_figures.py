"""Figures of runs that were put together by hand."""

from typing import Any

import numpy as np
import pytest

from gmemlab.core import layout
from gmemlab.core.layout import CAUSE_ACCEPT, CAUSE_CONVERT, CAUSE_PUNCH, NR_TALLIES, TALLY_PRESENT
from gmemlab.core.sample import MEASURE, MEASURE_GUESTS
from gmemlab.lab.figures import FIGURES, figures_of, host_pages, share_2m
from gmemlab.lab.simulate import Run, simulate
from gmemlab.model.guests import Places
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.workload.schema import Daemons
from gmemlab.workload.stream import NO_VM
from lab_world import make_trace

PAGE = 4096


def records(*rows: dict[str, int]) -> Any:
    table = np.zeros(len(rows), MEASURE).view(np.recarray)
    for place, row in enumerate(rows):
        for field, value in row.items():
            table[place][field] = value
    return table


def make_run(samples: list[dict[str, int]], **changes: Any) -> Run:
    values: dict[str, Any] = {
        "policy": find("thp"),
        "seed": 0,
        "times": np.arange(1, len(samples) + 1) * 10,
        "samples": records(*samples),
        "ready": np.zeros(0, MEASURE_GUESTS).view(np.recarray),
        "tally": np.zeros(NR_TALLIES, np.int64),
        "before": np.zeros(NR_TALLIES, np.int64),
        "operations": {},
        "places": Places(32, 7, 9, 16384),
        "after": records({})[0],
        "start": records({})[0],
        "filled": records({})[0],
        "pool_bytes": 0,
        "pool_wanted_bytes": 0,
        "notes": (),
        "seconds": 0.0,
    }
    return Run(**{**values, **changes})


def figures(run: Run, before: Any = None) -> dict[str, float | None]:
    found = figures_of(run, np.zeros(NR_TALLIES, np.int64) if before is None else before)
    assert list(found) == list(FIGURES)
    return found


def test_shares_are_weighted_by_time() -> None:
    run = make_run(
        [
            {"private_mapped_2m": 512, "private_mapped_4k": 512},
            {"private_mapped_2m": 512, "private_mapped_4k": 0},
            {"private_mapped_2m": 0, "private_mapped_4k": 100},
        ],
        times=np.array([10, 40, 50]),
        ready=records({"private_mapped_2m": 512, "private_mapped_4k": 0}, {"private_mapped_4k": 1536}),
    )
    found = figures(run)
    assert found["mapped_2m_mean"] == pytest.approx((10 * 0.5 + 30 * 1.0 + 10 * 0.0) / 50)
    assert found["mapped_2m_end"] == 0.0
    assert found["mapped_2m_ready"] == 0.25


def test_zero_denominators_have_no_figure() -> None:
    found = figures(make_run([{}, {}]))
    none = {key for key, value in found.items() if value is None}
    shares = {"mapped_2m_ready", "mapped_2m_mean", "mapped_2m_end", "huge_backed_end", "peak_host_per_guest"}
    assert none == shares | {"snp_free_end", "rmp", "rmpopt_rebuilds", "pamt", "dynamic_pamt_end"}, "of other hardware"
    assert np.isnan(share_2m(records({}))).all()


def test_samples_without_mapped_memory_have_no_weight() -> None:
    run = make_run([{}, {"private_mapped_2m": 512}, {}])
    assert figures(run)["mapped_2m_mean"] == 1.0


def test_components_add_up_to_the_peak() -> None:
    run = make_run(
        [
            {"guest_pages": 100},
            {
                "guest_pages": 1000,
                "private_mapped_2m": 512,
                "private_mapped_4k": 100,
                "charged": 700,
                "charged_shared_side": 50,
                "backed_twice": 7,
                "stranded": 20,
                "pool_idle": 30,
                "structs_taken": -10,
                "table_blocks": 3,
            },
        ],
        filled=records({"structs_taken": -15})[0],
    )
    found = figures(run)
    pages = 700 + 50 + 30 + 5 + 3
    assert found["peak_host"] == pages * PAGE
    assert found["peak_host_per_guest"] == pages / 1000
    parts = ("mapped", "unmapped", "stranded", "shared_side", "pool_idle", "structs", "tables")
    assert sum(found[f"peak_{part}"] or 0 for part in parts) == pages * PAGE
    assert found["peak_unmapped"] == (700 - 612 - 20) * PAGE
    assert found["peak_backed_twice"] == 7 * PAGE
    assert host_pages(run.samples, run.filled).tolist() == [15, pages]


def test_the_peak_may_come_when_a_guest_is_ready() -> None:
    run = make_run([{"guest_pages": 10, "charged": 5}], ready=records({"guest_pages": 20, "charged": 15}))
    assert figures(run)["peak_host_per_guest"] == 0.75


def test_a_pool_is_looked_at_when_guests_use_most_of_it() -> None:
    """What the pool holds as a whole hardly changes, and is largest by chance at any time: here when it is all idle."""
    run = make_run(
        [
            {"guest_pages": 100, "charged": 10, "private_mapped_2m": 10, "pool_idle": 1000, "table_blocks": 5},
            {"guest_pages": 900, "charged": 800, "private_mapped_2m": 800, "pool_idle": 210, "table_blocks": 2},
        ]
    )
    found = figures(run)
    assert (found["peak_mapped"], found["peak_pool_idle"]) == (800 * PAGE, 210 * PAGE)
    assert found["peak_host"] == 1012 * PAGE
    assert found["peak_host_per_guest"] == 1012 / 900


def test_what_a_pool_lacks() -> None:
    found = figures(make_run([{}], pool_bytes=6 << 20, pool_wanted_bytes=8 << 20))
    assert (found["pool_wanted"], found["pool_missing"]) == (8 << 20, 2 << 20)


def test_free_pages_of_three_moments() -> None:
    moments = [{"free_2m": n, "free_2m_movable_zone": 1, "free_1g": n - 5, "clean_2m": n + 5} for n in (30, 20, 10)]
    run = make_run([{}, moments[1]], start=records(moments[0])[0], after=records({**moments[2], "pool_idle": 4})[0])
    found = figures(run)
    assert [found[f"free_2m_{moment}"] for moment in ("start", "end", "after")] == [30, 20, 10]
    assert [found[f"free_2m_unmovable_{moment}"] for moment in ("start", "end", "after")] == [29, 19, 9]
    assert [found[f"free_1g_{moment}"] for moment in ("start", "end", "after")] == [25, 15, 5]
    assert [found[f"clean_2m_{moment}"] for moment in ("start", "end", "after")] == [35, 25, 15]
    assert found["pool_idle_after"] == 4 * PAGE


def test_places_of_page_states() -> None:
    found = figures(make_run([{}]))
    assert [found[key] for key in ("regions", "snp_regions_end", "tdx_small_2m_end")] == [32, 7, 9]


def test_bytes_of_the_hardwares_tables() -> None:
    """Of 32 GiB, by hand: 16 bytes for each 4 KiB are 128 MiB (C19); of 7 of the 32 regions SNP guests have a page."""
    found = figures(make_run([{}], hardware="snp", rmpopt_rebuilds=3))
    assert (found["rmp"], found["snp_free_end"], found["rmpopt_rebuilds"]) == (128 << 20, 25 / 32, 3)
    assert (found["pamt"], found["dynamic_pamt_end"]) == (None, None)
    found = figures(make_run([{}], hardware="tdx"))
    larger = 16 * (16384 + 32)  # an entry for each 2 MiB and each 1 GiB
    assert found["pamt"] == (128 << 20) + larger
    assert found["dynamic_pamt_end"] == larger + (1 << 20) + 9 * 8192, "a bit for each 4 KiB, and two pages for each 2 MiB"
    assert (found["rmp"], found["snp_free_end"], found["rmpopt_rebuilds"]) == (None, None, None)


@pytest.mark.parametrize(("hardware", "looked_at"), [("snp", 4), ("tdx", 0)])
def test_rmpopt_looks_anew_ten_seconds_after_the_last_guest_left(hardware: str, looked_at: int) -> None:
    """C20: the guest that leaves 4 s after another puts it off; those that are left go together. Of a host in two regions."""
    second = 1_000_000_000
    events = [
        (0, 0, layout.OP_CREATE, 0, 0, 0),
        (0, 1, layout.OP_CREATE, 0, 0, 0),
        (0, 2, layout.OP_CREATE, 0, 0, 0),
        (1 * second, 2, layout.OP_DESTROY, 0, 0, 0),
        (5 * second, 0, layout.OP_DESTROY, 0, 0, 0),
        (20 * second, NO_VM, layout.OP_SAMPLE, 0, 0, 0),
    ]
    trace = make_trace(events, [512, 512, 512], 20 * second, hardware=hardware)
    run = simulate(Host("2G"), trace, find("thp"))
    assert run.places.regions == 3, "the first has no block 0"
    assert run.rmpopt_rebuilds == (2 if hardware == "snp" else None)
    assert run.operations["rmpopt"] == {"boot": 0, "running": 0, "tear-down": 3 * looked_at // 2}


def test_counters_are_those_of_the_run_alone() -> None:
    before = np.arange(NR_TALLIES, dtype=np.int64)
    tally = before.copy()
    tally[layout.TALLY_SHATTERED + CAUSE_PUNCH] += 1
    tally[layout.TALLY_SHATTERED + CAUSE_CONVERT] += 2
    tally[layout.TALLY_SHATTERED + CAUSE_ACCEPT] += 4
    tally[layout.TALLY_SPLIT_2M + CAUSE_PUNCH] += 8
    tally[layout.TALLY_SPLIT_1G + CAUSE_PUNCH] += 16
    tally[layout.TALLY_LAUNCHED] += 32
    tally[layout.TALLY_LOST_PAGES] += 64
    tally[TALLY_PRESENT] += 1000
    tally[TALLY_PRESENT + 9] += 512
    tally[TALLY_PRESENT + 18] += 1 << 18
    run = make_run([{"charged": 1 << 18, "charged_shared_side": 1 << 18}], tally=tally)
    found = figures(run, before)
    assert found["shattered"] == 7
    assert found["shattered_by_conversion"] == 2
    assert (found["split_2m"], found["split_1g"], found["split_by_punch"]) == (8, 16, 24)
    assert (found["launches"], found["launches_failed"]) == (32, 0)
    assert found["lost"] == 64 * PAGE
    assert found["huge_backed_end"] == ((1 << 18) + 512) / (1 << 19)


def test_what_guests_were_given_is_counted_without_the_hosts_own() -> None:
    """1,000 pages to a guest, of which 100 are punched; 700 to the host, of which it gives 250 back."""
    events = (
        (0, 0, layout.OP_CREATE, 0, 0, 1024),
        (1, layout.HOST_MOVABLE, layout.OP_HOST_ALLOCATE, 0, 0, 700),
        (2, 0, layout.OP_ALLOCATE, 0, 0, 1000),
        (3, layout.HOST_MOVABLE, layout.OP_HOST_FREE, 0, 0, 250),
        (4, 0, layout.OP_PUNCH, 0, 0, 100),
        (5, -1, layout.OP_SAMPLE, 0, 0, 0),
    )
    host = Host("64M")
    before = host.state.tally.copy()
    run = simulate(host, make_trace(events, (1024,), 10, background_pages=(512, 1024)), find("4k"))
    found = figures_of(run, before)
    assert (found["allocated_4k"], found["released_4k"]) == (1000, 100)
    assert [found[f"allocated_{size}"] for size in ("2m", "1g", "other")] == [0, 0, 0]


def test_what_daemons_did() -> None:
    """Of four 2M, khugepaged collapses one, leaves one with a shared page and one with holes; every page is a firmware copy."""
    events = (
        (0, 0, layout.OP_CREATE, 0, 0, 2048),
        (1, 0, layout.OP_ACCESS, layout.PRIVATE, 0, 2048),
        (2, 0, layout.OP_TO_SHARED, 0, 600, 1),
        (3, 0, layout.OP_TO_SHARED, 0, 7, 1),
        (4, 0, layout.OP_TO_PRIVATE, 0, 7, 1),
        (5, 0, layout.OP_PUNCH, 0, 1100, 70),
        (6, NO_VM, layout.OP_KHUGEPAGED, 0, 0, 10_000),
        (7, NO_VM, layout.OP_KCOMPACTD, 0, 0, 10_000),
        (8, NO_VM, layout.OP_SAMPLE, 0, 0, 0),
    )
    host = Host("64M")
    before = host.state.tally.copy()
    daemons = Daemons(max_ptes_none=60)
    trace = make_trace(events, (2048,), 10, daemons=daemons)
    run = simulate(host, trace, find("thp-migratable"))
    found = figures_of(run, before)
    assert {key: found[key] for key in found if key.startswith(("khugepaged", "collapse"))} == {
        "khugepaged_scanned": 4,
        "collapsed": 1,
        "collapse_failed": 2,
        "collapse_failed_holes": 1,
        "collapse_failed_held": 0,
        "collapse_failed_memory": 0,
        "collapse_failed_shared": 1,
        "collapse_copied": 512,
    }
    assert (found["firmware_copies"], found["kcompactd_runs"], found["compact_moved"]) == (512, 0, 0)
    assert any("thp-migratable: an upper bound: 512 private 4K pages" in note for note in run.notes)
    quiet = simulate(Host("64M"), trace, find("thp-inplace"))
    assert figures_of(quiet, before)["khugepaged_scanned"] == 0
    assert not any("upper bound" in note for note in quiet.notes)
