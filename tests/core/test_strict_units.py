"""Files that work in 2M units from the buddy allocator, and blocks that were in use at boot."""

import errno
from dataclasses import replace

import numpy as np
import pytest

from core_world import CoreWorld
from gmemlab.core import boot, layout
from gmemlab.core.layout import (
    BLOCK_PAGES,
    CONVERT_IN_PLACE,
    KIND_HOST,
    MERGE_EAGER,
    PRIVATE,
    PUNCH_ZERO,
    SHARED,
    SPLIT_2M_FIRST,
    SPLIT_UNIFORM,
    UNMOVABLE,
    ZEROED,
)
from oracle_files import OraclePolicy
from world import HUGE_1G, contents, free_pages, present, synthetic
from world import layout as folios

STRICT = OraclePolicy(sizes=(9,), conversion=CONVERT_IN_PLACE, punch=PUNCH_ZERO, merge=MERGE_EAGER)


def test_split_unit_is_released_as_a_whole_and_its_pinned_page_later() -> None:
    world = CoreWorld(*synthetic(16))
    free = free_pages(world)
    world.create(1024, STRICT)
    world.access(1, 0, 1024, PRIVATE)
    assert world.convert(1, 40, 2, True) == (0, 2)
    assert (folios(world, 1)[0], len(folios(world, 1))) == ((0, 1), 513)
    assert world.punch(1, 100, 50) == (0, 50)  # less than a unit: it reads zero and stays
    assert (present(world, 1), contents(world, 1)[ZEROED]) == (1024, list(range(100, 150)))
    assert world.access(1, 40, 1, SHARED) == (0, 1)
    assert world.pin(1, 40, 1) == (0, 1)
    assert world.punch(1, 0, 512) == (0, 512)
    assert (present(world, 1), free_pages(world)) == (512, free - 512 - 1)
    assert world.unpin(1, 40, 1) == (0, 1)
    assert free_pages(world) == free - 512
    assert world.convert(1, 512, 1, True) == (0, 1)
    assert world.punch(1, 512, 512) == (0, 512)  # split, but nobody holds a page: back in one step
    assert free_pages(world) == free
    assert world.access(1, 512, 1, SHARED) == (0, 1)  # the attribute stayed: a new unit is split at once (G71)
    assert folios(world, 1)[0] == (512, 1)
    world.check()


def test_unit_merges_when_all_of_it_is_private_again() -> None:
    world = CoreWorld(*synthetic(16))
    world.create(512, STRICT)
    world.access(1, 0, 512, PRIVATE)
    world.convert(1, 3, 1, True)
    world.convert(1, 9, 1, True)
    world.convert(1, 3, 1, False)
    assert len(folios(world, 1)) == 512
    world.convert(1, 9, 1, False)
    assert folios(world, 1) == [(0, 512)]
    world.check()


def test_boot_memory_is_owned_and_can_be_punched() -> None:
    zones, reserved, blocks = synthetic(16)
    world = CoreWorld(zones, reserved | {9, 10}, blocks)
    world.create(17 * BLOCK_PAGES, OraclePolicy(kind=KIND_HOST))
    boot.occupy(world.state, 9, world.files[1], UNMOVABLE)
    boot.occupy(world.state, 10, world.files[1], layout.MOVABLE)
    world.check()
    before = free_pages(world)
    firsts = np.array([9 * 512 + 8, 9 * 512 + 64, 10 * 512], dtype=np.int64)
    boot.punch_each(world.state, world.files[1], firsts, np.array([8, 1, 512], dtype=np.int64))
    world.check()
    assert free_pages(world) == before + 8 + 1 + 512
    assert world.observe()["free"][0, UNMOVABLE, 3] == [9 * 512 + 8]
    assert world.allocate(1, 17 * BLOCK_PAGES, 1) == (errno.EINVAL, 0)


@pytest.mark.parametrize("split", [SPLIT_UNIFORM, SPLIT_2M_FIRST])
def test_giant_page_from_pool_to_pool(split: int) -> None:
    """K5, G72: 4095 frames of page structs, or 511 and 7, are taken by the split and come back with the merge."""
    world = CoreWorld(*synthetic(1100))
    assert world.grow_pool(18, 2, True) == (errno.ENOMEM, 1)
    free = int(world.state.zones[0].free)
    world.create(1 << 18, replace(HUGE_1G, split=split))
    world.access(1, 1000, 3, PRIVATE)
    assert world.convert(1, 1000, 1, True) == (0, 1)
    assert int(world.state.zones[0].free) == free - (4095 if split == SPLIT_UNIFORM else 511 + 7)
    assert world.convert(1, 1000, 1, False) == (0, 1)
    assert int(world.state.zones[0].free) == free
    assert world.destroy(1) == (0, 1 << 18)
    assert world.observe_pool(18)[:4] == (1, 1, 0, [512 * 512])
