"""Known answers, worked out by hand: CMA, isolated and HIGHATOMIC blocks, and boosted watermarks (mm/page_alloc.c, 6.18)."""

import errno
from dataclasses import replace

import numba
import pytest

from core_world import CoreWorld
from gmemlab.core.isolation import isolate_block, release_block
from gmemlab.core.layout import (
    CMA,
    EFFORT_ATOMIC,
    EFFORT_LIGHT,
    EFFORT_ONCE,
    EFFORT_RETRY,
    HIGHATOMIC,
    ISOLATE,
    KIND_CACHE,
    KIND_HOST,
    MOVABLE,
    RECLAIMABLE,
    UNMOVABLE,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from world import FREE_OF_8, SHMEM_THP, SMALL, WORLDS, MakeWorld, Policy, World, count, frames, free_pages, new
from world import world_fixture as world_fixture

MOVABLE_4K = replace(SHMEM_THP, sizes=(0,), fallocate_sizes=())
ATOMIC_32K = Policy(KIND_HOST, (3,), effort=EFFORT_ATOMIC)
ATOMIC_4K = Policy(KIND_HOST, (0,), effort=EFFORT_ATOMIC)
WIDE = 112  # blocks, of which a hundredth is more than one, so that two may be HIGHATOMIC
TAKEN = 110  # of them, by the page structs and by others


def typed(name: str, types: dict[int, int], blocks: int = 8, reserve: int = 0, taken: int = 1) -> World:
    """One Normal zone with blocks of these types; the first `taken` blocks are in use."""
    return WORLDS[name]([(1, blocks + 1, ZONE_NORMAL, reserve)], set(range(1, taken + 1)), blocks, types)


def blocks_of(model: World, file: int) -> list[int]:
    """The blocks in which a file has pages, by its pages."""
    return list(dict.fromkeys(frame // 512 for frame in frames(model, file)))


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_cma_is_for_movable_memory_and_comes_first_while_more_than_half_is_there(name: str) -> None:
    """`__rmqueue`: of seven free blocks four are CMA. Free CMA is 2048 of 3584: as long as it is above half, it is taken."""
    model = typed(name, dict.fromkeys((5, 6, 7, 8), CMA))
    file = new(model, FREE_OF_8, MOVABLE_4K)
    model.allocate(file, 0, 514)
    assert blocks_of(model, file) == [5, 4, 8]  # chunks of order 9 before those of order 10
    # 2048 - n > (3584 - n) // 2 holds for n up to 511: the 513th page is the first from elsewhere
    assert [frame >= 5 * 512 for frame in frames(model, file)] == [True] * 512 + [False] * 1 + [True]
    assert model.allocate(new(model, 5 * 512, SHMEM_THP), 0, 5 * 512) == (0, 5 * 512)
    assert free_pages(model) == FREE_OF_8 - 514 - 5 * 512
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_unmovable_memory_never_gets_cma(name: str) -> None:
    """K15: three of seven blocks are left, and they do not count for its watermark."""
    model = typed(name, dict.fromkeys((3, 4, 5), CMA), reserve=10)
    file = new(model, FREE_OF_8, SMALL)
    assert model.allocate(file, 0, FREE_OF_8) == (errno.ENOMEM, 4 * 512 - 10)
    assert blocks_of(model, file) == [6, 7, 2, 8]  # the largest is claimed first
    assert model.observe()["blocktypes"][3:6] == [CMA] * 3
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_compaction_for_unmovable_memory_empties_cma_blocks_too(name: str) -> None:
    """`suitable_migration_source`: all but the first, asynchronous try, though what is won is not for it."""
    model = typed(name, dict.fromkeys(range(2, 9), CMA))
    file = new(model, FREE_OF_8, MOVABLE_4K)
    model.allocate(file, 0, FREE_OF_8)
    for page in range(0, FREE_OF_8, 2):
        model.punch(file, page, 1)
    guest = new(model, 512, Policy(sizes=(9,), effort=EFFORT_ONCE))
    assert model.allocate(guest, 0, 512) == (errno.ENOMEM, 0)
    assert count(model, "moved") >= 256
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_cpu_keeps_cma_on_its_list_of_movable_memory(name: str) -> None:
    """`__free_frozen_pages`."""
    model = typed(name, dict.fromkeys((5, 6, 7, 8), CMA))
    file = new(model, 16, MOVABLE_4K)
    model.allocate(file, 0, 16)
    model.set_cpus(1, 15, 60, 60)
    model.punch(file, 0, 4)
    assert model.observe()["kept"] == {(0, 0, MOVABLE): [5 * 512 + offset for offset in (3, 2, 1, 0)]}


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_cma_and_ordinary_blocks_do_not_merge(name: str) -> None:
    """`__free_one_page`: blocks 4 and 5 are buddies; two ordinary types merge, these do not."""
    model = typed(name, {5: CMA})
    file = new(model, FREE_OF_8, MOVABLE_4K)
    model.allocate(file, 0, FREE_OF_8)
    model.destroy(file)
    free = model.observe()["free"]
    assert free[0, CMA, 9] == [5 * 512]
    assert sorted(free[0, MOVABLE, 9]) == [4 * 512, 8 * 512]
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_nobody_gets_what_is_isolated(name: str) -> None:
    model = typed(name, {4: ISOLATE, 5: ISOLATE})
    file = new(model, FREE_OF_8, MOVABLE_4K)
    assert model.allocate(file, 0, FREE_OF_8) == (errno.ENOMEM, 5 * 512)
    assert model.observe()["free"] == {(0, ISOLATE, 10): [4 * 512]}
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_block_is_kept_for_those_who_cannot_wait(name: str) -> None:
    """Below the low watermark an atomic allocation of order 3 has its block kept: of two at most, and not for others."""
    model = typed(name, {}, WIDE, 400, TAKEN)
    model.set_min(400)
    model.set_watermarks(2 * 512, 2 * 512, False)
    atomic = new(model, 512, ATOMIC_32K)
    assert model.allocate(atomic, 0, 8) == (0, 8)
    (block,) = blocks_of(model, atomic)
    assert model.observe()["blocktypes"][block] == HIGHATOMIC
    assert sum(len(pfns) << order for (_, mt, order), pfns in model.observe()["free"].items() if mt == HIGHATOMIC) == 504
    other = new(model, 2 * 512, SMALL)
    assert model.allocate(other, 0, 512 - 400) == (0, 512 - 400)
    assert block not in blocks_of(model, other)
    # three eighths of 400 must stay, and for this class what is kept counts: 904 free pages allow 754, in the block first
    assert model.allocate(atomic, 8, 504) == (0, 504)
    assert blocks_of(model, atomic) == [block]
    small = new(model, 512, ATOMIC_4K)
    assert model.allocate(small, 0, 512) == (errno.ENOMEM, 250)
    assert model.allocate(other, 512 - 400, 1) == (errno.ENOMEM, 0)  # of what is kept nothing is left to give up
    model.check()


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_kept_block_goes_for_a_huge_page(name: str, cache: bool) -> None:
    """Free as a whole, it is the only one that is; with files of page cache, of which nothing is there, or without."""
    model = typed(name, {}, WIDE, 16, TAKEN)
    if cache:
        new(model, 8, Policy(KIND_CACHE, (0,), movable=True))
    model.set_min(16)
    model.set_watermarks(2 * 512, 2 * 512, False)
    atomic = new(model, 8, ATOMIC_32K)
    model.allocate(atomic, 0, 8)
    model.punch(atomic, 0, 8)
    model.allocate(new(model, 512, SMALL), 0, 100)
    assert model.observe()["blocktypes"].count(HIGHATOMIC) == 1
    guest = new(model, 512, Policy(sizes=(9,), effort=EFFORT_RETRY))
    assert model.allocate(guest, 0, 512) == (0, 512)
    assert HIGHATOMIC not in model.observe()["blocktypes"]
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_who_cannot_wait_takes_of_the_cpus_list_first(name: str) -> None:
    """`rmqueue`, `get_page_from_freelist`: the block of what the list had is kept all the same, and an empty list is filled.

    Two chunks of order 3 are the least that a refill takes, and the second lies in the same block.
    """
    model = typed(name, {}, WIDE, 16, TAKEN)
    model.set_min(16)
    model.set_cpus(1, 15, 60, 60)
    atomic = new(model, 1024, ATOMIC_32K)
    model.allocate(atomic, 0, 8)
    listed = model.observe()["kept"]
    assert {key: len(pfns) for key, pfns in listed.items()} == {(0, 0, 9): 1}
    assert HIGHATOMIC not in model.observe()["blocktypes"]
    model.set_watermarks(2 * 512, 2 * 512, False)
    model.allocate(atomic, 8, 8)
    assert frames(model, atomic)[8] == listed[0, 0, 9][0]
    assert model.observe()["blocktypes"].count(HIGHATOMIC) == 1
    (first,) = blocks_of(model, atomic)
    # now the list is filled from the other block, though 496 pages of the first are kept for this class
    model.allocate(atomic, 16, 8)
    assert blocks_of(model, atomic) == [first, frames(model, atomic)[16] // 512]
    assert model.observe()["blocktypes"].count(HIGHATOMIC) == 2
    assert {key: len(pfns) for key, pfns in model.observe()["kept"].items()} == {(0, 0, 9): 1}
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_who_cannot_wait_has_nothing_of_zone_movable(name: str) -> None:
    """With or without lists of CPUs; all that zone Normal has is for it in the end, but three eighths of the watermark."""
    zones = [(WIDE + 1, WIDE + 2, ZONE_MOVABLE, 0), (1, WIDE + 1, ZONE_NORMAL, 16)]
    model = WORLDS[name](zones, set(range(1, TAKEN + 1)), WIDE + 1, {})
    model.set_min(16)
    model.set_cpus(1, 15, 60, 60)
    model.set_watermarks(2 * 512, 2 * 512, False)
    atomic = new(model, 1024, ATOMIC_32K)
    assert model.allocate(new(model, 8, ATOMIC_4K), 0, 1) == (0, 1)
    assert model.allocate(atomic, 0, 1024)[0] == errno.ENOMEM
    assert max(blocks_of(model, atomic)) <= WIDE
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_small_zones_keep_no_block(name: str) -> None:
    """`reserve_highatomic_pageblock`: where a hundredth is less than a block."""
    model = typed(name, {}, 4, 16)
    model.set_min(16)
    model.set_watermarks(4 * 512, 4 * 512, False)
    assert model.allocate(new(model, 8, ATOMIC_32K), 0, 8) == (0, 8)
    assert HIGHATOMIC not in model.observe()["blocktypes"]


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_kept_blocks_go_before_an_allocation_fails(name: str) -> None:
    """`should_reclaim_retry`: with nothing to reclaim, the block's other 504 pages are everybody's."""
    model = typed(name, {}, WIDE, 400, TAKEN)
    model.set_min(400)
    model.set_watermarks(2 * 512, 2 * 512, False)
    model.allocate(new(model, 8, ATOMIC_32K), 0, 8)
    assert HIGHATOMIC in model.observe()["blocktypes"]
    other = new(model, 2 * 512, SMALL)
    assert model.allocate(other, 0, 2 * 512) == (errno.ENOMEM, 2 * 512 - 8 - 400)
    assert HIGHATOMIC not in model.observe()["blocktypes"]
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_base_page_that_cannot_wait_takes_of_the_kept_block_last(name: str) -> None:
    """`rmqueue_buddy`: where there is nothing else. 16 pages were kept, two of three eighths must stay."""
    model = typed(name, {}, WIDE, 16, TAKEN)
    model.set_min(16)
    model.set_watermarks(2 * 512, 2 * 512, False)
    atomic = new(model, 8, ATOMIC_32K)
    model.allocate(atomic, 0, 8)
    (block,) = blocks_of(model, atomic)
    small = new(model, 2 * 512, ATOMIC_4K)
    assert model.allocate(small, 0, 2 * 512) == (errno.ENOMEM, 2 * 512 - 8 - 6)
    assert blocks_of(model, small)[-1] == block
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_watermarks_rise_when_another_type_helps_out(name: str) -> None:
    """`boost_watermark`: by a block where less than a whole one was claimed, to 1.5 of the high watermark or a block.

    That stays until kswapd is told, which this class of allocation (GFP_TRANSHUGE_LIGHT) does not do.
    """
    model = typed(name, {}, 5)
    movable = new(model, 4 * 512, MOVABLE_4K)
    model.allocate(movable, 0, 4 * 512)
    for first in range(0, 4 * 512, 8):
        model.punch(movable, first, 7)
    model.set_watermarks(20, 40, False)
    file = new(model, 8, replace(SMALL, sizes=(1, 0)))
    assert model.allocate(file, 0, 1) == (0, 1)
    assert model.observe()["boosts"] == [512]
    model.allocate(new(model, 8, SMALL), 0, 1)
    assert model.observe()["boosts"] == [0]
    assert model.observe()["blocktypes"].count(UNMOVABLE) == 2  # with number 0
    assert RECLAIMABLE not in model.observe()["blocktypes"]


def test_without_watermarks_there_is_no_boost(world: MakeWorld) -> None:
    model = world(5)
    movable = new(model, 4 * 512, MOVABLE_4K)
    model.allocate(movable, 0, 4 * 512)
    for first in range(0, 4 * 512, 8):
        model.punch(movable, first, 7)
    assert model.allocate(new(model, 8, SMALL), 0, 1) == (0, 1)
    assert model.observe()["boosts"] == [0]


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_kcompactd_makes_chunks_for_unmovable_memory(name: str) -> None:
    """`kcompactd_do_work` has GFP_KERNEL: that a CMA block is free is not enough. Of five others every other 16K are free."""
    model = typed(name, {8: CMA}, 8)
    file = new(model, 5 * 512, MOVABLE_4K)
    model.allocate(file, 0, 5 * 512)
    model.allocate(new(model, 512, SMALL), 0, 512)
    for page in range(0, 5 * 512, 8):
        model.punch(file, page, 4)
    guest = new(model, 512, Policy(sizes=(9,), effort=EFFORT_LIGHT))
    assert model.allocate(guest, 0, 512) == (errno.ENOMEM, 0)
    assert model.kcompactd(1, 0) == (0, 256)  # those of the first block
    assert model.allocate(guest, 0, 512) == (0, 512)
    model.check()


@pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="only without the compiler can inner functions be called alone")
@pytest.mark.parametrize("gone", [(4,), (5,), (4, 5), (8,)])
def test_blocks_that_were_isolated_are_free_as_before(gone: tuple[int, ...]) -> None:
    """`unset_migratetype_isolate`: halves of a chunk of order 10 become one again; block 8 has no neighbour."""
    model = CoreWorld([(1, 9, ZONE_NORMAL, 0)], {1}, 8)
    before = model.observe()["free"]
    for block in gone:
        isolate_block(model.state, block)
    model.check()
    assert free_pages(model) == FREE_OF_8
    assert model.observe()["blocktypes"].count(ISOLATE) == len(gone)
    for block in gone:
        release_block(model.state, block)
    model.check()
    after = model.observe()["free"]
    assert {key: sorted(pfns) for key, pfns in after.items()} == {key: sorted(pfns) for key, pfns in before.items()}
