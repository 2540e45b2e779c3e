"""Known answers, worked out by hand: 1 GiB pages from runs that are emptied first (K21), and pools of 2M, which are not (K22).

The oracle takes these with the smaller "1 GiB" pages of `test_small_giga.py` only.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numba
import pytest

from gmemlab.core.hardware import counts
from gmemlab.core.layout import (
    ACCEPT_2M,
    BLOCK_PAGES,
    GIGA_BLOCKS,
    GIGA_ORDER,
    GUEST_PLAIN,
    GUEST_SNP,
    GUEST_TDX,
    KIND_CACHE,
    KIND_SHMEM,
    PHASE_RUNNING,
    PRIVATE,
    SHARED,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from world import (
    ANON_THP,
    SHMEM_THP,
    SMALL,
    THP_IN_PLACE,
    WORLDS,
    MakeWorld,
    Policy,
    World,
    frames,
    free_pages,
    layout,
    makers,
    mapped,
    new,
    present,
    synthetic,
)

MOVABLE_4K = Policy(kind=KIND_SHMEM, movable=True)
CACHE = Policy(KIND_CACHE, (0,), movable=True)
GIGA = 1 << GIGA_ORDER
BLOCKS = 3 * GIGA_BLOCKS - 1  # the runs behind the first are whole
STRUCTS = len(synthetic(BLOCKS)[1])  # blocks
REAL = GIGA_ORDER == 18
SMALL_ALONE = pytest.mark.skipif(REAL, reason="looks at a quarter of a million pages; test_small_giga.py takes it")

pytestmark = pytest.mark.skipif(REAL and bool(numba.config.DISABLE_JIT), reason="a quarter of a million pages, one by one")


@pytest.fixture(name="giga_world", params=sorted(WORLDS))
def giga_world_fixture(request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    """As `world`; the oracle, which takes minutes, with small pages only."""
    if REAL and request.param == "oracle":
        pytest.skip("a quarter of a million pages, one by one; test_small_giga.py takes it")
    yield from makers(request.param)


def in_first_run(model: World, file: int) -> int:
    """How many of a file's frames lie in the lowest run."""
    return sum(GIGA <= frame < 2 * GIGA for frame in frames(model, file))


def filled(model: World) -> tuple[int, dict[int, int]]:
    """A movable file that has all free memory, and which page has which frame."""
    pages = free_pages(model)
    file = new(model, pages, MOVABLE_4K)
    assert model.allocate(file, 0, pages) == (0, pages)
    return file, {frame: index for index, frame in enumerate(frames(model, file))}


def test_movable_memory_leaves_a_run_for_a_giga_page(giga_world: MakeWorld) -> None:
    """Small and huge folios go elsewhere; contents, sizes and places in the file stay."""
    model = giga_world(BLOCKS)
    below = (GIGA_BLOCKS - 1 - STRUCTS) * BLOCK_PAGES
    low = new(model, below, MOVABLE_4K)
    model.allocate(low, 0, below)  # all free memory below the run
    small, huge = new(model, 600, MOVABLE_4K), new(model, 2 * BLOCK_PAGES, SHMEM_THP)
    model.allocate(small, 0, 600)
    model.allocate(huge, 0, 2 * BLOCK_PAGES)
    assert (in_first_run(model, small), in_first_run(model, huge)) == (600, 2 * BLOCK_PAGES)
    before = layout(model, huge)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    assert model.observe()["pools"][GIGA_ORDER][3] == [GIGA]
    assert (in_first_run(model, small), in_first_run(model, huge)) == (0, 0)
    assert (layout(model, huge), present(model, small)) == (before, 600)
    assert model.observe()["counters"]["moved"] == 600 + 2 * BLOCK_PAGES


def test_one_pinned_page_defeats_a_run_and_so_does_an_unmovable_one(giga_world: MakeWorld) -> None:
    """K21: the first run has a pinned page, the second one of guest_memfd."""
    model = giga_world(BLOCKS)
    file, place = filled(model)
    model.pin(file, place[GIGA + 700], 1)
    model.punch(file, place[2 * GIGA + 5], 1)
    stone = new(model, 1, SMALL)
    assert model.allocate(stone, 0, 1) == (0, 1)
    assert frames(model, stone) == [2 * GIGA + 5]
    for block in range(GIGA_BLOCKS + 2, 2 * GIGA_BLOCKS):
        model.punch(file, place[block * BLOCK_PAGES], BLOCK_PAGES)
    low = new(model, 16, MOVABLE_4K)
    for frame in range(2 * GIGA + BLOCK_PAGES, 3 * GIGA - BLOCK_PAGES, BLOCK_PAGES):
        model.punch(file, place[frame], BLOCK_PAGES)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    assert model.observe()["counters"]["moved"] == 0
    model.unpin(file, place[GIGA + 700], 1)
    assert model.grow_pool(GIGA_ORDER, 2, False) == (errno.ENOMEM, 1)
    assert model.observe()["pools"][GIGA_ORDER][3] == [GIGA]
    assert model.observe()["counters"]["moved"] == 2 * BLOCK_PAGES
    model.destroy(low)


@pytest.mark.parametrize(("policy", "left"), [(SHMEM_THP, BLOCK_PAGES), (ANON_THP, 0)], ids=["shmem", "anon"])
def test_a_huge_folio_moves_in_pieces_where_no_block_is_free(giga_world: MakeWorld, policy: Policy, left: int) -> None:
    """`migrate_pages` splits what it finds no target for; zeros of anonymous memory are freed by that (L17)."""
    model = giga_world(BLOCKS)
    filler, place = filled(model)
    home = (GIGA_BLOCKS + 3) * BLOCK_PAGES
    model.punch(filler, place[home], BLOCK_PAGES)
    huge = new(model, BLOCK_PAGES, policy)
    model.allocate(huge, 0, BLOCK_PAGES)
    assert frames(model, huge)[0] == home
    for frame in range(GIGA, 2 * GIGA, BLOCK_PAGES):
        if frame != home:
            model.punch(filler, place[frame], BLOCK_PAGES)
    for frame in range(2 * GIGA, 2 * GIGA + 2 * BLOCK_PAGES, 2):
        model.punch(filler, place[frame], 1)  # as many holes as the folio has pages
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    assert present(model, huge) == left
    assert {size for _, size in layout(model, huge)} == ({1} if left else set())


def test_page_cache_in_a_run_is_dropped(giga_world: MakeWorld) -> None:
    """It needs no room elsewhere (`reclaim_clean_pages_from_list`), and is not what reclaim drops; one page is held."""
    model = giga_world(BLOCKS)
    filler, place = filled(model)
    model.pin(filler, place[2 * GIGA], 1)  # the next run is none
    for frame in range(GIGA, 2 * GIGA, BLOCK_PAGES):
        model.punch(filler, place[frame], BLOCK_PAGES)
    cache = new(model, GIGA, CACHE)
    assert model.allocate(cache, 0, GIGA) == (0, GIGA)
    model.pin(cache, GIGA - 1, 1)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    assert (in_first_run(model, cache), free_pages(model)) == (GIGA, 0)
    model.unpin(cache, GIGA - 1, 1)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    counters = model.observe()["counters"]
    assert (present(model, cache), counters["moved"], counters["pgsteal_direct"], counters["pgsteal_kswapd"]) == (0, 0, 0, 0)


def test_page_cache_elsewhere_makes_room_for_what_leaves_a_run(giga_world: MakeWorld) -> None:
    """Targets are allocated with reclaim, 32 pages at a time."""
    model = giga_world(BLOCKS)
    filler, place = filled(model)
    far = 2 * GIGA
    model.punch(filler, place[far], BLOCK_PAGES)
    cache = new(model, BLOCK_PAGES, CACHE)
    assert model.allocate(cache, 0, BLOCK_PAGES) == (0, BLOCK_PAGES)
    for frame in range(GIGA, 2 * GIGA, BLOCK_PAGES):
        model.punch(filler, place[frame], BLOCK_PAGES - 5 if frame == GIGA else BLOCK_PAGES)
    assert in_first_run(model, filler) == 5
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    counters = model.observe()["counters"]
    assert (in_first_run(model, filler), present(model, cache)) == (0, BLOCK_PAGES - 32)
    assert (counters["moved"], counters["pgsteal_direct"]) == (5, 32)


@pytest.mark.parametrize("sizes", [(9, 0), (4, 0)], ids=["2M", "64K"])
def test_a_folio_mapped_in_part_leaves_in_pieces(giga_world: MakeWorld, sizes: tuple[int, ...]) -> None:
    """`migrate_pages_batch` splits it; what nobody maps is free then, and finds no target: there is none for more."""
    model = giga_world(BLOCKS)
    filler, place = filled(model)
    pages = 1 << sizes[0]
    model.punch(filler, place[GIGA], pages)
    folio = new(model, pages, replace(ANON_THP, sizes=sizes))
    model.access(folio, 0, pages, SHARED)
    assert layout(model, folio) == [(0, pages)]
    model.punch(folio, 0, 2)
    model.punch(folio, 3, pages - 4)
    model.punch(filler, place[GIGA] + pages, BLOCK_PAGES - pages)
    for frame in range(GIGA + BLOCK_PAGES, 2 * GIGA, BLOCK_PAGES):
        model.punch(filler, place[frame], BLOCK_PAGES)
    model.punch(filler, place[2 * GIGA + 8], 2)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    assert frames(model, folio) == [2 * GIGA + 8, 2 * GIGA + 9]
    assert (layout(model, folio), model.observe()["counters"]["moved"]) == ([(2, 1), (pages - 1, 1)], 2)


def test_a_huge_folio_that_moves_comes_last_on_the_queue(giga_world: MakeWorld) -> None:
    """`migrate_folio_move` puts it there again."""
    model = giga_world(BLOCKS)
    filler, place = filled(model)
    home, far = (GIGA_BLOCKS + 3) * BLOCK_PAGES, 2 * GIGA
    model.punch(filler, place[home], BLOCK_PAGES)
    moved = new(model, BLOCK_PAGES, ANON_THP)
    model.access(moved, 0, BLOCK_PAGES, SHARED)
    model.punch(filler, place[far], BLOCK_PAGES)
    stays = new(model, BLOCK_PAGES, ANON_THP)
    model.access(stays, 0, BLOCK_PAGES, SHARED)
    assert model.observe()["queues"] == [(0, [home, far])]
    for frame in range(GIGA, 2 * GIGA, BLOCK_PAGES):
        if frame != home:
            model.punch(filler, place[frame], BLOCK_PAGES)
    target = far + BLOCK_PAGES
    model.punch(filler, place[target], BLOCK_PAGES)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    assert frames(model, moved)[0] == target
    assert model.observe()["queues"] == [(0, [far, target])]


def test_what_could_not_be_moved_stays_and_the_rest_is_free_again(giga_world: MakeWorld) -> None:
    """A CPU takes the last frames for its list, and may not have them then (the watermark): the run is given back."""
    model = giga_world(BLOCKS)
    filler, place = filled(model)
    for frame in range(GIGA, 2 * GIGA, BLOCK_PAGES):
        if frame != GIGA + BLOCK_PAGES:
            model.punch(filler, place[frame], BLOCK_PAGES)
    for frame in range(2 * GIGA, 2 * GIGA + 2 * BLOCK_PAGES, 2):
        model.punch(filler, place[frame], 1)
    model.pin(filler, place[2 * GIGA + 1], 1)  # the next run is none
    model.set_cpus(1, 15, 60, 60)
    assert free_pages(model) == GIGA
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    assert 0 < model.observe()["counters"]["moved"] < BLOCK_PAGES
    model.drain()
    assert free_pages(model) == GIGA
    assert present(model, filler) == len(place) - GIGA


@SMALL_ALONE
@pytest.mark.parametrize("name", sorted(WORLDS))
def test_giga_pages_are_not_taken_from_zone_movable(name: str) -> None:
    """They do not move (`hugepage_movable_supported`), and what does not is in no zone for what does; 2M pages move."""
    _, reserved, blocks = synthetic(BLOCKS)
    model = WORLDS[name]([(GIGA_BLOCKS, BLOCKS + 1, ZONE_MOVABLE, 0), (1, GIGA_BLOCKS, ZONE_NORMAL, 0)], reserved, blocks)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    assert model.grow_pool(9, 1, False) == (0, 1)
    assert model.observe()["pools"][9][3][0] >= GIGA
    model.check()


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_a_pool_of_2m_pages_has_memory_compacted(name: str) -> None:
    """K22: one is free, and of six blocks that are half full two are emptied, not three: the scanners meet before."""
    model = WORLDS[name](*synthetic(8))
    file = new(model, 6 * BLOCK_PAGES, MOVABLE_4K)
    model.allocate(file, 0, 6 * BLOCK_PAGES)
    for page in range(0, 6 * BLOCK_PAGES, 2):
        model.punch(file, page, 1)
    assert free_pages(model, 9) == BLOCK_PAGES
    assert model.grow_pool(9, 8, False) == (errno.ENOMEM, 3)
    model.check()


GUESTS = {"snp": GUEST_SNP, "tdx": GUEST_TDX, "plain": GUEST_PLAIN}


def places(model: World, file: int) -> dict[int, int]:
    """Which page of a file has which frame."""
    return {page[0]: index for index, page in model.observe()["files"][file].items() if page[1] >= 0}


def empty(model: World, file: int, at: Iterable[int], pages: int) -> None:
    """A file gives back so many pages from each of some frames on, where it has them in order."""
    index = places(model, file)
    for frame in at:
        model.punch(file, index[frame], pages)


def guest_in_the_way(model: World, guest: int) -> tuple[int, int]:
    """A guest's 2 MiB folio in the lowest run, mapped as a whole, and a movable file that has all other memory."""
    rest, _ = filled(model)
    empty(model, rest, [GIGA], BLOCK_PAGES)
    error, file = model.create(BLOCK_PAGES, replace(THP_IN_PLACE, movable=True, merge=0), None, guest)
    assert error == 0
    model.access(file, 0, BLOCK_PAGES, PRIVATE, ACCEPT_2M)
    assert frames(model, file) == list(range(GIGA, GIGA + BLOCK_PAGES))
    model.ready(file)
    return file, rest


def done_for(model: World) -> dict[int, int]:
    """What the hardware did since the guest was ready."""
    found = model.observe()["operations"]
    return {operation: number for (operation, phase), number in found.items() if phase == PHASE_RUNNING and number}


@SMALL_ALONE
@pytest.mark.parametrize("guest", ["snp", "tdx"])
def test_huge_page_of_a_guest_moves_as_one(giga_world: MakeWorld, guest: str) -> None:
    """K16, G87: one command for one entry, or one mapping; both stay what they were."""
    model = giga_world(BLOCKS)
    file, rest = guest_in_the_way(model, GUESTS[guest])
    empty(model, rest, range(GIGA + BLOCK_PAGES, 2 * GIGA + 3 * BLOCK_PAGES, BLOCK_PAGES), BLOCK_PAGES)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    expected = {
        "snp": {counts.RMPUPDATE_PRIVATE_2M: 1, counts.PAGE_MOVE_2M: 1, counts.RMPUPDATE_SHARED_2M: 1},
        "tdx": {counts.RANGE_BLOCK: 1, counts.TRACK: 1, counts.PAGE_MOVE_2M: 1},
    }
    assert done_for(model) == expected[guest]
    assert mapped(model, file) == (BLOCK_PAGES, 0)
    assert in_first_run(model, file) == 0


@SMALL_ALONE
@pytest.mark.parametrize("guest", GUESTS)
def test_huge_page_of_a_guest_moves_in_pieces(giga_world: MakeWorld, guest: str) -> None:
    """What is one entry, or one mapping, is so no longer; of plain and SNP guests what was in use faults back."""
    model = giga_world(BLOCKS)
    file, rest = guest_in_the_way(model, GUESTS[guest])
    empty(model, rest, range(2 * GIGA, 2 * GIGA + 2 * BLOCK_PAGES, 2), 1)
    empty(model, rest, range(GIGA + BLOCK_PAGES, 2 * GIGA, BLOCK_PAGES), BLOCK_PAGES)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    expected = {
        "plain": {counts.REFAULT: 512},
        "snp": {
            counts.PSMASH: 1,
            counts.REFAULT: 512,
            counts.RMPUPDATE_PRIVATE_4K: 512,
            counts.PAGE_MOVE_4K: 512,
            counts.RMPUPDATE_SHARED_4K: 512,
            counts.DIRECT_MAP_2M: 3,  # what it leaves, and the two blocks that have room for half of it each
            counts.DIRECT_MAP_1G: 2,
        },
        "tdx": {counts.DEMOTE: 1, counts.RANGE_BLOCK: 513, counts.TRACK: 513, counts.PAGE_MOVE_4K: 512},
    }
    assert done_for(model) == expected[guest]
    assert mapped(model, file) == (0, BLOCK_PAGES)
    assert in_first_run(model, file) == 0


@SMALL_ALONE
@pytest.mark.parametrize("guest", GUESTS)
def test_huge_page_of_a_guest_that_finds_no_room_is_mapped_in_pieces_where_it_is(giga_world: MakeWorld, guest: str) -> None:
    """It is base pages by then, each of which was to leave alone."""
    model = giga_world(BLOCKS)
    file, rest = guest_in_the_way(model, GUESTS[guest])
    empty(model, rest, range(GIGA + BLOCK_PAGES, 2 * GIGA, BLOCK_PAGES), BLOCK_PAGES)
    model.pin(rest, places(model, rest)[3 * GIGA - 1], 1)  # the next run is none
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    expected = {
        "plain": {counts.REFAULT: 512},
        "snp": {counts.PSMASH: 1, counts.REFAULT: 512},
        "tdx": {counts.DEMOTE: 1, counts.RANGE_BLOCK: 1, counts.TRACK: 1},
    }
    assert done_for(model) == expected[guest]
    assert {size for _, size in layout(model, file)} == {1}
    assert mapped(model, file) == (0, BLOCK_PAGES)
    assert (in_first_run(model, file), model.observe()["counters"]["moved"]) == (BLOCK_PAGES, 0)
