"""Known answers, worked out by hand: pins, and long-term ones, which move what lies in CMA or ZONE_MOVABLE (FOLL_LONGTERM)."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import BLOCK_PAGES, CMA, HOST, PIN_SHORT, UNMOVABLE, ZONE_MOVABLE, ZONE_NORMAL
from world import (
    ANON_THP,
    FREE_OF_8,
    HUGE_2M,
    HUGETLBFS,
    SHMEM_THP,
    SMALL,
    SMALL_IN_PLACE,
    WORLDS,
    MakeWorld,
    Policy,
    World,
    count,
    frames,
    free_pages,
    new,
    pool,
    present,
)
from world import world_fixture as world_fixture

SHMEM_4K = replace(SHMEM_THP, sizes=(0,), fallocate_sizes=())
TYPES = {7: CMA, 8: CMA}


@pytest.fixture(name="with_cma", params=sorted(WORLDS))
def with_cma_fixture(request: pytest.FixtureRequest) -> World:
    """Blocks 2 to 6, and CMA in 7 and 8."""
    return WORLDS[request.param]([(1, 9, ZONE_NORMAL, 0)], {1}, 8, TYPES)


@pytest.fixture(name="with_zone", params=sorted(WORLDS))
def with_zone_fixture(request: pytest.FixtureRequest) -> World:
    """Blocks 2 to 6, and ZONE_MOVABLE with 7 and 8."""
    return WORLDS[request.param]([(7, 9, ZONE_MOVABLE, 0), (1, 7, ZONE_NORMAL, 0)], {1}, 8)


def outside(model: World, file: int) -> int:
    """Pages of a file below the seventh block."""
    return sum(pfn < 7 * BLOCK_PAGES for pfn in frames(model, file))


def full_but(model: World, blocks: int) -> int:
    """A file of the host that has all ordinary memory but so many blocks."""
    host = new(model, 5 * 512, SMALL)
    assert model.allocate(host, 0, (5 - blocks) * 512) == (0, (5 - blocks) * 512)
    return host


def test_absent_pages_are_not_referenced_but_a_pin_faults_them_in(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 6, SMALL_IN_PLACE)
    model.allocate(file, 0, 2)
    assert model.reference(file, 0, 4) == (errno.ENOENT, 2)
    assert model.pin(file, 0, 1) == (errno.EFAULT, 0)
    model.convert(file, 0, 4, True)
    assert model.pin(file, 0, 6) == (errno.EFAULT, 4)  # what was faulted in before the private page stays
    assert model.unpin(file, 0, 6) == (errno.EINVAL, 0)
    assert model.punch(file, 0, 2) == (0, 2)
    assert model.observe()["orphans"] == []
    assert free_pages(model) == FREE_OF_8 - 2
    assert model.pin(file, 0, 4) == (0, 4)
    assert model.punch(file, 0, 4) == (0, 4)
    assert len(model.observe()["orphans"]) == 4
    assert model.unpin(file, 0, 4) == (0, 4)


def test_pinned_page_is_taken_out_of_the_file(world: MakeWorld) -> None:
    """L10, G24: a new fault gives another page; the old frame is free after the unpin."""
    model = world(8)
    file = new(model, 4, SMALL_IN_PLACE)
    model.convert(file, 0, 4, True)
    model.access(file, 0, 4, HOST)
    model.pin(file, 1, 1)
    assert model.punch(file, 1, 1) == (0, 1)
    assert (present(model, file), model.observe()["orphans"]) == (3, [1025])
    model.access(file, 1, 1, HOST)
    assert frames(model, file) == [1024, 1028, 1026, 1027]
    model.unpin(file, 1, 1)
    assert model.observe()["free"][0, UNMOVABLE, 0][0] == 1025


def test_long_pin_leaves_cma_and_a_short_one_does_not(with_cma: World) -> None:
    """Three blocks are free, two of them CMA, which movable memory has first; for a pin it goes to the third."""
    full_but(with_cma, 1)
    file = new(with_cma, 512, ANON_THP)
    with_cma.access(file, 0, 512, HOST)
    assert outside(with_cma, file) == 0
    assert with_cma.pin(file, 7, 1, PIN_SHORT) == (0, 1)
    assert outside(with_cma, file) == 0
    assert with_cma.pin(file, 0, 512) == (errno.ENOMEM, 0)  # what others hold does not move
    with_cma.unpin(file, 7, 1)
    assert with_cma.pin(file, 7, 1) == (0, 1)
    assert (outside(with_cma, file), count(with_cma, "moved")) == (512, 512)
    assert free_pages(with_cma, 9) == 1024
    with_cma.check()


@pytest.mark.parametrize("policy", [ANON_THP, SHMEM_THP, SHMEM_4K])
def test_long_pin_leaves_zone_movable(with_zone: World, policy: Policy) -> None:
    file = new(with_zone, 1024, policy)
    with_zone.access(file, 0, 1024, HOST)
    assert outside(with_zone, file) == 0
    assert with_zone.pin(file, 3, 600) == (0, 600)
    assert outside(with_zone, file) == (600 if policy is SHMEM_4K else 1024)
    with_zone.check()


@pytest.mark.parametrize("policy", [ANON_THP, SHMEM_THP])
def test_folio_that_finds_no_room_moves_in_pieces(with_cma: World, policy: Policy) -> None:
    """All of it moves: 511 pages are not enough, and what has moved until then stays there; 512 are."""
    host = full_but(with_cma, 1)
    file = new(with_cma, 512, policy)
    with_cma.access(file, 0, 512, HOST)
    assert with_cma.allocate(host, 4 * 512, 1) == (0, 1)
    assert with_cma.pin(file, 511, 1) == (errno.ENOMEM, 0)
    assert outside(with_cma, file) == 511
    with_cma.punch(host, 0, 1)
    assert with_cma.pin(file, 511, 1) == (0, 1)
    assert outside(with_cma, file) == 512
    with_cma.check()


def test_zeros_of_a_split_folio_are_faulted_in_anew(with_cma: World) -> None:
    """A short pin wrote nothing: eight pages of room are enough for five, as the split frees all 512 (L17)."""
    host = full_but(with_cma, 1)
    file = new(with_cma, 512, ANON_THP)
    assert with_cma.pin(file, 0, 1, PIN_SHORT) == (0, 1)
    assert with_cma.unpin(file, 0, 1) == (0, 1)
    assert with_cma.allocate(host, 4 * 512, 504) == (0, 504)
    assert with_cma.pin(file, 100, 5) == (0, 5)
    assert (len(frames(with_cma, file)), outside(with_cma, file)) == (5, 5)
    with_cma.check()


def test_folio_that_is_mapped_in_part_is_split_first(with_cma: World) -> None:
    """So its unmapped half is freed, and the pages of the other one move alone."""
    full_but(with_cma, 1)
    file = new(with_cma, 512, ANON_THP)
    with_cma.access(file, 0, 512, HOST)
    with_cma.punch(file, 0, 256)
    assert with_cma.pin(file, 300, 1) == (0, 1)
    assert (outside(with_cma, file), free_pages(with_cma, 9)) == (256, 1024)
    with_cma.check()


def test_what_a_long_pin_faults_in_is_not_movable(with_cma: World) -> None:
    """Where only CMA is left, a short pin gets memory, and a long one does not (PF_MEMALLOC_PIN)."""
    full_but(with_cma, 0)
    file = new(with_cma, 1024, SHMEM_4K)
    assert with_cma.pin(file, 0, 512) == (errno.ENOMEM, 0)
    assert with_cma.pin(file, 0, 512, PIN_SHORT) == (0, 512)
    assert with_cma.access(file, 512, 512, HOST) == (0, 512)
    with_cma.check()


def test_huge_pages_of_pools_do_not_move_for_a_pin(with_zone: World) -> None:
    """guest_memfd refuses (G54); that hugetlb memory would move within its pool is not modelled."""
    with_zone.grow_pool(9, 2, False)
    file = new(with_zone, 512, HUGETLBFS)
    assert with_zone.pin(file, 0, 512) == (errno.EOPNOTSUPP, 0)
    assert with_zone.pin(file, 0, 512, PIN_SHORT) == (0, 512)
    with_zone.destroy(file)
    guest = new(with_zone, 512, replace(HUGE_2M, hvo=False))
    with_zone.convert(guest, 0, 512, True)
    assert with_zone.pin(guest, 0, 1) == (errno.ENOMEM, 0)
    assert with_zone.pin(guest, 0, 1, PIN_SHORT) == (0, 1)
    assert pool(with_zone) == (2, 1, 0)
    with_zone.check()
