"""Known answers, worked out by hand: what the VMM maps, and loses (G26, G45, G46, issue of in-place conversion)."""

import errno
from dataclasses import replace

from gmemlab.core.hardware import counts
from gmemlab.core.layout import GUEST_PLAIN, GUEST_SNP, HOST, PRIVATE, PUNCH_KEEP, PUNCH_ZERO, SHARED
from guests_world import done, new
from world import HUGE_2M, SMALL, SMALL_IN_PLACE, THP_IN_PLACE, MakeWorld, World
from world import world_fixture as world_fixture


def host_mapped(model: World, file: int) -> list[int]:
    """Indexes of pages that the VMM maps."""
    return model.observe()["host_mapped"][file]


def test_host_access_faults_shared_pages_in_once(world: MakeWorld) -> None:
    """The guest's own access maps nothing for the VMM; a private page in the way is not mapped (G26)."""
    model = world(8)
    file = new(model, GUEST_PLAIN, SMALL_IN_PLACE)
    model.convert(file, 0, 8, True)
    model.access(file, 0, 8, SHARED)
    assert host_mapped(model, file) == []
    assert model.access(file, 2, 3, HOST) == (0, 3)
    assert model.access(file, 4, 8, HOST) == (errno.EACCES, 4)
    assert host_mapped(model, file) == [2, 3, 4, 5, 6, 7]
    assert done(model, {}) == {counts.HOST_FAULT: 6}


def test_conversion_to_private_takes_mappings_away(world: MakeWorld) -> None:
    """Counted for those that there were; to shared again, nothing comes back before the VMM touches it (G46)."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE)
    model.convert(file, 0, 8, True)
    model.access(file, 0, 6, HOST)
    model.convert(file, 4, 4, False)
    assert (host_mapped(model, file), done(model, {})[counts.HOST_UNMAP]) == ([0, 1, 2, 3], 2)
    model.convert(file, 4, 4, True)
    assert host_mapped(model, file) == [0, 1, 2, 3]
    model.access(file, 0, 8, HOST)
    assert done(model, {})[counts.HOST_FAULT] == 6 + 4


def test_conversion_that_is_refused_takes_them_away_as_well(world: MakeWorld) -> None:
    """G45, G46: unmapped first, all of the range, then checked; they can fault back, and attributes are as they were."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL_IN_PLACE)
    model.convert(file, 0, 8, True)
    model.access(file, 0, 8, HOST)
    model.pin(file, 5, 1)
    before = model.observe()["operations"]
    assert model.convert(file, 2, 6, False) == (errno.EAGAIN, 3)
    assert done(model, before, counts.PSC_REQUEST, counts.PSC_ENTRY) == {counts.HOST_UNMAP: 6}
    assert host_mapped(model, file) == [0, 1]
    model.access(file, 3, 3, HOST)
    assert host_mapped(model, file) == [0, 1, 3, 4, 5]


def test_pin_maps_what_it_holds(world: MakeWorld) -> None:
    """It faults the pages in; without the pin the mapping stays."""
    model = world(8)
    file = new(model, GUEST_PLAIN, THP_IN_PLACE)
    model.convert(file, 0, 4, True)
    model.pin(file, 1, 2)
    model.unpin(file, 1, 2)
    assert (host_mapped(model, file), done(model, {})) == ([1, 2], {counts.HOST_FAULT: 2})


def test_whole_blocks_need_no_details(world: MakeWorld) -> None:
    """2 MiB of shared pages, mapped and taken away at once, or in part."""
    model = world(8)
    file = new(model, GUEST_PLAIN, SMALL_IN_PLACE, 1024)
    model.convert(file, 0, 1024, True)
    model.access(file, 0, 1024, HOST)
    model.access(file, 100, 600, HOST)
    model.punch(file, 512, 512)
    assert host_mapped(model, file) == list(range(512))
    model.convert(file, 0, 500, False)
    assert host_mapped(model, file) == list(range(500, 512))
    model.convert(file, 500, 12, False)
    assert done(model, {}) == {counts.HOST_FAULT: 1024, counts.HOST_UNMAP: 1024}


def test_mapping_goes_with_the_page(world: MakeWorld) -> None:
    """G22: a punch of any kind takes base pages out of the file, and the end of the file takes all."""
    for punch in (0, PUNCH_ZERO, PUNCH_KEEP):
        model = world(8)
        file = new(model, GUEST_SNP, replace(THP_IN_PLACE, merge=0, punch=punch))
        model.access(file, 0, 512, PRIVATE)
        model.convert(file, 0, 8, True)
        model.access(file, 0, 8, HOST)
        model.punch(file, 6, 4)
        assert host_mapped(model, file) == [0, 1, 2, 3, 4, 5]
        model.destroy(file)
        assert done(model, {})[counts.HOST_UNMAP] == 8


def test_mapping_goes_with_a_page_that_is_punched_alone(world: MakeWorld) -> None:
    """G22, where no folio is larger than a page: one page goes on a path of its own."""
    model = world(8)
    file = new(model, GUEST_PLAIN, SMALL_IN_PLACE)
    model.convert(file, 0, 4, True)
    model.access(file, 0, 4, HOST)
    model.punch(file, 1, 1)
    assert (host_mapped(model, file), done(model, {})) == ([0, 2, 3], {counts.HOST_FAULT: 4, counts.HOST_UNMAP: 1})
    model.allocate(file, 1, 1)
    assert host_mapped(model, file) == [0, 2, 3]


def test_zeroed_part_of_a_pool_page_stays_mapped(world: MakeWorld) -> None:
    """G66: nothing leaves the file. A punch of all of it that a pin refuses has taken the mapping away (G73)."""
    model = world(12)
    model.grow_pool(9, 2, False)
    file = new(model, GUEST_SNP, replace(HUGE_2M, hvo=False, punch=PUNCH_ZERO))
    model.convert(file, 0, 4, True)
    model.access(file, 0, 4, HOST)
    model.punch(file, 0, 2)
    assert host_mapped(model, file) == [0, 1, 2, 3]
    model.pin(file, 1, 1)
    assert model.punch(file, 0, 512) == (errno.EAGAIN, 0)
    assert host_mapped(model, file) == []


def test_two_sources_share_ordinary_memory(world: MakeWorld) -> None:
    """The VMM maps that, and never the private file."""
    model = world(8)
    file = new(model, GUEST_SNP, SMALL)
    model.convert(file, 0, 8, True)
    model.access(file, 0, 8, HOST)
    model.pin(file, 0, 2)
    assert (host_mapped(model, file), host_mapped(model, model.shared_side(file))) == ([], [])
