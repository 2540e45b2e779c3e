"""What a sample says, on a host small enough to count by hand."""

from dataclasses import replace
from typing import Any

import numpy as np

from core_world import CoreWorld
from gmemlab.core import layout, measure
from gmemlab.core.layout import (
    BLOCK_PAGES,
    PRIVATE,
    SHARED,
    UNMOVABLE,
    VMM_PUNCHES_PRIVATE,
    VMM_PUNCHES_SHARED,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from gmemlab.core.sample import MEASURE_GUESTS
from oracle_files import OraclePolicy
from world import HUGE_2M, THP, synthetic


def sample(world: CoreWorld) -> Any:
    """One MEASURE record."""
    return measure.measure(world.state)


def test_guests_and_what_they_cost() -> None:
    world = CoreWorld(*synthetic(64))
    world.grow_pool(9, 4, True)
    world.create(1024, replace(THP, vmm_punch=VMM_PUNCHES_PRIVATE | VMM_PUNCHES_SHARED))
    world.access(1, 0, 1024, PRIVATE)
    world.convert(1, 512, 4, True)  # punched on the private side, and 2M of ordinary memory faulted in
    world.access(1, 512, 1, SHARED)
    world.create(1024, HUGE_2M)
    world.access(2, 0, 512, PRIVATE)
    world.convert(2, 0, 1, True)
    row = sample(world)
    assert (row.guests, row.guest_pages) == (2, 2048)
    assert (row.private_mapped_2m, row.private_mapped_4k) == (512, 508 + 511)
    of_guests = np.zeros(1, MEASURE_GUESTS).view(np.recarray)
    measure.measure_guests(world.state, of_guests)
    assert all(of_guests[0][name] == row[name] for name in MEASURE_GUESTS.names or ())
    assert (row.shared_pages, row.private_pages) == (5, 2043)
    assert (row.charged, row.charged_shared_side, row.backed_twice) == (1020 + 512, 512, 508)
    assert row.table_blocks == 2
    assert row.pool_idle == 3 * BLOCK_PAGES
    assert row.structs_taken == 7 - 4 * 7
    assert row.stranded == row.deferred == 0
    world.convert(1, 512, 4, False)  # the VMM punches four pages of the shared 2M: they stay charged
    assert sample(world).deferred == 4
    one = np.zeros(1, MEASURE_GUESTS).view(np.recarray)
    measure.measure_one(world.state, world.files[2], one)
    assert (one[0].guests, one[0].guest_pages) == (1, 1024)
    assert measure.limit(world.state, world.files[2], 3) == layout.TERM_FOLIO


def test_what_the_host_has_left() -> None:
    world = CoreWorld([(513, 1025, ZONE_MOVABLE, 0), (1, 513, ZONE_NORMAL, 0)], {1, 2}, 1024)
    row = sample(world)
    assert (row.free_2m, row.free_2m_movable_zone, row.clean_2m) == (1022, 512, 1022)
    assert row.free == 1022 * BLOCK_PAGES
    assert row.free_1g == 0  # block 1024 alone begins an aligned GiB
    assert sample(CoreWorld([(512, 1537, ZONE_MOVABLE, 0), (1, 512, ZONE_NORMAL, 0)], set(range(1, 30)), 1536)).free_1g == 0
    assert sample(CoreWorld([(1, 1537, ZONE_NORMAL, 0)], set(range(1, 30)), 1536)).free_1g == 2
    world.create(3 * BLOCK_PAGES, OraclePolicy(kind=layout.KIND_HOST, movable=True))
    world.allocate(1, 0, 3 * BLOCK_PAGES)
    world.punch(1, 7, 1)
    world.create(BLOCK_PAGES, OraclePolicy(kind=layout.KIND_HOST))
    world.allocate(2, 0, 1)
    row = sample(world)
    assert row.clean_2m == 1021  # movable memory does not stand in the way, an unmovable page does
    assert row.free_2m == 1022 - 3 - 1
    assert world.state.blocks[int(world.observe()["files"][2][0][0]) // BLOCK_PAGES].migratetype == UNMOVABLE
