"""Guests' hardware in the object API: names, what was done, where page states lie."""

import pytest

from gmemlab.core.hardware import counts
from gmemlab.errors import UsageError
from gmemlab.model.guests import GUESTS, OPERATIONS
from gmemlab.model.host import Host
from gmemlab.presets import find


def test_every_operation_has_a_name() -> None:
    assert sorted(OPERATIONS.values()) == list(range(len(OPERATIONS)))
    assert OPERATIONS["rmpupdate-private-2m"] == counts.RMPUPDATE_PRIVATE_2M


def test_life_of_an_snp_guest() -> None:
    host = Host("4G")
    with host.guest_memfd("2G", policy="thp-inplace", guest="snp") as vm:
        vm.access(0, "1G", accept="2M")
        vm.ready()
        vm.convert("4M", "4K", to="shared")
        done = host.operations()
        assert (done["pvalidate-2m"]["boot"], done["psmash"]["running"]) == (512, 1)
        places = host.places()
        assert (places.regions, places.snp_regions, places.tdx_small_2m) == (5, 2, 0)  # the first has no block 0
        assert places.snp_free_share == 3 / 5
        assert places.rmp_bytes == 16 << 20, "C18, C19: 16 bytes for each 4 KiB of 4 GiB"
        assert vm.limit("4M") == "the page is shared"
        host.audit()
    assert host.operations()["rmpupdate-shared-2m"]["tear-down"] == 511
    assert host.places().snp_regions == 0


def test_limit_names_small_entries_of_the_rmp() -> None:
    vm = Host("1G").guest_memfd("4M", policy="thp-inplace", guest="snp")
    vm.access(0, "4M", accept="2M")
    assert vm.limit(0) == "nothing: 2M"
    vm.access("2M", "4K", accept="4K")
    assert vm.limit("2M") == "nothing: 2M", "accepted before"
    fresh = Host("1G").guest_memfd("4M", policy="thp-inplace", guest="snp")
    fresh.access(0, "4K", accept="4K")
    assert fresh.limit("1M") == "in 4K entries of RMP or S-EPT before, and never left the guest as a whole since"


def test_frames_that_are_held_count_as_snp_pages() -> None:
    host = Host("1G")
    vm = host.guest_memfd("4M", policy="thp-inplace", guest="snp")
    vm.access(0, "4M", accept="2M")
    vm.convert("2M", "4K", to="shared")
    for place in (0, "3M"):
        vm.reference(place, "4K")
    vm.punch_hole(0, "4M")
    assert host.places().snp_regions == 1
    vm.unreference(0, "4K")
    assert host.places().snp_regions == 1
    vm.unreference("3M", "4K")
    assert host.places().snp_regions == 0


def test_tdx_guests_need_small_pamt_entries_where_they_are_mapped_small() -> None:
    host = Host("1G")
    vm = host.guest_memfd("8M", policy="thp-inplace", guest="tdx")
    vm.access(0, "64K", accept="launch")
    vm.access("2M", "6M", accept="2M")
    vm.convert("2M", "4K", to="shared")
    places = host.places()
    assert places.tdx_small_2m == 2
    assert places.pamt_bytes == (4 << 20) + 16 * (512 + 2), "of 512 blocks, in two regions as block 0 is none"
    assert places.dynamic_pamt_bytes == 16 * (512 + 2) + (1 << 15) + 2 * 8192
    vm.close()
    assert host.places().dynamic_pamt_bytes / (1 << 30) == pytest.approx(0.00004, rel=0.05), "C22: about 0.004 % static"
    assert places.pamt_bytes / (1 << 30) == pytest.approx(0.004, rel=0.05), "C21: about 0.4 %"


@pytest.mark.parametrize("guest", GUESTS)
def test_every_kind_boots_and_leaves_nothing(guest: str) -> None:
    host = Host("256M")
    free = host.free_bytes
    with host.guest_memfd("64M", policy="thp", guest=guest) as vm:
        vm.access(0, "64M", accept="2M")
        vm.convert("1M", "64K", to="shared")
        vm.convert("1M", "64K", to="private")
        vm.access("1M", "64K", accept="4K")
        host.audit()
    assert host.free_bytes == free


def test_unknown_guest() -> None:
    with pytest.raises(UsageError, match=r"no such guests.*generic, plain, sw-protected, pkvm, snp, tdx"):
        Host("64M").guest_memfd("2M", guest="sev")


@pytest.mark.parametrize(("effort", "pages"), [("none", 1), ("light", 1), ("direct-once", 512)])
def test_effort_of_the_shared_side(effort: str, pages: int) -> None:
    """`vma_thp_gfp_mask`: every other page of the host is movable, none of 2M is free, and direct compaction makes one."""
    host = Host("64M")
    movable = host.background("58M", movable=True)
    movable.allocate()
    for page in range(0, 58 * 256, 2):
        movable.punch_hole(page * 4096, "4K")
    rest = host.background("4M", movable=False)
    rest.allocate()
    assert host.free_2m == 0
    guest = host.guest_memfd("2M", find("thp").with_choices({"shared": "thp", "effort": effort}))
    guest.convert(0, "2M", to="shared")
    guest.access(0, "4K", by="host")
    assert guest.usage().shared_side == pages * 4096
    host.audit()


def test_first_use_of_a_merged_page_clears_what_was_never_used() -> None:
    """A 1G page was split for a shared page, used in part, and merged: the next use clears what was never used (G27)."""
    host = Host("3G")
    host.grow_pool("1G", 1)
    guest = host.guest_memfd("1G", "hugetlb-1g")
    guest.allocate()
    guest.convert(0, "4K", to="shared")
    guest.access("20K", "4K", by="guest")
    guest.convert(0, "4K", to="private")
    assert {extent.folio for extent in guest.layout()} == {1 << 30}
    guest.access("20K", "4K", by="guest")
    cleared = {name: sum(host.operations()[name].values()) for name in ("clear-4k", "clear-2m")}
    assert cleared == {"clear-4k": 512, "clear-2m": 511}
    host.audit()
