"""Known answers, worked out by hand: private pages that move, which no kernel does (K16, G87, K11)."""

from dataclasses import replace

import pytest

from gmemlab.core.hardware import counts
from gmemlab.core.layout import ACCEPT_2M, ACCEPT_4K, GUEST_PLAIN, GUEST_SNP, GUEST_TDX, PRIVATE, REPAIR_COLLAPSE
from guests_world import done, new
from world import SMALL_IN_PLACE, THP_IN_PLACE, MakeWorld, count, mapped
from world import world_fixture as world_fixture

MIGRATABLE = replace(THP_IN_PLACE, movable=True, merge=0, repair=REPAIR_COLLAPSE)
MOVABLE_4K = replace(SMALL_IN_PLACE, movable=True)
SLEEP = 10_000  # ms, of khugepaged


def test_snp_collapse_moves_every_page_that_is_assigned(world: MakeWorld) -> None:
    """From 504 frames that one host block has, whose mapping the punch has split already, to another block, which splits."""
    model = world(8)
    file = new(model, GUEST_SNP, MIGRATABLE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    model.punch(file, 200, 8)
    model.ready(file)
    before = model.observe()["operations"]
    assert model.khugepaged(SLEEP) == (0, 512)
    assert done(model, before) == {
        counts.RMPUPDATE_PRIVATE_4K: 504,
        counts.PAGE_MOVE_4K: 504,
        counts.RMPUPDATE_SHARED_4K: 504,
        counts.DIRECT_MAP_2M: 1,
    }
    assert mapped(model, file) == (0, 504)


def test_tdx_collapse_relocates_what_is_mapped(world: MakeWorld) -> None:
    """The pages that were allocated, and never accepted, are the kernel's to copy."""
    model = world(8)
    file = new(model, GUEST_TDX, MIGRATABLE)
    model.allocate(file, 0, 512)
    model.access(file, 0, 3, PRIVATE, ACCEPT_4K)
    model.punch(file, 200, 8)
    before = model.observe()["operations"]
    assert model.khugepaged(SLEEP) == (0, 512)
    assert done(model, before) == {counts.RANGE_BLOCK: 3, counts.TRACK: 3, counts.PAGE_MOVE_4K: 3}
    assert count(model, "firmware_copies") == 504


@pytest.mark.parametrize("guest", [GUEST_SNP, GUEST_TDX, GUEST_PLAIN])
def test_compaction_moves_private_pages(world: MakeWorld, guest: int) -> None:
    """Of two pages that are left of two blocks, the lower one joins the other; both blocks are split already (K11)."""
    model = world(8)
    file = new(model, guest, MOVABLE_4K, 1024)
    model.access(file, 0, 1024, PRIVATE, ACCEPT_4K)
    model.punch(file, 1, 511)
    model.punch(file, 513, 511)
    before = model.observe()["operations"]
    assert model.compact()[1] == count(model, "moved") == 1
    expected = {
        GUEST_SNP: {
            counts.RMPUPDATE_PRIVATE_4K: 1,
            counts.PAGE_MOVE_4K: 1,
            counts.RMPUPDATE_SHARED_4K: 1,
        },
        GUEST_TDX: {counts.RANGE_BLOCK: 1, counts.TRACK: 1, counts.PAGE_MOVE_4K: 1},
        GUEST_PLAIN: {},
    }
    assert done(model, before) == expected[guest]
