"""Hosts: empty, fragmented, from snapshots; and the object API on them."""

from dataclasses import replace

import numpy as np
import pytest

import gmemlab
from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.errors import HostAccessFault, InvalidArgument, MemoryFault, OutOfMemory, TryAgain, UsageError
from gmemlab.model import machine
from gmemlab.model.host import Host
from gmemlab.policy import PRESETS
from gmemlab.snapshot import FreeChunks, Snapshot, ZoneSnapshot, capture

TYPES = ("Unmovable", "Movable", "Reclaimable")


def zone_snapshot(**changes: object) -> ZoneSnapshot:
    """A Normal zone of 1 GiB from 4 GiB on, partly in use."""
    free = {
        "Unmovable": FreeChunks((40, 30, 20, 10, 5, 3, 2, 1, 1, 0, 0)),
        "Movable": FreeChunks((100, 0, 7, 60, 0, 0, 1, 2, 3, 20, 50)),
        "Reclaimable": FreeChunks((5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0)),
    }
    zone = ZoneSnapshot(
        node=0,
        kind="Normal",
        start_pfn=1 << 20,
        spanned_pages=1 << 18,
        present_pages=1 << 18,
        managed_pages=(1 << 18) - 20 * BLOCK_PAGES,
        min_pages=100,
        low_pages=125,
        high_pages=150,
        reserve_pages=100,
        free=free,
        blocks={"Unmovable": 40, "Movable": 440, "Reclaimable": 12},
        pcp_pages=33,
    )
    return replace(zone, **changes)  # type: ignore[arg-type]


def snapshot_of(zone: ZoneSnapshot) -> Snapshot:
    """A machine with that one zone."""
    live = capture()
    return replace(live, zones=(zone,), notes=(), nodes=1)


def free_counts(host: Host) -> dict[str, list[int]]:
    """Free chunks by type and order."""
    rows = host.state.free_lists["count"].reshape(-1, layout.NR_MIGRATETYPES, layout.NR_ORDERS).sum(axis=0)
    return {name: rows[kind].tolist() for kind, name in enumerate(TYPES)}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_placement_keeps_the_counts_of_every_order_and_type(seed: int) -> None:
    zone = zone_snapshot()
    host = Host.from_snapshot(snapshot_of(zone), seed)
    host.audit()
    expected = {name: list(zone.free[name].counts) for name in TYPES}
    expected["Movable"][0] += 33  # pages on per-CPU lists are free, and in no list that the kernel tells
    assert free_counts(host) == expected
    types = host.state.blocks.migratetype[(1 << 20) // BLOCK_PAGES : (1 << 20) // BLOCK_PAGES + 492]
    assert [int((types == kind).sum()) for kind in (0, 1, 2)] == [40, 440, 12]


def test_placement_is_drawn_from_the_seed() -> None:
    snapshot = snapshot_of(zone_snapshot())
    kinds = [Host.from_snapshot(snapshot, seed).state.blocks.kind.tolist() for seed in (1, 1, 2)]
    assert kinds[0] == kinds[1] != kinds[2]


def test_deferred_pages_are_free_blocks_at_the_end() -> None:
    zone = zone_snapshot(managed_pages=200 * BLOCK_PAGES, deferred_pages=250 * BLOCK_PAGES, blocks={"Movable": 250})
    host = Host.from_snapshot(snapshot_of(zone))
    host.audit()
    assert free_counts(host)["Movable"][10] == 50 + 125


def test_what_cannot_be_placed_is_said() -> None:
    zone = zone_snapshot(blocks={"Unmovable": 1, "Movable": 490})
    host = Host.from_snapshot(snapshot_of(replace(zone, free={**zone.free, "Unmovable": FreeChunks((600, *[0] * 10))})))
    host.audit()
    assert any("could not be placed" in note for note in host.notes)


def test_reserve_is_never_touched() -> None:
    host = Host.from_snapshot(snapshot_of(zone_snapshot()))
    with pytest.raises(OutOfMemory):
        host.guest_memfd("1G", "4k").allocate()
    assert int(host.state.zones.free.sum()) == 100


def test_this_machine_has_the_free_memory_that_its_snapshot_tells() -> None:
    snapshot = capture()
    host = Host.from_snapshot(snapshot)
    host.audit()
    wanted = sum(z.pcp_pages + z.deferred_pages for z in snapshot.zones if z.kind != "DMA")
    for zone in snapshot.zones:
        if zone.kind != "DMA":
            wanted += sum(chunks.pages for name, chunks in zone.free.items() if name in machine._TYPES)
    assert abs(host.free_bytes // 4096 - wanted) <= BLOCK_PAGES * len(snapshot.zones)


@pytest.mark.parametrize("fragmentation", [0.05, 0.4, 0.9])
def test_preconditioning_reaches_the_index(fragmentation: float) -> None:
    host = Host("4G", fragmentation=fragmentation, seed=5)
    host.audit()
    assert fragmentation <= host.unusable_index() < fragmentation + 0.02
    again = Host("4G", fragmentation=fragmentation, seed=5)
    assert again.state.blocks.tobytes() == host.state.blocks.tobytes()


def test_empty_host_hands_out_ascending_and_takes_back_everything() -> None:
    host = Host("1G")
    before = host.free_bytes
    assert before == (1 << 30) - 8 * 4096 * 513 // 4096 * 4096 + (8 * 513 % 512 - 512) * 4096
    guest = host.guest_memfd("64M", "thp")
    guest.allocate()
    starts = [int(block.block) for block in host.state.file_blocks[1:33]]
    assert starts == list(range(starts[0], starts[0] + 32))
    guest.close()
    guest.close()
    assert host.free_bytes == before
    host.audit()


def test_the_lines_of_the_readme() -> None:
    host = gmemlab.Host("64G")
    vm = host.guest_memfd("4G", policy="thp")
    vm.allocate()
    vm.punch_hole("2M", "4K")
    vm.convert("1G", "64M", to="shared")
    usage = vm.usage()
    assert usage.charged == (4 << 30) - 4096 - (64 << 20)
    assert usage.shared == 64 << 20
    assert [extent.folio for extent in vm.layout()[:3]] == [2 << 20, 0, 4096]


def test_errors_are_the_kernels() -> None:
    host = Host("1G")
    vm = host.guest_memfd("64M", "thp-inplace")
    with pytest.raises(HostAccessFault):
        vm.access(0, "4K", by="host")
    with pytest.raises(MemoryFault):
        vm.access(0, "4K", by="guest-shared")
    with pytest.raises(InvalidArgument):
        vm.allocate("63M", "2M")
    with pytest.raises(InvalidArgument, match="not a multiple of 4K"):
        vm.punch_hole(1, 4096)
    vm.convert(0, "4K", to="shared")
    vm.access(0, "4K", by="host")
    vm.pin(0, "4K")
    with pytest.raises(TryAgain) as caught:
        vm.convert(0, "4K", to="private")
    assert caught.value.done == 0
    vm.unpin(0, "4K")
    vm.convert(0, "4K", to="private")
    vm.close()
    with pytest.raises(UsageError, match="closed"):
        vm.usage()


def test_what_limits_a_mapping_is_told() -> None:
    host = Host("1G")
    vm = host.guest_memfd("8M", "thp")
    assert vm.limit(0) == "no backing"
    vm.access(0, "8M")
    assert vm.limit(0) == "nothing: 2M"
    vm.convert("2M", "4K", to="shared")
    assert vm.limit("2M") == "no backing"
    assert "smaller" in vm.limit("3M")
    vm.bind([(0x10000, 4 << 20, 0), (8 << 20, 4 << 20, 4 << 20)])
    assert "modulo" in vm.limit(0)
    with pytest.raises(UsageError, match="do not overlap"):
        vm.bind([(0, 8 << 20, 0), (8 << 20, 4 << 20, 4 << 20)])


def test_hvo_returns_page_structs_to_the_host_and_takes_them_back() -> None:
    host = Host("1G")
    before = host.free_bytes
    assert host.grow_pool("2M", 10) == 10
    assert host.free_bytes == before - 10 * (2 << 20) + 10 * 7 * 4096
    vm = host.guest_memfd("4M", "hugetlb-2m")
    vm.access(0, "4M")
    free = host.free_bytes
    vm.convert("2M", "4K", to="shared")
    assert host.free_bytes == free - 7 * 4096
    vm.convert("2M", "4K", to="private")
    assert host.free_bytes == free


@pytest.mark.parametrize("size", ["1M", "3M", "66M1", "-1G"])
def test_sizes_of_hosts_are_checked(size: str) -> None:
    with pytest.raises(UsageError):
        Host(size)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_runs(name: str) -> None:
    host = Host("4G")
    policy = PRESETS[name]
    if policy.source == "pool":
        host.grow_pool(policy.unit, (1 << 30) // policy.unit)
    vm = host.guest_memfd("1G", policy)
    vm.access(0, "1G")
    if policy.conversion != "none":
        vm.convert("512M", "4K", to="shared")
        vm.access("512M", "4K", by="guest-shared")
        vm.convert("512M", "4K", to="private")
    host.audit()
    vm.close()
    host.audit()


def used(host: Host, policy: str) -> None:
    """Guests come and go, pages are pinned, a pool grows."""
    gone = host.guest_memfd("6M", policy)
    gone.allocate()
    guest = host.guest_memfd("20M", policy)
    guest.allocate()
    guest.punch_hole("2M", "4K")
    guest.convert("8M", "64K", to="shared")
    guest.access("8M", "4K", by="guest-shared")
    guest.pin("8M", "4K")
    host.grow_pool("2M", 3)
    gone.close()


@pytest.mark.parametrize("policy", ["4k", "thp", "thp-inplace"])
def test_copy_is_the_same_host_and_has_a_life_of_its_own(policy: str) -> None:
    host = Host("128M", fragmentation=0.2)
    used(host, policy)
    copy = host.copy()
    assert_equal_states(copy, host)
    for same in (copy, host):  # one after the other: what the first does must not reach the second
        used(same, policy)
        same.audit()
    assert_equal_states(copy, host)
    host.memory("2M").allocate()
    assert copy.free_bytes - host.free_bytes == 2 << 20


def assert_equal_states(one: Host, other: Host) -> None:
    """Every byte of every table, also beyond what is known to be used."""
    for name, table in one.state._asdict().items():
        if name != "table":
            assert np.array_equal(table.view(np.uint8), getattr(other.state, name).view(np.uint8)), name
