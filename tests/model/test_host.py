"""Hosts: empty, fragmented, from snapshots; and the object API on them."""

import errno
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gmemlab
from gmemlab.capture import capture
from gmemlab.core import layout, state
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.errors import (
    HostAccessFault,
    InvalidArgument,
    MemoryFault,
    OperationError,
    OutOfMemory,
    TooBig,
    TryAgain,
    UsageError,
)
from gmemlab.model import machine
from gmemlab.model.host import Host
from gmemlab.presets import PRESETS
from gmemlab.snapshot import FreeChunks, Snapshot, ZoneSnapshot
from gmemlab.units import parse_size

ANY_HOST: Any = Host  # takes arguments of any type, as users do
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
    return replace(live, zones=(zone,), notes=(), nodes=1, reclaimable_pages=0)


def free_counts(host: Host) -> dict[str, list[int]]:
    """Free chunks by type and order."""
    counts = host.state.free_lists["count"][: len(host.state.zones) * layout.NR_MIGRATETYPES * layout.NR_ORDERS]
    rows = counts.reshape(-1, layout.NR_MIGRATETYPES, layout.NR_ORDERS).sum(axis=0)
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


@pytest.mark.parametrize("size", ["64M", "4G"])
@pytest.mark.parametrize("fragmentation", [0.05, 0.4, 0.9, 0.95])
def test_preconditioning_reaches_the_index(size: str, fragmentation: float) -> None:
    host = Host(size, fragmentation=fragmentation, seed=5)
    host.audit()
    blocks = host.total_bytes >> 21
    assert fragmentation <= host.unusable_index() < fragmentation + 4 / blocks
    again = Host(size, fragmentation=fragmentation, seed=5)
    assert again.state.blocks.tobytes() == host.state.blocks.tobytes()


def test_dirtied_blocks_lie_all_over_the_zone() -> None:
    """No long run of them and none of clean blocks, of both types; what is clean is free."""
    host = Host("16G", fragmentation=0.2, seed=1)
    kinds = host.state.blocks.kind[1 : 1 + 8192]  # the first 129 hold page structs
    dirty = kinds == layout.SPLIT
    share = dirty[129:].mean()
    assert 0.25 < share < 0.45
    assert (kinds[129:][~dirty[129:]] == layout.FREE).all()
    for part in np.array_split(dirty[129:], 8):
        assert abs(part.mean() - share) < 0.06
    types = host.state.blocks.migratetype[1 : 1 + 8192][dirty]
    assert 0.15 < (types == layout.UNMOVABLE).mean() < 0.25
    assert int(host.measure().free_1g) == 0
    other = Host("16G", fragmentation=0.2, seed=2).state.blocks.kind[1 : 1 + 8192] == layout.SPLIT
    assert (other != dirty).any()


def test_hardly_any_fragmentation_leaves_1g_pages() -> None:
    host = Host("16G", fragmentation=0.0005, seed=1)
    assert 0 < int(host.measure().free_1g) < 15


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


def mixed_pool() -> None:
    """Half with HVO, half without."""
    host = Host("64M")
    host.grow_pool("2M", 1, hvo=True)
    host.grow_pool("2M", 1, hvo=False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ANY_HOST("8G", fragmentation="a"), "^fragmentation: .*'a'; allowed: 0 to 0.95"),
        (lambda: ANY_HOST("8G", fragmentation=float("nan")), "^fragmentation: "),
        (lambda: ANY_HOST("8G", seed=-1), "^seed: not a seed .value -1; allowed: a whole number"),
        (lambda: ANY_HOST("8G", 0.2, seed="a"), "^seed: not a seed .value 'a'"),
        (lambda: ANY_HOST(8.5), "not a size"),
        (lambda: ANY_HOST.live(seed="a"), "^seed: "),
        (lambda: ANY_HOST.from_snapshot(snapshot_of(zone_snapshot()), -1), "^seed: "),
        (
            lambda: ANY_HOST.from_snapshot(snapshot_of(zone_snapshot(managed_pages=10**12))),
            r"^zones\[0\]\.managed_pages: out of",
        ),
        (
            lambda: ANY_HOST.from_snapshot(snapshot_of(zone_snapshot(start_pfn=1 << 34))),
            r"^zones\[0\]\.spanned_pages: larger than",
        ),
        (lambda: ANY_HOST("64M").guest_memfd("2M", policy=3), "^policy: not a policy .value 3; allowed: "),
        (lambda: ANY_HOST("64M").guest_memfd("2M", policy="big"), "^policy: no such policy"),
        (lambda: ANY_HOST("64M").guest_memfd("2M", policy="anon-thp"), "^policy: a policy for ordinary memory.*allowed: 4k,"),
        (lambda: ANY_HOST("64M").guest_memfd("2M", flags="3"), "^flags: not flags"),
        (lambda: ANY_HOST("64M").guest_memfd(2.0), "not a size"),
        (lambda: ANY_HOST("64M").memory("2M", policy="thp"), "^policy: a policy for guest_memfd.*allowed: shmem-thp"),
        (lambda: ANY_HOST("64M").memory("2M", policy=None), "^policy: not a policy"),
        (lambda: ANY_HOST("64M").grow_pool("2M", "all"), "^page: no such pool"),
        (lambda: ANY_HOST("64M").set_pool("4M", 1), "^page: no such pool"),
        (lambda: ANY_HOST("64M").set_pool("2M", 1, -1), "^page: no such pool"),
        (lambda: ANY_HOST("64M").demote_pages(-1), "not a number of pages"),
        (mixed_pool, "^hvo: one pool has HVO for all of its pages, or none"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        call()
    assert caught.value.allowed


@pytest.mark.parametrize(("policy", "largest"), [("thp", "4T"), ("thp-inplace", "8T"), ("shmem-thp", "8T")])
def test_size_beyond_the_models_tables_leaves_the_host_as_it_was(policy: str, largest: str) -> None:
    host = Host("8G")
    create = host.memory if PRESETS[policy].memory != "guest_memfd" else host.guest_memfd
    for size in ("999T", (64 << 40) + (2 << 20), parse_size(largest) + 4096, (1 << 63) - 4096):
        with pytest.raises(TooBig, match=rf"^create {size} \({policy}\): the model holds files up to {largest} on this host"):
            create(size, policy)
    everything = create(largest, policy)
    with pytest.raises(OperationError, match="the model's tables are full: the 1T need") as caught:
        create("1T", policy)
    assert caught.value.errno == errno.ENFILE
    everything.close()
    again = create(largest, policy)
    again.access("1T", "2M")
    again.close()
    create("1G", policy).allocate()
    host.audit()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_runs(name: str) -> None:
    host = Host("4G")
    policy = PRESETS[name]
    if policy.source == "pool":
        host.grow_pool(policy.unit, (1 << 30) // policy.unit)
    vm = host.guest_memfd("1G", policy) if policy.memory == "guest_memfd" else host.memory("1G", policy)
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


def test_signals_are_served_while_a_host_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "COPIED_AT_ONCE", 4 << 20)
    host = Host("8G")
    host.guest_memfd("8T", "thp-inplace")
    assert host.model_bytes > 80 << 20
    served: list[float] = []
    previous = signal.signal(signal.SIGALRM, lambda *_: served.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        copy = host.copy()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(served) >= 8  # of twenty slices; one assignment for each table would serve them together
    assert_equal_states(copy, host)


def assert_equal_states(one: Host, other: Host) -> None:
    """Every byte of every table, also beyond what is known to be used."""
    for name, table in one.state._asdict().items():
        if name != "table":
            assert np.array_equal(table.view(np.uint8), getattr(other.state, name).view(np.uint8)), name
