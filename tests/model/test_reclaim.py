"""Hosts with page cache, CMA and kernel memory that cannot wait, as users have them."""

from dataclasses import replace
from typing import Any

import pytest

from gmemlab.capture import capture
from gmemlab.core import layout
from gmemlab.errors import OutOfMemory, UsageError
from gmemlab.lab.simulate import simulate
from gmemlab.model.cpus import watermarks
from gmemlab.model.host import Host
from gmemlab.presets import PRESETS, find
from gmemlab.snapshot import FreeChunks
from gmemlab.workload.scenario import load
from gmemlab.workload.schema import Background
from gmemlab.workload.trace import generate

ANY_HOST: Any = Host
GIB = 1 << 30


def test_a_guest_has_what_the_page_cache_had() -> None:
    host = Host("4G", watermarks=True)
    cache = host.page_cache("3G")
    cache.allocate()
    assert host.reclaimable_bytes == 3 * GIB
    host.guest_memfd("2G", "4k").allocate()
    host.audit()
    counts = host.vmstat()
    assert counts["pgsteal_kswapd"] > 0
    assert counts["nr_cache"] * 4096 + (counts["pgsteal_kswapd"] + counts["pgsteal_direct"]) * 4096 == 3 * GIB
    least, _, high = watermarks([4 * GIB // 4096])[0]
    assert least * 4096 < host.free_bytes <= (high + 32) * 4096


def test_the_lines_of_the_readme() -> None:
    host = Host("64G", watermarks=True)
    cache = host.page_cache("48G")
    cache.allocate()
    host.guest_memfd("32G", policy="4k").allocate()
    assert host.vmstat()["pgsteal_kswapd"] * 4096 > 16 * GIB
    assert 15 * GIB < host.reclaimable_bytes < 32 * GIB


def test_without_page_cache_it_would_not_fit() -> None:
    host = Host("4G", watermarks=True)
    host.background("3G", movable=True).allocate()
    with pytest.raises(OutOfMemory):
        host.guest_memfd("2G", "4k").allocate()
    assert host.vmstat()["pgsteal_kswapd"] == 0


def test_cma_is_for_movable_memory_only() -> None:
    host = Host("1G", cma="256M")
    with pytest.raises(OutOfMemory):
        host.guest_memfd("896M", "4k").allocate()
    assert host.free_bytes == 256 << 20
    assert (host.measure().free_2m, host.measure().free_2m_movable_zone) == (128, 128)
    host.memory("256M", PRESETS["shmem-thp"]).allocate()
    assert host.free_bytes == 0
    host.audit()


@pytest.mark.parametrize("cma", ["1M", "768M", -1])
def test_impossible_cma_is_refused(cma: Any) -> None:
    with pytest.raises(UsageError):
        ANY_HOST("1G", cma=cma)


def test_cma_and_fragmentation_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="CMA"):
        Host("1G", fragmentation=0.3, cma="2M")


def test_memory_that_cannot_wait_has_blocks_kept() -> None:
    host = Host("1G", watermarks=True)
    host.background("1000M", movable=False).allocate(0, host.usable_bytes)
    buffers = host.background("4M", movable=False, atomic="32K")
    buffers.allocate(0, "64K")
    host.audit()
    assert int((host.state.blocks.migratetype == layout.HIGHATOMIC).sum()) in (1, 2)


@pytest.mark.parametrize(("movable", "atomic"), [(True, "32K"), (False, "2M"), (False, "12K"), (False, "2K")])
def test_other_pieces_are_refused(movable: bool, atomic: str) -> None:
    with pytest.raises(UsageError):
        Host("64M").background("32M", movable=movable, atomic=atomic)


def test_no_guest_is_atomic() -> None:
    with pytest.raises(UsageError, match="GFP_ATOMIC"):
        find("thp").with_choices({"effort": "atomic"})


def test_a_snapshot_tells_types_and_what_is_reclaimable() -> None:
    live = capture()
    zone = max(live.zones, key=lambda zone: zone.managed_pages)
    free = {
        "Movable": FreeChunks((100, *([0] * 9), 50)),
        "HighAtomic": FreeChunks((0, 0, 0, 7, *([0] * 7))),
        "CMA": FreeChunks((*([0] * 10), 9)),
        "Isolate": FreeChunks((*([0] * 9), 1, 0)),
    }
    blocks = {"Unmovable": 40, "Movable": 400, "HighAtomic": 1, "CMA": 18, "Isolate": 1}
    changes: dict[str, Any] = {"start_pfn": 1 << 20, "spanned_pages": 1 << 18, "present_pages": 1 << 18, "deferred_pages": 0}
    small = replace(zone, kind="Normal", managed_pages=460 * 512, free=free, blocks=blocks, pcp_pages=0, **changes)
    small = replace(small, min_pages=100, low_pages=125, high_pages=150, reserve_pages=100)
    host = Host.from_snapshot(replace(live, zones=(small,), nodes=1, notes=(), reclaimable_pages=100_000))
    host.audit()
    record = host.state.zones[0]
    assert (record.free_highatomic, record.free_cma, record.free_isolated) == (56, 9 * 1024, 512)
    assert record.reserved_highatomic == 512
    assert 80_000 < host.vmstat()["nr_cache"] < 120_000
    guest = host.guest_memfd("512M", "4k")
    guest.allocate()
    assert host.vmstat()["pgsteal_kswapd"] > 0
    assert int(record.free_isolated) == 512


def test_a_scenario_may_have_page_cache() -> None:
    """It is dropped as guests need it; 0, the default, leaves everything as it was."""
    scenario = load("boot")
    assert scenario.background is None or scenario.background.cache == 0
    table = {"unmovable": 0.0, "movable": 0.0, "churn_per_hour": 0.0, "chunk": "64K", "hold": "5min", "cache": 0.9}
    background = Background.model_validate(table)
    host = Host("8G")
    trace = generate(scenario.model_copy(update={"background": background}), host.free_bytes, 1)
    assert any("page cache" in line for line in trace.assumptions)
    run = simulate(host, trace, PRESETS["thp"])
    assert run.tally[layout.TALLY_PGSTEAL_KSWAPD] + run.tally[layout.TALLY_PGSTEAL_DIRECT] > 0
    assert run.tally[layout.TALLY_LAUNCH_FAILED] == 0
    assert any("watermarks" in note for note in run.notes)
    host.audit()
