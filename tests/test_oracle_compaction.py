"""Known answers, worked out by hand: compaction, direct and of everything, and what keeps pages where they are (K14, K21)."""

import errno
from dataclasses import replace

from gmemlab.core.layout import EFFORT_ONCE, EFFORT_RETRY, HOST, KIND_SHMEM
from world import FREE_OF_8, SHMEM_THP, SMALL, MakeWorld, Policy, World, count, frames, free_pages, layout, new
from world import world_fixture as world_fixture

MOVABLE_4K = Policy(kind=KIND_SHMEM, movable=True)


def perforated(model: World, policy: Policy, blocks: int) -> int:
    """A file of so many 2 MiB without every other page."""
    file = new(model, 512 * blocks, policy)
    assert model.allocate(file, 0, 512 * blocks) == (0, 512 * blocks)
    for page in range(1, 512 * blocks, 2):
        model.punch(file, page, 1)
    return file


def test_low_blocks_move_into_the_holes_of_high_ones(world: MakeWorld) -> None:
    """Four blocks half full become two full ones: the lower two move, the last page of each cluster of 32 first."""
    model = world(8)
    file = perforated(model, MOVABLE_4K, 4)
    before = frames(model, file)
    low = sorted({frame // 512 for frame in before})
    assert (free_pages(model), free_pages(model, 9)) == (FREE_OF_8 - 1024, FREE_OF_8 - 2048)
    assert model.compact() == (0, 512)
    after = frames(model, file)
    assert {frame // 512 for frame in after} == set(low[2:])
    assert (free_pages(model), free_pages(model, 9)) == (FREE_OF_8 - 1024, FREE_OF_8 - 1024)
    # The first cluster ends with page 62, which gets the first hole of the highest block.
    lowest = [index for index, frame in enumerate(before) if frame // 512 == low[0]][:32]
    assert [after[index] for index in reversed(lowest)][:3] == [low[3] * 512 + hole for hole in (1, 3, 5)]
    assert layout(model, file) == [(page, 1) for page in range(0, 2048, 2)]
    assert model.compact() == (0, 0)


def test_unmovable_and_pinned_pages_stay(world: MakeWorld) -> None:
    """L22: nothing is won from guest_memfd. One pinned page keeps its block, the rest of which moves."""
    model = world(8)
    file = perforated(model, SMALL, 2)
    assert model.compact() == (0, 0)
    model.destroy(file)
    file = perforated(model, MOVABLE_4K, 4)
    lowest = frames(model, file).index(min(frames(model, file)))
    page = 2 * lowest
    assert model.pin(file, page, 1) == (0, 1)
    assert model.compact() == (0, 511)
    assert free_pages(model, 9) == FREE_OF_8 - 2048 + 512  # its neighbour, whose pages had one hole more than they needed
    model.unpin(file, page, 1)
    assert model.compact() == (0, 1)
    assert free_pages(model, 9) == FREE_OF_8 - 2048 + 1024


def test_folios_move_as_a_whole_and_huge_pages_do_not(world: MakeWorld) -> None:
    model = world(8)
    huge = new(model, 512, SHMEM_THP)
    model.allocate(huge, 0, 512)
    file = new(model, 2048, replace(SHMEM_THP, sizes=(3,), fallocate_sizes=(3,)))
    model.allocate(file, 0, 2048)
    for page in range(8, 2048, 16):
        model.punch(file, page, 8)
    place = frames(model, huge)
    assert model.compact() == (0, 512)
    assert frames(model, huge) == place
    assert layout(model, file) == [(page, 8) for page in range(0, 2048, 16)]
    assert free_pages(model, 9) == FREE_OF_8 - 512 - 1024


def test_huge_page_is_compacted_for(world: MakeWorld) -> None:
    """K14: with an effort of `none` the free lists must have it; compaction stops at the first that is free."""
    model = world(8)
    perforated(model, MOVABLE_4K, 7)
    huge_only = replace(SHMEM_THP, sizes=(9,), fallocate_sizes=(9,))
    assert model.allocate(new(model, 512, huge_only), 0, 512) == (errno.ENOMEM, 0)
    eager = new(model, 512, replace(huge_only, effort=EFFORT_ONCE))
    assert model.allocate(eager, 0, 512) == (0, 512)
    assert count(model, "moved") == 256
    assert layout(model, eager) == [(0, 512)]


def test_failures_are_remembered(world: MakeWorld) -> None:
    """After a failure every other attempt is passed over, then three of four; a success forgets it."""
    model = world(8)
    pinned = perforated(model, MOVABLE_4K, 7)
    for page in range(0, 512 * 7, 256):
        assert model.pin(pinned, page, 1) == (0, 1)
    huge_only = replace(SHMEM_THP, sizes=(9,), fallocate_sizes=(9,))
    once = new(model, 512, replace(huge_only, effort=EFFORT_ONCE))
    runs = []
    for _ in range(7):
        assert model.allocate(once, 0, 512) == (errno.ENOMEM, 0)
        runs.append(count(model, "compactions"))
    assert runs == [1, 1, 2, 2, 2, 2, 3]
    retry = new(model, 512, replace(huge_only, effort=EFFORT_RETRY))
    assert model.allocate(retry, 0, 512) == (errno.ENOMEM, 0)
    assert count(model, "compactions") == 3  # four tries, of the seven that are passed over
    for page in range(0, 512 * 7, 256):
        assert model.unpin(pinned, page, 1) == (0, 1)
    assert model.allocate(retry, 0, 512) == (0, 512)  # the last of these four looks again
    assert count(model, "compactions") == 4
    model.destroy(retry)
    model.allocate(once, 0, 512)
    assert count(model, "compactions") == 4  # it was free already


def test_folio_without_a_hole_of_its_size_is_split(world: MakeWorld) -> None:
    """`try_split_folio`: its pages move one by one, and compaction goes on behind it."""
    model = world(8)
    model.allocate(new(model, 512, SHMEM_THP), 0, 512)  # the block without a neighbour; then the lowest are handed out
    large = new(model, 512, replace(SHMEM_THP, sizes=(4,), fallocate_sizes=(4,)))
    model.allocate(large, 0, 512)
    for page in range(16, 512, 32):
        model.punch(large, page, 16)
    small = perforated(model, MOVABLE_4K, 4)
    blocks = sorted({frame // 512 for frame in frames(model, large) + frames(model, small)})
    assert frames(model, large)[0] // 512 == blocks[0]
    # The lowest block has 256 pages of the one and 128 of the other, which filled its holes first; the next has 256.
    assert model.compact() == (0, 256 + 128 + 256)
    sizes = [pages for _, pages in layout(model, large)]
    assert (sum(sizes), set(sizes)) == (256, {1, 16})
    assert free_pages(model, 9) == FREE_OF_8 - 6 * 512 + 2 * 512


def test_contents_and_guests_view_survive(world: MakeWorld) -> None:
    """A page that moved is the same page: what was written stays, and a later punch frees the frame that it has now."""
    model = world(8)
    file = perforated(model, MOVABLE_4K, 2)
    model.access(file, 0, 1, HOST)
    model.compact()
    seen = model.observe()["files"][file]
    assert [page[3] for page in (seen[0], seen[2])] == [1, 0]
    assert model.punch(file, 0, 1024) == (0, 1024)
    assert free_pages(model) == FREE_OF_8


def test_punch_after_a_collapse_of_base_pages(world: MakeWorld) -> None:
    """MADV_COLLAPSE makes huge pages of shmem that allocates base pages only."""
    model = world(8)
    file = new(model, 512, MOVABLE_4K)
    model.allocate(file, 0, 512)
    assert model.collapse(file, 0, 512) == (0, 512)
    assert model.punch(file, 5, 1) == (0, 1)
    assert free_pages(model) == FREE_OF_8 - 511
