"""Known answers, worked out by hand from the rows that each test names: allocator, fallocate, punch.

Every model in `WORLDS` takes them.
"""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    FRESH,
    HOST,
    MOVABLE,
    PRIVATE,
    PUNCH_KEEP,
    PUNCH_REFUSE,
    PUNCH_ZERO,
    SPLIT_BUDDY,
    STALE,
    UNMOVABLE,
    USED,
    ZEROED,
)
from world import (
    ANON_THP,
    FREE_OF_8,
    SHMEM_THP,
    SMALL,
    THP,
    MakeWorld,
    Policy,
    World,
    contents,
    count,
    frames,
    free_pages,
    layout,
    mapped,
    new,
    present,
)
from world import world_fixture as world_fixture


# -- the page allocator -----------------------------------------------------------------------------------------------
def test_fresh_host_frees_pairs_of_blocks(world: MakeWorld) -> None:
    assert world(8).observe()["free"] == {(0, MOVABLE, 10): [1024, 2048, 3072], (0, MOVABLE, 9): [4096]}


def test_fresh_blocks_ascend_and_turn_unmovable(world: MakeWorld) -> None:
    """L8, L21, L22: whole page blocks become unmovable, two at a time from an order-10 chunk."""
    model = world(8)
    file = new(model, 512, SMALL)
    assert model.allocate(file, 0, 512) == (0, 512)
    assert frames(model, file) == list(range(1024, 1536))
    assert model.observe()["blocktypes"][2:5] == [UNMOVABLE, UNMOVABLE, MOVABLE]


def test_freed_pages_return_in_reverse_order(world: MakeWorld) -> None:
    """L21, for frames that cannot merge."""
    model = world(8)
    file, other = new(model, 512, SMALL), new(model, 256, SMALL)
    model.allocate(file, 0, 512)
    for index in range(0, 512, 2):
        assert model.punch(file, index, 1) == (0, 1)
    model.allocate(other, 0, 256)
    assert frames(model, other) == list(range(1534, 1023, -2))


def test_freed_2m_folios_return_in_reverse_order(world: MakeWorld) -> None:
    """L21: also 2M folios."""
    model = world(8)
    file, other = new(model, 6 * 512, THP), new(model, 3 * 512, THP)
    model.allocate(file, 0, 6 * 512)
    assert frames(model, file)[::512] == [1024, 1536, 2048, 2560, 3072, 3584]
    for block in (0, 2, 4):
        model.punch(file, block * 512, 512)
    model.allocate(other, 0, 3 * 512)
    assert frames(model, other)[::512] == [3072, 2048, 1024]


def test_unmovable_and_movable_are_separate_stacks(world: MakeWorld) -> None:
    """L21: a freed movable page is not what the next unmovable request gets."""
    model = world(8)
    unmovable, movable = new(model, 2, SMALL), new(model, 1, replace(SHMEM_THP, sizes=(0,)))
    model.allocate(unmovable, 0, 1)
    model.allocate(movable, 0, 1)
    assert (frames(model, unmovable), frames(model, movable)) == ([1024], [4096])
    model.punch(movable, 0, 1)
    model.allocate(unmovable, 1, 1)
    assert frames(model, unmovable) == [1024, 1025]


def test_chunk_whose_buddy_may_merge_soon_goes_to_the_tail(world: MakeWorld) -> None:
    """K18: 1024 waits for 1025, because 1026 and 1027 are free already."""
    model = world(8)
    file = new(model, 16, SMALL)
    model.allocate(file, 0, 16)
    for index in (2, 3, 8, 0):
        model.punch(file, index, 1)
    free = model.observe()["free"]
    assert free[0, UNMOVABLE, 0] == [1032, 1024]
    assert free[0, UNMOVABLE, 1] == [1026]


def test_every_other_page_punched_leaves_no_2m_page(world: MakeWorld) -> None:
    """L22: half of the memory is free and the hugetlb pool cannot grow by one page."""
    model = world(8)
    file = new(model, FREE_OF_8, SMALL)
    assert model.allocate(file, 0, FREE_OF_8) == (0, FREE_OF_8)
    for index in range(0, FREE_OF_8, 2):
        model.punch(file, index, 1)
    assert (free_pages(model), free_pages(model, 9)) == (FREE_OF_8 // 2, 0)
    assert set(model.observe()["blocktypes"][2:]) == {UNMOVABLE}
    assert model.grow_pool(9, 1, False) == (errno.ENOMEM, 0)
    thp = new(model, 512, SHMEM_THP)
    assert model.access(thp, 0, 1, HOST) == (0, 1)
    assert layout(model, thp) == [(0, 1)]


def test_allocation_keeps_what_it_got(world: MakeWorld) -> None:
    """G20: ENOMEM, with what was allocated before."""
    model = world(8)
    file = new(model, 4096, SMALL)
    assert model.allocate(file, 0, 4096) == (errno.ENOMEM, FREE_OF_8)
    assert present(model, file) == FREE_OF_8
    assert model.destroy(file) == (0, 4096)
    assert free_pages(model, 9) == FREE_OF_8


# -- fallocate --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "pages", "allocate", "punch"),
    [
        (-1, 1, errno.EINVAL, errno.EINVAL),
        (0, 0, errno.EINVAL, errno.EINVAL),
        (1, 1 << 51, errno.EFBIG, errno.EFBIG),
        (9, 2, errno.EINVAL, 0),
        (10, 5, errno.EINVAL, 0),
    ],
)
def test_precedence_of_errors(world: MakeWorld, first: int, pages: int, allocate: int, punch: int) -> None:
    """L2, G18, G19: a file of ten pages."""
    model = world(8)
    file = new(model, 10, SMALL)
    assert model.allocate(file, first, pages)[0] == allocate
    assert model.punch(file, first, pages)[0] == punch


def test_huge_range_past_the_end_falls_back(world: MakeWorld) -> None:
    """G58: the last, short 2M of a file, and a 2M with a page present, get 4K pages."""
    model = world(8)
    file = new(model, 1024 + 100, THP)
    model.allocate(file, 0, 1124)
    assert layout(model, file) == [(0, 512), (512, 512), *((index, 1) for index in range(1024, 1124))]
    model.punch(file, 0, 511)
    model.allocate(file, 0, 511)
    assert layout(model, file)[:512] == [(index, 1) for index in range(512)]


# -- partial punches --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "pages", "left"),
    [
        (0, 1, [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256)]),
        (100, 3, [(0, 64), (64, 32), (96, 4), (103, 1), (104, 8), (112, 16), (128, 128), (256, 256)]),
        (100, 4, [(0, 64), (64, 32), (96, 4), (104, 1), (105, 1), (106, 2), (108, 4), (112, 16), (128, 128), (256, 256)]),
        (96, 64, [(0, 64), (64, 32), (160, 1), (161, 1), (162, 2), (164, 4), (168, 8), (176, 16), (192, 64), (256, 256)]),
        (0, 256, [(256, 1), (257, 1), (258, 2), (260, 4), (264, 8), (272, 16), (288, 32), (320, 64), (384, 128)]),
        (256, 256, [(0, 256)]),
        (0, 512, []),
    ],
)
def test_layout_after_a_buddy_split(world: MakeWorld, first: int, pages: int, left: list[tuple[int, int]]) -> None:
    """L13: exactly the punched pages are freed; punching exactly one folio does not split.

    A hole that ends at a border of pieces still splits the piece behind it: all of these were seen on Linux 6.18.44.
    """
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    assert model.punch(file, first, pages) == (0, pages)
    assert layout(model, file) == left
    assert free_pages(model) == FREE_OF_8 - 512 + pages
    assert count(model, "split_punch") == (1 if left else 0)


def test_only_pmd_folios_count_as_split(world: MakeWorld) -> None:
    """L13: splitting the 128 of an earlier split is no second one."""
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    model.punch(file, 100, 3)
    model.punch(file, 128, 1)
    assert layout(model, file)[6:] == [
        (129, 1),
        (130, 2),
        (132, 4),
        (136, 8),
        (144, 16),
        (160, 32),
        (192, 64),
        (256, 256),
    ]
    assert count(model, "split_punch") == 1


def punch_alternate(model: World, policy: Policy) -> tuple[int, set[int]]:
    """One used, mapped 2M; punch its even pages, one call each: (file, error numbers)."""
    file = new(model, 512, policy)
    assert model.access(file, 0, 512, PRIVATE) == (0, 512)
    assert mapped(model, file) == (512, 0)
    return file, {model.punch(file, index, 1)[0] for index in range(0, 512, 2)}


@pytest.mark.parametrize("split", [SPLIT_BUDDY, THP.split])
def test_alternate_punches_split(world: MakeWorld, split: int) -> None:
    """Half is freed, nothing of it is a 2M page again, the mapping is shattered once (T-rows; L22)."""
    model = world(8)
    file, errors = punch_alternate(model, replace(THP, split=split))
    assert errors == {0}
    assert layout(model, file) == [(index, 1) for index in range(1, 512, 2)]
    assert free_pages(model) == FREE_OF_8 - 256
    assert free_pages(model, 9) == FREE_OF_8 - 512
    assert mapped(model, file) == (0, 256)
    assert [count(model, name) for name in ("split_punch", "shattered_punch", "split_failed")] == [1, 1, 0]


def test_alternate_punches_zero(world: MakeWorld) -> None:
    """G66: contents go, memory stays; the zaps shatter the mapping all the same."""
    model = world(8)
    file, errors = punch_alternate(model, replace(THP, punch=PUNCH_ZERO))
    assert errors == {0}
    assert layout(model, file) == [(0, 512)]
    assert contents(model, file) == {ZEROED: list(range(0, 512, 2)), USED: list(range(1, 512, 2))}
    assert free_pages(model) == FREE_OF_8 - 512
    assert mapped(model, file) == (0, 256)
    assert [count(model, name) for name in ("split_punch", "shattered_punch")] == [0, 1]


@pytest.mark.parametrize(("rule", "error"), [(PUNCH_REFUSE, errno.EINVAL), (PUNCH_KEEP, 0)])
def test_alternate_punches_refused_or_ignored(world: MakeWorld, rule: int, error: int) -> None:
    """Q5: EINVAL, or a no-op: in both cases nothing changes."""
    model = world(8)
    file, errors = punch_alternate(model, replace(THP, punch=rule))
    assert errors == {error}
    assert contents(model, file) == {USED: list(range(512))}
    assert mapped(model, file) == (512, 0)
    assert count(model, "shattered_punch") == 0


def test_refusal_is_decided_before_anything_is_done(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 1024, replace(THP, punch=PUNCH_REFUSE))
    model.allocate(file, 0, 1024)
    assert model.punch(file, 0, 513) == (errno.EINVAL, 0)
    assert present(model, file) == 1024
    assert model.punch(file, 512, 4096) == (0, 4096)
    assert present(model, file) == 512


def test_alternate_punches_of_anonymous_memory_are_deferred(world: MakeWorld) -> None:
    """L16: nothing is freed until the last page goes; then all of it."""
    model = world(8)
    file = new(model, 512, ANON_THP)
    model.access(file, 0, 512, HOST)
    for index in range(0, 512, 2):
        assert model.punch(file, index, 1) == (0, 1)
    assert present(model, file) == 256
    assert model.observe()["deferred"] == list(range(4096, 4608, 2))
    for index in range(1, 511, 2):
        model.punch(file, index, 1)
    assert (present(model, file), free_pages(model)) == (1, FREE_OF_8 - 512)
    model.punch(file, 511, 1)
    assert (model.observe()["deferred"], free_pages(model, 9)) == ([], FREE_OF_8)


# -- splits that fail -------------------------------------------------------------------------------------------------
def test_pinned_shmem_folio_is_zeroed_piece_by_piece(world: MakeWorld) -> None:
    """L14: the first half of the row, word by word."""
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.access(file, 0, 512, HOST)
    assert model.pin(file, 10, 1) == (0, 1)
    assert model.punch(file, 0, 100) == (0, 100)
    assert contents(model, file) == {ZEROED: list(range(100)), USED: list(range(100, 512))}
    assert model.punch(file, 100, 412) == (0, 412)
    assert (present(model, file), free_pages(model)) == (512, FREE_OF_8 - 512)
    assert [count(model, name) for name in ("split_failed", "split_punch", "stale_pages")] == [2, 0, 0]
    assert model.unpin(file, 10, 1) == (0, 1)
    assert free_pages(model) == FREE_OF_8 - 512
    assert model.punch(file, 0, 1) == (0, 1)
    assert (present(model, file), free_pages(model)) == (511, FREE_OF_8 - 511)


def test_exact_punch_removes_a_pinned_folio(world: MakeWorld) -> None:
    """L14: one exact-2M punch removes the folio at once; the frames are free after the unpin."""
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    model.pin(file, 10, 2)
    assert model.punch(file, 0, 512) == (0, 512)
    assert (present(model, file), free_pages(model)) == (0, FREE_OF_8 - 512)
    assert model.observe()["orphans"] == list(range(4096, 4608))
    assert model.unpin(file, 10, 1) == (errno.EINVAL, 0)
    assert model.unpin(file, 10, 2) == (0, 2)
    assert (model.observe()["orphans"], free_pages(model, 9)) == ([], FREE_OF_8)
    assert count(model, "orphaned_pages") == 512


def test_failed_split_of_a_dirty_private_folio_leaves_stale_pages(world: MakeWorld) -> None:
    """K1, K2: inaccessible mapping, dirty: whole, with the old contents in the punched part."""
    model = world(8)
    file = new(model, 512, THP)
    model.access(file, 0, 512, PRIVATE)
    assert model.reference(file, 0, 1) == (0, 1)
    assert model.punch(file, 5, 3) == (0, 3)
    assert layout(model, file) == [(0, 512)]
    assert contents(model, file)[STALE] == [5, 6, 7]
    assert mapped(model, file) == (0, 509)
    assert [count(model, name) for name in ("split_failed", "stale_pages", "lost_pages")] == [1, 3, 0]
    assert model.unreference(file, 0, 1) == (0, 1)
    assert model.access(file, 5, 1, PRIVATE) == (0, 1)
    assert contents(model, file)[STALE] == [6, 7]


def test_failed_split_of_a_clean_private_folio_loses_its_neighbours(world: MakeWorld) -> None:
    """K2: the whole folio is dropped, 509 pages more than were punched."""
    model = world(8)
    file = new(model, 512, THP)
    model.allocate(file, 0, 512)
    assert contents(model, file) == {FRESH: list(range(512))}
    model.reference(file, 0, 1)
    assert model.punch(file, 5, 3) == (0, 3)
    assert present(model, file) == 0
    assert model.observe()["orphans"] == list(range(1024, 1536))
    counted = [count(model, name) for name in ("split_failed", "stale_pages", "lost_pages", "orphaned_pages")]
    assert counted == [1, 0, 509, 512]
    model.unreference(file, 0, 1)
    assert free_pages(model, 9) == FREE_OF_8


@pytest.mark.parametrize("pages", [1, 3])
def test_pages_that_come_back_are_fresh(world: MakeWorld, pages: int) -> None:
    """What was written leaves with its page, also where the 2 MiB keeps others; one page goes on a path of its own."""
    model = world(8)
    file = new(model, 512, SMALL)
    model.access(file, 0, 8, PRIVATE)
    model.punch(file, 2, pages)
    model.allocate(file, 0, 8)
    gone = list(range(2, 2 + pages))
    assert contents(model, file) == {USED: [index for index in range(8) if index not in gone], FRESH: gone}


@pytest.mark.parametrize("punch", [SMALL.punch, PUNCH_KEEP, PUNCH_REFUSE])
def test_one_page_at_a_time(world: MakeWorld, punch: int) -> None:
    """What is there keeps its frame, what the guest maps of a page goes with it, and the last page leaves nothing behind."""
    model = world(8)
    file = new(model, 512, replace(SMALL, punch=punch))
    for index in (5, 7, 5, 6, 7):
        assert model.allocate(file, index, 1) == (0, 1)
    assert frames(model, file) == [1024, 1026, 1025]
    model.access(file, 5, 3, PRIVATE)
    assert mapped(model, file) == (0, 3)
    for index, left in ((6, 2), (4, 2), (6, 2), (5, 1), (7, 0)):
        assert model.punch(file, index, 1) == (0, 1)
        assert (present(model, file), mapped(model, file)) == (left, (0, left))
    assert free_pages(model, 9) == FREE_OF_8


def test_first_use_of_a_piece_uses_all_of_it_and_nothing_else(world: MakeWorld) -> None:
    """G27 for folios between 4K and 2M, after a split. Anonymous folios are cleared when they are allocated."""
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    model.punch(file, 511, 1)
    model.allocate(file, 511, 1)
    model.access(file, 171, 1, HOST)
    assert contents(model, file)[USED] == list(range(256))
    other = new(model, 512, ANON_THP)
    model.allocate(other, 0, 512)
    model.access(other, 9, 1, HOST)
    assert contents(model, other)[USED] == [9]
