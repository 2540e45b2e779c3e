"""Known answers, worked out by hand: what kswapd and allocations drop of the page cache (mm/vmscan.c, 6.18)."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import EFFORT_NONE, EFFORT_ONCE, KIND_CACHE, SHARED, UNMOVABLE, ZONE_MOVABLE, ZONE_NORMAL
from world import SHMEM_THP, SMALL, THP, WORLDS, MakeWorld, Policy, World, count, frames, free_pages, layout, new
from world import world_fixture as world_fixture

CACHE = Policy(KIND_CACHE, (0,), movable=True)
SHMEM_4K = replace(SHMEM_THP, sizes=(0,), fallocate_sizes=())
FREE = 2 * 512  # pages of three blocks, of which the page structs have one


def cached(model: World, file: int) -> list[int]:
    """Which pages of a file are there."""
    return [index for index, page in sorted(model.observe()["files"][file].items()) if page[1] >= 0]


def full(model: World, pages: int = FREE) -> int:
    """Page cache that has all free memory."""
    cache = new(model, pages, CACHE)
    assert model.allocate(cache, 0, pages) == (0, pages)
    return cache


def holed(model: World, policy: Policy) -> None:
    """Five blocks of a file's pages, of which every other 16K are free."""
    file = new(model, 5 * 512, policy)
    model.allocate(file, 0, 5 * 512)
    for page in range(0, 5 * 512, 8):
        model.punch(file, page, 4)


def test_an_allocation_drops_32_pages_the_oldest_first(world: MakeWorld) -> None:
    """SWAP_CLUSTER_MAX. Without watermarks kswapd has nothing to do as long as a page is free."""
    model = world(3)
    cache = full(model)
    file = new(model, 512, SMALL)
    assert model.allocate(file, 0, 1) == (0, 1)
    assert cached(model, cache) == list(range(32, FREE))
    assert (count(model, "pgscan_direct"), count(model, "pgsteal_direct")) == (32, 32)
    assert count(model, "pgsteal_kswapd") == 0
    assert model.allocate(file, 1, 31) == (0, 31)
    assert free_pages(model) == 0
    assert cached(model, cache) == list(range(32, FREE))


def test_the_hand_goes_round_and_leaves_what_is_held(world: MakeWorld) -> None:
    model = world(3)
    first, second = new(model, 40, CACHE), new(model, FREE - 40, CACHE)
    for file, pages in ((first, 40), (second, FREE - 40)):
        model.allocate(file, 0, pages)
    model.reference(first, 3, 2)
    guest = new(model, 512, SMALL)
    model.allocate(guest, 0, 32)
    assert cached(model, first) == [3, 4, *range(34, 40)]
    assert (count(model, "pgscan_direct"), count(model, "pgsteal_direct")) == (34, 32)
    model.unreference(first, 3, 2)
    model.allocate(guest, 32, 1)
    assert cached(model, first) == [3, 4]
    assert cached(model, second)[0] == 26


def test_all_of_it_goes_before_an_allocation_fails(world: MakeWorld) -> None:
    """Guests' memory is never reclaimed (G54)."""
    model = world(3)
    cache = full(model)
    guest = new(model, FREE + 1, SMALL)
    assert model.allocate(guest, 0, FREE + 1) == (errno.ENOMEM, FREE)
    assert cached(model, cache) == []
    model.destroy(guest)
    assert model.allocate(cache, 7, 1) == (0, 1)  # and what is read then can be dropped again
    guest = new(model, FREE, SMALL)
    assert model.allocate(guest, 0, FREE) == (0, FREE)


def test_kswapd_reclaims_up_to_the_high_watermark(world: MakeWorld) -> None:
    """Below low (100) it is woken; up to high (300) it drops clusters of 32: 99 - 1 free pages after that allocation."""
    model = world(3)
    cache = new(model, FREE - 101, CACHE)
    model.allocate(cache, 0, FREE - 101)
    model.set_watermarks(100, 300, False)
    file = new(model, 512, replace(SHMEM_THP, sizes=(0,), fallocate_sizes=()))
    assert model.allocate(file, 0, 1) == (0, 1)
    assert (free_pages(model), count(model, "pgsteal_kswapd")) == (100, 0)
    assert model.allocate(file, 1, 1) == (0, 1)
    assert (free_pages(model), count(model, "pgsteal_kswapd")) == (99 + 7 * 32, 7 * 32)
    assert count(model, "pgsteal_direct") == 0


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_unmovable_memory_gets_nothing_from_zone_movable(name: str) -> None:
    model = WORLDS[name]([(3, 5, ZONE_MOVABLE, 0), (1, 3, ZONE_NORMAL, 0)], {1}, 4)
    cache = new(model, 3 * 512, CACHE)
    model.allocate(cache, 0, 3 * 512)
    file = new(model, 2 * 512, SMALL)
    assert model.allocate(file, 0, 2 * 512) == (errno.ENOMEM, 512)
    assert cached(model, cache) == list(range(2 * 512))  # of zone Movable, read first
    model.check()


@pytest.mark.parametrize(("effort", "huge"), [(EFFORT_NONE, 0), (EFFORT_ONCE, 512)])
def test_a_huge_page_reclaims_what_compaction_needs(world: MakeWorld, effort: int, huge: int) -> None:
    """GFP_TRANSHUGE_LIGHT has nothing reclaimed; with direct reclaim 1024 pages (`compact_gap`) and compaction give a block.

    The cache has every page; what is dropped is its oldest, side by side, so that a block is free without compaction.
    """
    model = world(4)
    full(model, 3 * 512)
    guest = new(model, 512, replace(SHMEM_THP, effort=effort))
    assert model.access(guest, 0, 512, SHARED) == (0, 512)
    orders = {page[1] for page in model.observe()["files"][guest].values()}
    assert orders == ({9} if huge else {0})
    assert count(model, "pgsteal_direct") == 512


def test_a_failed_huge_page_of_guest_memfd_costs_the_cache_4m_more(world: MakeWorld) -> None:
    """GFP_HIGHUSER wakes kswapd for order 9, which drops 1024 pages, as none of them made a chunk of that order."""
    model = world(4)
    cache = new(model, 3 * 512, CACHE)
    stone = new(model, 7, SMALL)
    model.allocate(stone, 0, 1)
    model.allocate(cache, 0, 3 * 512 - 1)
    guest = new(model, 512, replace(THP, effort=EFFORT_ONCE))
    model.allocate(guest, 0, 512)
    assert count(model, "pgsteal_kswapd") + count(model, "pgsteal_direct") > 512
    assert count(model, "pgsteal_kswapd") % 32 == 0


def test_nothing_is_reclaimed_where_compaction_has_enough(world: MakeWorld) -> None:
    """`compaction_ready`: half of all pages are free, and every block has an unmovable one, so that none can be made."""
    model = world(6)
    cache, stones = full(model, 5 * 512), new(model, 5, SMALL)
    for block in range(5):
        model.punch(cache, 512 * block + 1, 1)
        model.allocate(stones, block, 1)
    for page in range(0, 5 * 512, 8):
        model.punch(cache, page, 4)
    guest = new(model, 512, replace(SHMEM_THP, effort=EFFORT_ONCE))
    model.access(guest, 0, 512, SHARED)
    assert {page[1] for page in model.observe()["files"][guest].values()} == {0}
    assert count(model, "pgscan_direct") == 0
    assert count(model, "compactions") >= 1


def test_kswapd_takes_a_boost_back(world: MakeWorld) -> None:
    """`balance_pgdat`: a block was boosted; it drops as much, and the watermarks are what they were."""
    model = world(4)
    cache = full(model, 3 * 512)
    for first in range(0, 3 * 512, 8):
        model.punch(cache, first, 4)
    model.set_watermarks(20, 40, False)
    file = new(model, 8, SMALL)
    assert model.allocate(file, 0, 1) == (0, 1)
    assert model.observe()["boosts"] == [0]
    assert count(model, "pgsteal_kswapd") == 512
    assert UNMOVABLE in model.observe()["blocktypes"][1:]


def test_kswapd_has_its_turn_between_base_pages(world: MakeWorld) -> None:
    """A boost that its own allocation told nobody of is told by the next one; what is dropped then is what the rest is given.

    Block 4 becomes unmovable with a hole of 16 pages. Of what is left of it one page goes, then its cache, every other page.
    """
    model = world(4)
    cache, other = new(model, 768, CACHE), new(model, 768, SHMEM_4K)
    for page in range(768):
        model.allocate(cache, page, 1)
        model.allocate(other, page, 1)
    for first in reversed(range(0, 768, 16)):
        model.punch(cache, first, 8)
        model.punch(other, first, 8)
    model.set_watermarks(20, 40, False)
    quiet, file = new(model, 2, replace(SMALL, sizes=(1, 0))), new(model, 4, SMALL)
    model.allocate(quiet, 0, 2)
    assert (frames(model, quiet), model.observe()["boosts"]) == ([2048, 2049], [512])
    model.allocate(file, 0, 4)
    assert (frames(model, file), model.observe()["boosts"]) == ([2050, 2558, 2556, 2554], [0])


def test_what_kswapd_frees_beside_a_new_huge_page_stays_apart_from_it(world: MakeWorld) -> None:
    """kswapd works after the allocation that woke it, and before anybody else knows of the block: block 2 frees beside it."""
    model = world(5)
    cache = full(model, 4 * 512)
    model.punch(cache, 512, 512)
    model.set_watermarks(200, 900, False)
    guest = new(model, 512, replace(THP, effort=EFFORT_ONCE))
    assert model.allocate(guest, 0, 512) == (0, 512)
    assert cached(model, cache) == list(range(3 * 512, 4 * 512))
    assert (layout(model, guest), frames(model, guest)[0]) == ([(0, 512)], 3 * 512)
    assert free_pages(model, 9) == 2 * 512


def test_a_hand_moves_on_when_its_file_goes(world: MakeWorld) -> None:
    """Of three files the middle one goes unread, then the first, in which the hand stands; then the last."""
    model = world(3)
    first, middle, last = new(model, 40, CACHE), new(model, 8, CACHE), new(model, FREE - 40, CACHE)
    for file, pages in ((first, 40), (last, FREE - 40)):
        model.allocate(file, 0, pages)
    guest = new(model, FREE, SMALL)
    model.allocate(guest, 0, 32)
    model.destroy(middle)
    model.destroy(first)
    assert free_pages(model) == 8
    model.allocate(guest, 32, 9)
    assert cached(model, last)[0] == 32
    model.destroy(last)
    assert model.allocate(guest, 41, FREE - 41) == (0, FREE - 41)


def test_compaction_comes_before_reclaim_where_there_is_enough(world: MakeWorld) -> None:
    """`__alloc_pages_slowpath` tries what is costly with INIT_COMPACT_PRIORITY first: half of all pages are free already."""
    model = world(6)
    new(model, 8, CACHE)
    holed(model, SHMEM_4K)
    guest = new(model, 512, replace(SHMEM_THP, effort=EFFORT_ONCE))
    model.access(guest, 0, 512, SHARED)
    assert layout(model, guest) == [(0, 512)]
    assert (count(model, "pgscan_direct"), count(model, "compactions")) == (0, 1)


def test_reclaim_makes_room_for_compaction(world: MakeWorld) -> None:
    """`compact_gap`: of pieces of 16K, every other one page cache, 1024 pages go, and what lies between is moved."""
    model = world(6)
    cache, file = new(model, 5 * 512, CACHE), new(model, 5 * 512, SHMEM_4K)
    for page in range(0, 5 * 256, 4):
        model.allocate(cache, page, 4)
        model.allocate(file, page, 4)
    guest = new(model, 512, replace(SHMEM_THP, effort=EFFORT_ONCE))
    model.access(guest, 0, 512, SHARED)
    assert layout(model, guest) == [(0, 512)]
    assert count(model, "pgsteal_direct") == 1024
    assert count(model, "moved") > 0
