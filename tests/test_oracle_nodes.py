"""Known answers, worked out by hand: NUMA nodes, their policies, pools of each node, and mounts of hugetlbfs."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    HOST,
    KIND_ANON,
    KIND_CACHE,
    KIND_SHMEM,
    NODES_BIND,
    NODES_INTERLEAVE,
    NODES_LOCAL,
    NODES_PREFERRED,
    NODES_SPREAD,
    PUNCH_DEFER,
    ZONE_DMA32,
    ZONE_NORMAL,
)
from node_players import THREE, TWO
from oracle_files import OraclePolicy
from world import HUGETLBFS, SHMEM_THP, SMALL_IN_PLACE, THP_IN_PLACE, WORLDS, World, count, frames, new, world_fixture

__all__ = ["world_fixture"]
BLOCK = 512
CACHE = OraclePolicy(KIND_CACHE, (0,), movable=True)
MOVABLE_4K = replace(SHMEM_THP, sizes=(0,), fallocate_sizes=())
TWO_ZONES = [(1, 9, ZONE_NORMAL, 0), (9, 17, ZONE_NORMAL, 0)]


@pytest.fixture(name="pair", params=sorted(WORLDS))
def pair_fixture(request: pytest.FixtureRequest) -> World:
    """Two nodes of eight blocks each, of which the first block of node 0 is reserved."""
    model = WORLDS[request.param](TWO_ZONES, {1}, 16)
    model.set_nodes(TWO, [0, 1])
    return model


def on_nodes(model: World, file: int, border: int = 9) -> list[int]:
    """Pages of a file below and above the border between two nodes, in blocks."""
    places = [pfn // BLOCK >= border for pfn in frames(model, file)]
    return [places.count(False), places.count(True)]


def counted(model: World) -> list[tuple[int, int, int]]:
    """Hits, misses and foreign allocations of each node."""
    return model.observe()["nodes"]


def test_local_memory_overflows_to_the_other_node(pair: World) -> None:
    """Seven blocks at home, then one elsewhere: 512 misses there, wanted by 512 here."""
    file = new(pair, 8 * BLOCK, SMALL_IN_PLACE)
    assert pair.allocate(file, 0, 8 * BLOCK) == (0, 8 * BLOCK)
    assert on_nodes(pair, file) == [7 * BLOCK, BLOCK]
    assert counted(pair) == [(7 * BLOCK, 0, BLOCK), (0, BLOCK, 0)]
    assert pair.observe()["counters"]["missed_pages"] == BLOCK
    pair.check()


def test_lists_of_another_nodes_zone_empty_when_idle(pair: World) -> None:
    """`refresh_cpu_vm_stats`: three seconds after the last change a batch of 15 goes, and three after that the next.

    A CPU keeps what is of its own node, and chunks of 2 MiB put nothing off: one goes with a batch, and then none.
    """
    pair.set_cpus(2, 15, 60, 60)
    for node in (0, 1):
        file = new(pair, 90, SMALL_IN_PLACE)
        pair.bind(file, NODES_BIND, 1 << node, 0)
        pair.allocate(file, 0, 90)
        for page in range(59):
            pair.punch(file, page, 1)

    def kept(node: int) -> int:
        lists = pair.observe()["kept"]
        return sum(len(pfns) << (9 if index > 11 else 0) for (zone, _, index), pfns in lists.items() if zone == node)

    assert (kept(0), kept(1)) == (59, 59)
    lengths = []
    for _ in range(13):
        pair.decay()
        lengths.append(kept(1))
    assert lengths == [59, 59, 44, 44, 44, 29, 29, 29, 14, 14, 14, 0, 0]
    assert kept(0) == 59
    pair.check()


def test_huge_pages_of_another_nodes_zone_stay_on_a_list(pair: World) -> None:
    """A counter that changes by 512 at once is no news for the vmstat worker (`mod_zone_state`).

    After one base page the other 62 of its batch go, and a huge one, as 63 are to; then one more, and that is no news again.
    """
    pair.set_cpus(2, 63, 4000, 4000)
    file = new(pair, 3 * BLOCK, SHMEM_THP)
    pair.bind(file, NODES_BIND, 0b10, 0)
    pair.allocate(file, 0, 3 * BLOCK)
    pair.punch(file, 0, 3 * BLOCK)
    listed = pair.observe()["kept"]
    assert [len(pfns) for pfns in listed.values()] == [4]
    for _ in range(9):
        pair.decay()
    assert pair.observe()["kept"] == listed
    small = new(pair, 1, SMALL_IN_PLACE)
    pair.bind(small, NODES_BIND, 0b10, 0)
    pair.allocate(small, 0, 1)
    lengths = []
    for _ in range(9):
        pair.decay()
        lengths.append([len(pfns) for pfns in pair.observe()["kept"].values()])
    assert lengths == [[62, 4]] * 2 + [[3]] * 3 + [[2]] * 4
    pair.check()


def test_bound_memory_goes_nowhere_else(pair: World) -> None:
    """G53: bind gives ENOMEM, and what its nodes have counts as a hit, wherever the task runs."""
    file = new(pair, 10 * BLOCK, SMALL_IN_PLACE)
    pair.bind(file, NODES_BIND, 0b10, 0)
    assert pair.allocate(file, 0, 9 * BLOCK) == (errno.ENOMEM, 8 * BLOCK)
    assert on_nodes(pair, file) == [0, 8 * BLOCK]
    assert counted(pair) == [(0, 0, 0), (8 * BLOCK, 0, 0)]


def test_preferred_memory_comes_from_elsewhere_at_last(pair: World) -> None:
    file = new(pair, 10 * BLOCK, SMALL_IN_PLACE)
    pair.bind(file, NODES_PREFERRED, 0b10, 0)
    assert pair.allocate(file, 0, 9 * BLOCK) == (0, 9 * BLOCK)
    assert on_nodes(pair, file) == [BLOCK, 8 * BLOCK]


def test_a_policy_matters_for_new_memory_only(pair: World) -> None:
    """G53: what is there stays; after a punch it comes from where the policy says."""
    file = new(pair, 2 * BLOCK, SMALL_IN_PLACE)
    pair.allocate(file, 0, BLOCK)
    pair.bind(file, NODES_BIND, 0b10, 0)
    pair.allocate(file, 0, 2 * BLOCK)
    assert on_nodes(pair, file) == [BLOCK, BLOCK]
    pair.punch(file, 0, BLOCK)
    pair.allocate(file, 0, BLOCK)
    assert on_nodes(pair, file) == [0, 2 * BLOCK]


def test_guest_memfd_interleaves_as_it_allocates(pair: World) -> None:
    """`interleave_nodes`: page 9 first, then 4 and 5. A new task begins behind node 0; indexes do not matter."""
    file = new(pair, BLOCK, SMALL_IN_PLACE)
    pair.bind(file, NODES_INTERLEAVE, 0b11, 0)
    for first, pages in ((9, 1), (4, 2)):
        assert pair.allocate(file, first, pages) == (0, pages)
    four, five, nine = (pfn // BLOCK >= 9 for pfn in frames(pair, file))
    assert (nine, four, five) == (True, False, True)


def test_shmem_interleaves_by_index(pair: World) -> None:
    """`interleave_nid`: odd pages on node 1; of huge pages, odd ones."""
    file = new(pair, 2 * BLOCK + 10, SHMEM_THP)
    pair.bind(file, NODES_INTERLEAVE, 0b11, 0)
    for index in (2 * BLOCK + 9, 2 * BLOCK + 4):
        pair.access(file, index, 1, HOST)
    assert [pfn // BLOCK >= 9 for pfn in frames(pair, file)] == [False, True]
    pair.access(file, 0, 2 * BLOCK, HOST)
    assert [pfn // BLOCK >= 9 for pfn in frames(pair, file)[::BLOCK]][:2] == [False, True]


def test_huge_pages_of_shmem_stay_at_home_those_of_guest_memfd_do_not(pair: World) -> None:
    """`alloc_pages_mpol`: without direct compaction base pages at home come before huge ones elsewhere, but for guest_memfd."""
    blocker = new(pair, 7 * BLOCK, SMALL_IN_PLACE)
    pair.allocate(blocker, 0, 7 * BLOCK)
    for block in range(7):
        pair.punch(blocker, block * BLOCK, 200)
    file = new(pair, BLOCK, SHMEM_THP)
    pair.access(file, 0, 1, HOST)
    assert on_nodes(pair, file) == [1, 0]
    guest = new(pair, BLOCK, THP_IN_PLACE)
    pair.allocate(guest, 0, 1)
    assert on_nodes(pair, guest) == [0, BLOCK]


def test_a_collapse_goes_where_most_pages_are(pair: World) -> None:
    """`hpage_collapse_find_target_node`: 3 pages on node 1 against 2 on node 0; the policy does not matter."""
    file = new(pair, BLOCK, OraclePolicy(kind=KIND_ANON, movable=True, punch=PUNCH_DEFER))
    pair.bind(file, NODES_BIND, 0b10, 0)
    pair.access(file, 0, 3, HOST)
    pair.bind(file, NODES_BIND, 0b01, 0)
    pair.access(file, 3, 2, HOST)
    assert on_nodes(pair, file) == [2, 3]
    assert pair.collapse(file, 0, BLOCK) == (0, BLOCK)
    assert on_nodes(pair, file) == [0, BLOCK]


def test_of_files_folios_count(pair: World) -> None:
    """3 pages on node 1 are two folios, as 2 pages on node 0 are: the first of both nodes is wanted, the other allowed."""
    file = new(pair, BLOCK, SHMEM_THP)
    pair.bind(file, NODES_BIND, 0b10, 0)
    pair.access(file, 0, BLOCK, HOST)
    pair.punch(file, 3, BLOCK - 3)
    pair.bind(file, NODES_BIND, 0b01, 0)
    pair.access(file, 3, 2, HOST)
    assert on_nodes(pair, file) == [2, 3]
    assert pair.collapse(file, 0, BLOCK) == (0, BLOCK)
    assert on_nodes(pair, file) == [BLOCK, 0]


def test_three_nodes_help_each_other_by_distance() -> None:
    """Node 1 asks 1, 2, 0; node 2 asks 2, 1, 0; node 0 asks 0, 1, 2 (THREE)."""
    for name in WORLDS:
        model = WORLDS[name]([(1, 3, ZONE_NORMAL, 0), (3, 5, ZONE_NORMAL, 0), (5, 7, ZONE_NORMAL, 0)], set(), 6)
        model.set_nodes(THREE, [0, 1, 2])
        file = new(model, 6 * BLOCK, SMALL_IN_PLACE)
        model.bind(file, NODES_LOCAL, 0, 1)
        model.allocate(file, 0, 6 * BLOCK)
        assert [pfn // BLOCK for pfn in frames(model, file)[::BLOCK]] == [3, 4, 5, 6, 1, 2]


def test_locality_matters_more_than_unmixed_blocks() -> None:
    """ALLOC_NOFRAGMENT: node 0 takes from its zone DMA32 before it mixes, but mixes before it asks node 1, which has none."""
    for name in WORLDS:
        model = WORLDS[name]([(3, 5, ZONE_NORMAL, 0), (5, 7, ZONE_NORMAL, 0), (1, 3, ZONE_DMA32, 0)], set(), 6)
        model.set_nodes(TWO, [0, 1, 0])
        model.set_watermarks(0, 0, True)
        guest = new(model, 4 * BLOCK, SMALL_IN_PLACE)
        mix_with(model, 0)
        model.allocate(guest, 0, 1 + 2 * BLOCK)
        assert {pfn // BLOCK for pfn in frames(model, guest)[:-1]} == {1, 2}
        assert frames(model, guest)[-1] // BLOCK in (3, 4)
        mix_with(model, 1)
        model.bind(guest, NODES_LOCAL, 0, 1)
        model.allocate(guest, 3 * BLOCK, 1)
        assert frames(model, guest)[-1] // BLOCK in (5, 6)


def mix_with(model: World, node: int) -> None:
    """Movable pages in both of a node's Normal blocks."""
    movable = new(model, 2 * BLOCK, OraclePolicy(kind=KIND_SHMEM, movable=True))
    model.bind(movable, NODES_BIND, 1 << node, node)
    model.allocate(movable, 0, BLOCK + 300)
    model.punch(movable, 300, BLOCK - 300)


def test_pools_grow_and_shrink_in_turn(pair: World) -> None:
    """Node 0, 1, 0; then one page from node 0 and one from node 1 go; a node alone gets its own size."""
    assert pair.set_pool(9, 3, 0) == 0
    assert pair.observe()["pools"][9][4] == [(2, 0), (1, 0)]
    assert pair.set_pool(9, 1, 0) == 0
    assert pair.observe()["pools"][9][4] == [(1, 0), (0, 0)]
    assert pair.set_pool(9, 3, 0, 1) == 0
    assert pair.observe()["pools"][9][4] == [(1, 0), (3, 0)]
    assert pair.set_pool(9, 20, 0, 1) == 0
    assert pair.observe()["pools"][9][4] == [(1, 0), (8, 0)]
    pair.check()


def test_pages_are_taken_near_and_bound_files_take_surplus(pair: World) -> None:
    """Two pages on node 0: local memory on node 1 takes one; memory bound to node 1 gets a surplus page, then SIGBUS."""
    pair.grow_pool(9, 2, False, 0b01)
    pair.set_pool(9, 2, 1)
    first = new(pair, BLOCK, HUGETLBFS)
    pair.bind(first, NODES_LOCAL, 0, 1)
    assert pair.access(first, 0, BLOCK, HOST) == (0, BLOCK)
    assert on_nodes(pair, first) == [BLOCK, 0]
    bound = new(pair, 2 * BLOCK, HUGETLBFS)
    pair.bind(bound, NODES_BIND, 0b10, 0)
    assert pair.access(bound, 0, 2 * BLOCK, HOST) == (errno.ENOSPC, BLOCK)
    assert pair.observe()["pools"][9][4] == [(2, 0), (1, 1)]
    pair.destroy(first)
    assert pair.observe()["pools"][9][4] == [(2, 0), (1, 1)]  # its own node has no surplus page
    pair.destroy(bound)
    assert pair.observe()["pools"][9][4] == [(2, 0), (0, 0)]


def test_fallocate_of_hugetlbfs_knows_no_policy(pair: World) -> None:
    pair.grow_pool(9, 4, False)
    file = new(pair, 2 * BLOCK, HUGETLBFS)
    pair.bind(file, NODES_BIND, 0b10, 0)
    assert pair.allocate(file, 0, BLOCK) == (0, BLOCK)
    assert pair.access(file, BLOCK, BLOCK, HOST) == (0, BLOCK)
    assert on_nodes(pair, file) == [BLOCK, BLOCK]


def test_a_mount_limits_and_keeps(pair: World) -> None:
    """Six pages; a mount of three keeps two. Files outside get four; in the mount a fourth page is refused."""
    pair.grow_pool(9, 6, False)
    assert pair.mount(9, 3, 2) == (0, 1)
    assert pair.observe()["pools"][9][:3] == (6, 6, 2)
    outside = new(pair, 5 * BLOCK, HUGETLBFS)
    assert pair.allocate(outside, 0, 5 * BLOCK) == (errno.ENOSPC, 4 * BLOCK)
    pair.punch(outside, 0, BLOCK)
    inside = new(pair, 4 * BLOCK, HUGETLBFS)
    pair.join(1, inside)
    assert pair.reserve(inside, 0, BLOCK) == (0, BLOCK)
    assert pair.observe()["mounts"] == [(1, 1)]
    assert pair.observe()["pools"][9][2] == 2  # one kept for the file, one for the mount
    assert pair.reserve(inside, 0, 4 * BLOCK) == (errno.ENOMEM, 0)
    assert pair.allocate(inside, 0, 4 * BLOCK) == (errno.ENOSPC, 3 * BLOCK)
    assert pair.observe()["mounts"] == [(3, 0)]
    assert pair.unmount(1) == (errno.EBUSY, 0)
    assert pair.punch(inside, 0, 3 * BLOCK) == (0, 3 * BLOCK)
    assert pair.observe()["mounts"] == [(0, 2)]
    assert pair.observe()["pools"][9][:3] == (6, 3, 2)
    pair.check()
    pair.destroy(inside)
    assert pair.unmount(1) == (0, 0)
    assert pair.observe()["pools"][9][2] == 0
    assert pair.mount(9, -1, 4) == (errno.ENOMEM, 0)


def absent(model: World, file: int) -> list[int]:
    """Pages of a file of 15 blocks that are not there."""
    there = {index for index, page in model.observe()["files"][file].items() if page[1] >= 0}
    return sorted(set(range(15 * BLOCK)) - there)


def test_each_node_has_reclaim_of_its_own(pair: World) -> None:
    """`shrink_zones`: 32 pages of each node that the memory may come from, the oldest there, whatever lies on others."""
    cache, bound, free = new(pair, 15 * BLOCK, CACHE), new(pair, BLOCK, MOVABLE_4K), new(pair, BLOCK, MOVABLE_4K)
    pair.bind(cache, NODES_SPREAD, 0, 0)
    assert pair.allocate(cache, 0, 15 * BLOCK) == (0, 15 * BLOCK)
    pair.bind(bound, NODES_BIND, 2, 0)
    assert pair.allocate(bound, 0, 32) == (0, 32)
    assert absent(pair, cache) == list(range(512, 544))
    assert count(pair, "pgscan_direct") == 32
    assert pair.allocate(free, 0, 64) == (0, 64)
    assert absent(pair, cache) == [*range(32), *range(512, 576)]
    pair.check()


def test_kswapd_of_a_node_leaves_the_others_alone(pair: World) -> None:
    """Each is woken, of the nodes that are allowed; low is 100, high 300. 101 pages are free on node 1, and none on node 0."""
    cache, bound = new(pair, 15 * BLOCK, CACHE), new(pair, BLOCK, MOVABLE_4K)
    pair.bind(cache, NODES_SPREAD, 0, 0)
    pair.allocate(cache, 0, 15 * BLOCK)
    pair.punch(cache, 3 * 512, 101)
    pair.set_watermarks(100, 300, False)
    pair.bind(bound, NODES_BIND, 2, 0)
    pair.allocate(bound, 0, 1)
    assert count(pair, "pgsteal_kswapd") == 0
    pair.allocate(bound, 1, 1)
    assert absent(pair, cache) == [*range(512, 512 + 7 * 32), *range(3 * 512, 3 * 512 + 101)]
    pair.check()
