"""Known answers, worked out by hand: where the page allocator's rules meet a block's type, and the border of a zone."""

from dataclasses import replace

import pytest

from gmemlab.core.layout import MOVABLE, UNMOVABLE, ZONE_NORMAL
from world import FREE_OF_8, KERNEL, SHMEM_THP, SMALL, WORLDS, MakeWorld, Policy, new
from world import world_fixture as world_fixture


def test_block_is_claimed_with_the_help_of_pages_alike(world: MakeWorld) -> None:
    """K18: an unmovable request claims a movable block once free and unmovable pages are half of it; before, it steals."""
    model = world(8)
    movable, unmovable = new(model, FREE_OF_8, replace(SHMEM_THP, sizes=(0,))), new(model, 256, KERNEL)
    model.allocate(movable, 0, FREE_OF_8)
    model.punch(movable, 0, 255)  # of block 8
    assert model.allocate(unmovable, 0, 255) == (0, 255)
    assert model.observe()["blocktypes"][8] == MOVABLE
    model.punch(movable, 300, 1)
    assert model.allocate(unmovable, 255, 1) == (0, 1)
    assert model.observe()["blocktypes"][2:] == [MOVABLE] * 6 + [UNMOVABLE]


@pytest.mark.parametrize(("kind", "claimed"), [(SMALL, 1), (KERNEL, 0)])
def test_pages_of_guest_memfd_count_as_movable_ones(world: MakeWorld, kind: Policy, claimed: int) -> None:
    """K18: a movable request claims a block with a hole of 128K if the rest is on the LRU lists, though it cannot move."""
    model = world(8)
    unmovable, movable = new(model, FREE_OF_8, kind), new(model, 1, replace(SHMEM_THP, sizes=(0,)))
    model.allocate(unmovable, 0, FREE_OF_8)
    model.punch(unmovable, 0, 32)
    assert model.allocate(movable, 0, 1) == (0, 1)
    assert model.observe()["blocktypes"][2:].count(MOVABLE) == claimed


def test_pages_of_guest_memfd_are_not_alike_to_unmovable_ones(world: MakeWorld) -> None:
    """K18: of a movable block of which 252 pages are of guest_memfd, this does not help an unmovable request to claim it."""
    model = world(8)
    movable, guest = new(model, FREE_OF_8, replace(SHMEM_THP, sizes=(0,))), new(model, 512, SMALL)
    model.allocate(movable, 0, FREE_OF_8)
    model.punch(movable, 0, 255)
    assert model.allocate(guest, 0, 255) == (0, 255)
    model.punch(movable, 300, 5)
    assert model.allocate(guest, 255, 5) == (0, 5)
    assert model.observe()["blocktypes"][8] == MOVABLE


def test_only_buddies_of_one_order_merge(world: MakeWorld) -> None:
    """K18: 1024 and 1025 merge, but not with 1026, whose neighbour 1027 is in use."""
    model = world(8)
    file = new(model, 16, SMALL)
    model.allocate(file, 0, 16)
    for index in (2, 0, 1):
        model.punch(file, index, 1)
    free = model.observe()["free"]
    assert (free[0, UNMOVABLE, 0], free[0, UNMOVABLE, 1]) == ([1026], [1024])


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_chunks_do_not_merge_across_zones(name: str) -> None:
    """K19: blocks 4 and 5 are buddies, but of two zones."""
    model = WORLDS[name]([(5, 9, ZONE_NORMAL, 0), (1, 5, ZONE_NORMAL, 0)], {1}, 8)
    fresh = {(1, MOVABLE, 10): [1024], (1, MOVABLE, 9): [2048], (0, MOVABLE, 10): [3072], (0, MOVABLE, 9): [2560, 4096]}
    assert model.observe()["free"] == fresh
    file = new(model, FREE_OF_8, SHMEM_THP)
    assert model.allocate(file, 0, FREE_OF_8) == (0, FREE_OF_8)
    model.destroy(file)
    model.check()
    after = {key: sorted(pfns) for key, pfns in model.observe()["free"].items()}
    assert after == fresh
