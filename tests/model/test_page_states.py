"""Hazards and marks of page states, by known answers."""

import pytest

from gmemlab.errors import TryAgain
from gmemlab.model.guests import hazards_in
from gmemlab.model.host import Host
from gmemlab.presets import find

OLD_KERNEL = find("thp").with_choices({"truncation": "zeroes"})


@pytest.mark.parametrize(("guest", "writes"), [("snp", 3), ("tdx", 0), ("plain", 0)])
def test_truncation_writes_to_frames_that_the_rmp_still_gives_to_the_guest(guest: str, writes: int) -> None:
    """T9: the VMM punches what has become shared; the RMP has the frames until they are freed."""
    host = Host("64M")
    memory = host.guest_memfd("8M", OLD_KERNEL, guest=guest)
    memory.access("2M", "2M", accept="2M")
    memory.convert("2M", "12K", to="shared")
    assert host.operations()["host-write"]["boot"] == writes
    assert hazards_in(host.state)["host-write"] == ({"conversion to shared": writes} if writes else {})
    host.audit()


def test_hazards_are_laid_to_what_led_there() -> None:
    """A touch without an accept; a held folio's punch; the punch on a conversion, of a clean folio."""
    host = Host("64M")
    memory = host.guest_memfd("8M", "thp", guest="snp")
    memory.access("2M", "8K")
    memory.reference("3M", "4K")
    memory.punch_hole("2M", "4K")
    memory.allocate("4M", "2M")
    memory.reference("4M", "4K")
    memory.convert("4100K", "4K", to="shared")
    assert hazards_in(host.state) == {
        "host-write": {},
        "unaccepted": {"access by the guest": 2},
        "stale": {"punch by the VMM": 1},
        "lost": {"conversion to shared": 511},
    }


def test_what_was_never_assigned_is_the_hosts_to_write() -> None:
    """Allocated, not touched: no fault, as the RMP knows nothing of it."""
    host = Host("64M")
    memory = host.guest_memfd("8M", OLD_KERNEL, guest="snp")
    memory.allocate("2M", "2M")
    memory.punch_hole("2M", "4K")
    assert host.operations()["host-write"]["boot"] == 0


def test_what_the_vmm_maps() -> None:
    """G45: of a range that is converted nothing stays mapped, whether the conversion works or not."""
    host = Host("64M")
    memory = host.guest_memfd("8M", "thp-inplace", guest="snp")
    memory.convert("2M", "64K", to="shared")
    memory.access("2M", "16K", by="host")
    memory.access("2056K", "4K", by="guest-shared")
    memory.pin("2080K", "4K")
    assert memory.host_mapped() == [(2 << 20, 16 << 10), (2080 << 10, 4 << 10)]
    with pytest.raises(TryAgain):
        memory.convert("2M", "64K", to="private")
    assert memory.host_mapped() == []
    assert host.operations()["host-unmap"]["boot"] == 5
    memory.unpin("2080K", "4K")
    memory.convert("2M", "64K", to="private")
    host.audit()


def test_an_accept_of_4k_forbids_2m_as_long_as_the_guest_lives_or_only_once() -> None:
    """Of 2M of which all 4K entries were taken away again; in one that keeps any, nothing is promoted either way (K6)."""
    for mark, mapped in (("one-way", 0), ("none", 2 << 20)):
        host = Host("64M")
        memory = host.guest_memfd("8M", find("thp-strict-zero").with_choices({"accept_mark": mark}), guest="tdx")
        memory.access("2M", "4K", accept="4K")
        memory.convert("2M", "4K", to="shared")
        memory.convert("2M", "4K", to="private")
        memory.access("2M", "2M", accept="2M")
        assert memory.usage().mapped_2m == mapped
        host.audit()
