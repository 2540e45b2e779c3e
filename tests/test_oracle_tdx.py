"""Known answers, worked out by hand: the S-EPT, and every operation that it is told to do (G76 to G79, K6, K17)."""

from gmemlab.core.hardware import counts
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_IN_PLACE,
    ACCEPT_LAUNCH,
    GUEST_TDX,
    HOST,
    PHASE_BOOT,
    PHASE_TEAR_DOWN,
    PRIVATE,
)
from guests_world import FAULTS, HUGE_IN_PLACE, OF_THE_HOST, done, new
from world import SMALL_IN_PLACE, THP, MakeWorld, mapped
from world import world_fixture as world_fixture


def test_tdx_accepts_a_huge_page(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, GUEST_TDX, HUGE_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert done(model, {}) == {counts.AUG_2M: 1, counts.ACCEPT_2M: 1, counts.FAULT_2M: 1}


def test_tdx_accept_larger_than_the_mapping(world: MakeWorld) -> None:
    """G79: a size mismatch, and the guest tries again with 4 KiB."""
    model = world(8)
    file = new(model, GUEST_TDX, SMALL_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert done(model, {}, *FAULTS) == {counts.AUG_4K: 512, counts.ACCEPT_MISMATCH: 1, counts.ACCEPT_4K: 512}


def test_tdx_accept_smaller_than_the_mapping(world: MakeWorld) -> None:
    """G79: demoted, with a mark that no later accept undoes, nor a punch of all of it."""
    model = world(8)
    file = new(model, GUEST_TDX, HUGE_IN_PLACE)
    model.access(file, 0, 1, PRIVATE)  # maps 2 MiB, pending, and touches it without an accept
    assert done(model, {}, *FAULTS) == {counts.AUG_2M: 1, counts.UNACCEPTED: 1}
    before = model.observe()["operations"]
    model.access(file, 1, 1, PRIVATE, ACCEPT_4K)
    assert done(model, before) == {counts.RANGE_BLOCK: 1, counts.TRACK: 1, counts.DEMOTE: 1, counts.ACCEPT_4K: 1}
    model.punch(file, 0, 512)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert mapped(model, file) == (0, 512)


def test_tdx_zap_is_exact(world: MakeWorld) -> None:
    """G77, G78: the mapping is demoted first, and the 511 others stay accepted."""
    model = world(8)
    file = new(model, GUEST_TDX, HUGE_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    before = model.observe()["operations"]
    model.convert(file, 7, 1, True)
    assert done(model, before) == {
        counts.MAP_GPA: 1,
        counts.RANGE_BLOCK: 2,
        counts.TRACK: 2,
        counts.DEMOTE: 1,
        counts.REMOVE_4K: 1,
    }
    assert mapped(model, file) == (0, 511)
    assert sum(accepted for _, accepted in model.observe()["page_states"][file].values()) == 511


def test_tdx_build_and_tear_down(world: MakeWorld) -> None:
    """G76: 4 KiB pages before it runs. K17: taken out one by one, as it was mapped."""
    model = world(8)
    file = new(model, GUEST_TDX, HUGE_IN_PLACE, 1024)
    model.access(file, 0, 6, PRIVATE, ACCEPT_LAUNCH)
    model.access(file, 512, 512, PRIVATE, ACCEPT_2M)
    model.destroy(file)
    found = model.observe()["operations"]
    assert {key: number for key, number in found.items() if key[0] not in OF_THE_HOST} == {
        (counts.PAGE_ADD, PHASE_BOOT): 6,
        (counts.AUG_2M, PHASE_BOOT): 1,
        (counts.ACCEPT_2M, PHASE_BOOT): 1,
        (counts.FAULT_2M, PHASE_BOOT): 1,
        (counts.RANGE_BLOCK, PHASE_TEAR_DOWN): 7,
        (counts.TRACK, PHASE_TEAR_DOWN): 7,
        (counts.REMOVE_4K, PHASE_TEAR_DOWN): 6,
        (counts.REMOVE_2M, PHASE_TEAR_DOWN): 1,
    }


def test_tdx_launch_image_in_place(world: MakeWorld) -> None:
    """G52: added from a source, or where the VMM wrote it while it was shared."""
    model = world(8)
    file = new(model, GUEST_TDX, SMALL_IN_PLACE)
    model.convert(file, 0, 4, True)
    model.access(file, 0, 4, HOST)
    model.convert(file, 0, 4, False)
    model.access(file, 0, 4, PRIVATE, ACCEPT_IN_PLACE)
    model.access(file, 4, 2, PRIVATE, ACCEPT_LAUNCH)
    found = done(model, {}, counts.MAP_GPA, counts.HOST_FAULT, counts.HOST_UNMAP)
    assert found == {counts.PAGE_ADD_IN_PLACE: 4, counts.PAGE_ADD: 2}
    assert sum(accepted for _, accepted in model.observe()["page_states"][file].values()) == 6


def test_tdx_launch_image_in_a_huge_mapping_is_there_already(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, GUEST_TDX, HUGE_IN_PLACE)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    before = model.observe()["operations"]
    model.access(file, 0, 2, PRIVATE, ACCEPT_LAUNCH)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert done(model, before) == {}


def test_tdx_block_zapped_page_by_page_has_no_history(world: MakeWorld) -> None:
    """K6: when the last of its pages is gone, 2 MiB may come back at once."""
    model = world(8)
    file = new(model, GUEST_TDX, THP)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    model.convert(file, 0, 200, True)
    model.convert(file, 200, 312, True)
    model.punch(file, 0, 512)
    model.convert(file, 0, 512, False)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert mapped(model, file) == (512, 0)


def test_tdx_accept_of_what_is_mapped_leaves_no_mark(world: MakeWorld) -> None:
    """G79: KVM sets the mark when it handles the fault that an accept took, and mapped pages take none."""
    model = world(8)
    file = new(model, GUEST_TDX, THP)
    model.access(file, 0, 512, PRIVATE, ACCEPT_LAUNCH)
    model.access(file, 0, 512, PRIVATE, ACCEPT_4K)
    model.punch(file, 0, 512)
    model.access(file, 0, 512, PRIVATE, ACCEPT_2M)
    assert mapped(model, file) == (512, 0)
