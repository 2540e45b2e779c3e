"""Known answers, worked out by hand: the CPUs' own lists, and the low watermarks (mm/page_alloc.c, 6.18)."""

import errno

import pytest

from gmemlab.core.layout import MOVABLE, NR_PCPTYPES, UNMOVABLE, ZONE_DMA32, ZONE_NORMAL
from world import FREE_OF_8, SHMEM_THP, SMALL, WORLDS, MakeWorld, World, frames, free_pages, new
from world import world_fixture as world_fixture

TWO_ZONES = ([(5, 9, ZONE_NORMAL, 0), (1, 5, ZONE_DMA32, 0)], {1}, 8)


def kept(model: World, cpu: int = 0, index: int = UNMOVABLE) -> list[int]:
    """First frames of one list of a CPU."""
    return model.observe()["kept"].get((0, cpu, index), [])


def test_a_cpu_takes_batches_that_double(world: MakeWorld) -> None:
    """`nr_pcp_alloc`: 15 pages, then 30; each leaves what was not asked for on the list, ascending."""
    model = world(8)
    model.set_cpus(1, 15, 60, 400)
    file = new(model, 512, SMALL)
    model.allocate(file, 0, 1)
    assert free_pages(model) == FREE_OF_8 - 15
    first = frames(model, file)[0]
    assert kept(model) == list(range(first + 1, first + 15))
    model.allocate(file, 1, 15)
    assert free_pages(model) == FREE_OF_8 - 15 - 30
    assert kept(model) == list(range(first + 16, first + 45))


def test_what_was_freed_last_comes_back_first_and_merges_with_nothing(world: MakeWorld) -> None:
    """L21: a whole block goes and comes back in reverse order, page by page."""
    model = world(8)
    model.set_cpus(1, 63, 2000, 2000)
    file = new(model, 512, SMALL)
    model.allocate(file, 0, 512)
    before = frames(model, file)
    for page in range(512):
        model.punch(file, page, 1)
    assert kept(model)[:3] == [before[511], before[510], before[509]]
    for page in range(512):
        model.allocate(file, page, 1)
    assert frames(model, file) == before[::-1]


def test_a_full_list_gives_its_oldest_back(world: MakeWorld) -> None:
    """`nr_pcp_free`: at 60 pages a CPU gives back as many as it freed in a row, but keeps a batch."""
    model = world(8)
    model.set_cpus(1, 15, 60, 60)
    file = new(model, 90, SMALL)
    model.allocate(file, 0, 90)  # batches of 15, 30 and 45, as 60 - 15 are the most
    before = frames(model, file)
    assert kept(model) == []
    for page in range(59):
        model.punch(file, page, 1)
    assert kept(model) == before[58::-1]
    model.punch(file, 59, 1)
    assert kept(model) == before[59:44:-1]  # of the 60 that it freed in a row, 45 went
    assert free_pages(model) == FREE_OF_8 - 90 + 45


def test_huge_pages_have_lists_of_two(world: MakeWorld) -> None:
    """A refill of order 9 takes two; a pool's pages come through the list of movable memory."""
    model = world(8)
    model.set_cpus(1, 63, 4000, 4000)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    assert (free_pages(model), len(kept(model, 0, 13))) == (FREE_OF_8 - 1024, 1)
    assert model.grow_pool(9, 1, False) == (0, 1)
    assert (free_pages(model), kept(model, 0, 13)) == (FREE_OF_8 - 1024, [])
    model.destroy(file)
    assert kept(model, 0, 13) != []
    model.drain()
    assert free_pages(model, 9) == FREE_OF_8 - 512


def test_each_cpu_keeps_its_own_and_cannot_have_the_others(world: MakeWorld) -> None:
    """Where no page is on the free lists the watermark is not met, and a CPU may not even have its own."""
    model = world(8)
    model.set_cpus(2, 15, 4000, 4000)
    file = new(model, FREE_OF_8, SMALL)
    assert model.allocate(file, 0, 512) == (0, 512)
    model.punch(file, 0, 512)
    held = len(kept(model))
    assert held > 512
    model.run_on(1)
    error, done = model.allocate(file, 0, FREE_OF_8)
    assert (error, free_pages(model), len(kept(model))) == (errno.ENOMEM, 0, held)
    assert done == FREE_OF_8 - held - len(kept(model, 1))
    model.drain()
    model.allocate(file, done, FREE_OF_8 - done)
    assert free_pages(model) == 0


def test_a_huge_page_of_another_cpu_is_given_back_where_compaction_has_enough(world: MakeWorld) -> None:
    """`compaction_ready` is progress without page cache, too: `__alloc_pages_direct_reclaim` drains all lists."""
    model = world(8)
    stones, huge = new(model, FREE_OF_8 - 1024, SMALL), new(model, 512, SHMEM_THP)
    model.allocate(stones, 0, FREE_OF_8 - 1024)
    for page in range(0, FREE_OF_8 - 1024, 2):
        model.punch(stones, page, 1)
    model.set_cpus(2, 63, 4000, 4000)
    model.allocate(huge, 0, 512)
    model.destroy(huge)
    assert (free_pages(model, 9), len(kept(model, 0, 13))) == (0, 2)
    model.run_on(1)
    assert model.grow_pool(9, 2, False) == (0, 2)


def test_limits_that_grew_decay_each_second(world: MakeWorld) -> None:
    """`decay_pcp_high`: by an eighth, to the lower limit."""
    model = world(8)
    model.set_cpus(1, 15, 60, 1000)
    file = new(model, 1024, SMALL)
    model.allocate(file, 0, 1024)
    for page in range(1024):
        model.punch(file, page, 1)
    lengths = [len(kept(model))]
    for _ in range(40):
        model.decay()
        lengths.append(len(kept(model)))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 60
    assert lengths[-1] == 60


def test_huge_pages_on_a_list_go_one_for_each_batch(world: MakeWorld) -> None:
    """`decay_pcp_high` since 6.18.7: 200 pages too many are batches of 63, 63, 63 and 11, and each takes a whole chunk.

    Of nine frees the first gives one back at the limit of 252 pages, which becomes 512 + 63; the third, at 1024 pages, one
    more, the sixth, at 2048, three; the limit is 2048 + 63 then, as no more than 2016 pages are counted up. It falls to 1848.
    """
    model = world(12)
    file = new(model, 9 * 512, SHMEM_THP)
    model.allocate(file, 0, 9 * 512)
    model.set_cpus(1, 63, 252, 4000)
    lengths = []
    for block in range(9):
        model.punch(file, block * 512, 512)
        lengths.append(len(kept(model, 0, 13)))
    assert lengths == [0, 1, 1, 2, 3, 1, 2, 3, 4]
    model.decay()
    assert kept(model, 0, 13) == []


@pytest.mark.parametrize("in_batches", [False, True])
def test_a_huge_page_on_a_full_list_counts_as_one_batch_since_6_19(world: MakeWorld, in_batches: bool) -> None:
    """`free_frozen_page_commit`: 189 pages are to go. The huge page is more; if it is one of three batches, 126 go, too."""
    model = world(8)
    small, huge = new(model, 600, SMALL), new(model, 512, SHMEM_THP)
    model.allocate(small, 0, 600)
    model.allocate(huge, 0, 512)
    model.set_cpus(1, 63, 252, 252, in_batches)
    for page in range(0, 500, 2):
        model.punch(small, page, 1)
    assert len(kept(model)) == 250
    model.punch(huge, 0, 512)
    assert kept(model, 0, 13) == []
    assert len(kept(model)) == (250 - 2 * 63 if in_batches else 250)


def test_pieces_of_what_is_punched_are_freed_as_they_are(world: MakeWorld) -> None:
    """`truncate_inode_partial_folio`: split around page 1, then around page 7; the pieces between leave as folios (L13)."""
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    model.set_cpus(1, 63, 2000, 2000)
    first = frames(model, file)[0]
    model.punch(file, 1, 6)
    pairs, single = NR_PCPTYPES + MOVABLE, MOVABLE
    assert kept(model, 0, single) == [first + 6, first + 1]
    assert kept(model, 0, pairs) == [first + 4, first + 2]
    model.check()


def test_folios_that_are_punched_as_a_whole_go_first(world: MakeWorld) -> None:
    """`shmem_undo_range`, `truncate_inode_pages_range`: 16, 32, 33 and 34 to 35; then 15, of 0 to 15, and 36, of 36 to 39."""
    model = world(8)
    file = new(model, 64, SHMEM_THP)
    model.allocate(file, 0, 64)
    first = frames(model, file)[0]
    model.punch(file, 17, 15)  # leaves 0 to 15 together, and 16, 32 and 33 alone
    model.set_cpus(1, 63, 2000, 2000)
    model.punch(file, 15, 22)
    assert kept(model, 0, MOVABLE) == [first + page for page in (36, 15, 33, 32, 16)]
    assert kept(model, 0, NR_PCPTYPES + MOVABLE) == [first + 34]
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_another_zone_comes_before_the_min_watermark(name: str) -> None:
    """`__alloc_pages_slowpath`: the preferred zone is taken down to its low watermark, then the other, then both to min."""
    model = WORLDS[name](*TWO_ZONES)
    model.set_watermarks(100, 200, False)
    file = new(model, FREE_OF_8, SMALL)
    model.allocate(file, 0, 2048)
    assert [frame >= 2560 for frame in frames(model, file)] == [True] * 1948 + [False] * 100
    model.allocate(file, 2048, FREE_OF_8 - 2048)
    assert [frame >= 2560 for frame in frames(model, file)][-200:] == [True] * 100 + [False] * 100
    model.check()


@pytest.mark.parametrize("careful", [True, False])
@pytest.mark.parametrize("name", sorted(WORLDS))
def test_zone_dma32_comes_before_a_mixed_block(name: str, careful: bool) -> None:
    """ALLOC_NOFRAGMENT: where Normal has pieces of movable blocks only, unmovable memory comes from DMA32, in whole blocks."""
    model = WORLDS[name](*TWO_ZONES)
    model.set_watermarks(0, 0, careful)
    movable = new(model, 2048, SHMEM_THP)
    model.allocate(movable, 0, 2048)  # all of zone Normal
    model.punch(movable, 0, 256)  # half of a block, so that it can be claimed
    file = new(model, 1, SMALL)
    model.allocate(file, 0, 1)
    (frame,) = frames(model, file)
    assert (frame < 2560) is careful
    assert model.observe()["blocktypes"][frame // 512] == UNMOVABLE
    model.check()
