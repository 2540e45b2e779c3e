"""khugepaged and kcompactd through the object API: three lines that a user types."""

import pytest

from gmemlab.core import layout
from gmemlab.errors import UsageError
from gmemlab.model.daemons import LONGEST_TICK, DaemonSettings
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host
from gmemlab.presets import find

MIB = 1 << 20


def folios(memory: GuestMemory) -> set[int]:
    return {extent.folio for extent in memory.layout()}


def test_khugepaged_fills_the_holes_of_shmem() -> None:
    """16 MiB of which each 2 MiB lacks a page: eight a wake, ten seconds apart."""
    host = Host("64M")
    memory = host.memory("20M", "shmem-thp")
    memory.allocate()
    for offset in range(0, 20 * MIB, 2 * MIB):
        memory.punch_hole(offset, "4K")
    assert host.tick(9.999).scanned == 0
    work = host.tick(0.001)
    assert (work.scanned, work.collapsed, work.copied) == (8, 8, 8 * 511)
    rest = host.tick(3600)
    assert (rest.collapsed, rest.full_scans) == (2, 361 * 8 // 10)
    assert folios(memory) == {2 * MIB}
    assert memory.usage().charged == 20 * MIB
    assert memory.usage().stranded == 10 * 4096
    host.audit()


def test_settings_are_those_of_the_kernel() -> None:
    host = Host("64M")
    host.set_daemons(DaemonSettings(pages_to_scan=512, scan_sleep_millisecs=1000, max_ptes_none=0))
    memory = host.memory("4M", "anon-thp")
    memory.allocate()
    memory.punch_hole("2M", "4K")
    work = host.tick(2)
    assert (work.scanned, work.collapsed, work.holes) == (2, 0, 1)
    assert (work.held, work.no_memory, work.shared, work.copied) == (0, 0, 0, 0)
    for wrong in ({"max_ptes_none": 512}, {"pages_to_scan": 0}, {"scan_sleep_millisecs": 0}, {"compaction_proactiveness": 101}):
        with pytest.raises(UsageError, match=rf"^{next(iter(wrong))}: not a setting of the daemons"):
            DaemonSettings(**wrong)


def test_kcompactd_works_for_the_host() -> None:
    """Whatever the guests' policy: a fragmented host is compacted down to its low watermark, and no further."""
    host = Host("512M", fragmentation=0.95, seed=1)
    assert host.free_2m == 6
    guest = host.guest_memfd("4M", "4k")
    work = host.tick(120)
    assert (work.scanned, work.compacted > 0, work.moved > 0) == (0, True, True)
    free, huge = host.free_bytes, host.free_2m * 2 * MIB
    assert (free - huge) * 100 // free <= 80 < (free - huge + 2 * MIB) * 100 // free
    guest.close()
    host.audit()


def test_kcompactd_that_is_told_not_to_work_by_itself() -> None:
    """With a proactiveness of 0 it does what failed allocations ask for: a 2M page for guest_memfd, once."""
    host = Host("512M", fragmentation=0.95, seed=1)
    host.set_daemons(DaemonSettings(compaction_proactiveness=0))
    assert host.tick(3600).compacted == 0
    guest = host.guest_memfd("64M", "ladder")
    guest.allocate()
    assert host.free_2m == 0
    assert host.tick(1).compacted == 1
    assert host.free_2m == 1
    assert host.tick(3600).compacted == 0
    host.audit()


def test_kcompactd_moves_no_private_memory() -> None:
    """Of guests' only what `zone=movable` lets be moved (G54), which firmware copies (K16)."""
    for zone, moves in (("unmovable", False), ("movable", True)):
        host = Host("64M")
        guest = host.guest_memfd("60M", find("4k").with_choices({"zone": zone}))
        guest.allocate()
        for page in range(0, 60 * 256, 2):
            guest.punch_hole(page * 4096, "4K")
        work = host.tick(60)
        assert (work.compacted > 0, work.moved > 0) == (True, moves)
        assert host.state.tally[layout.TALLY_FIRMWARE_COPIES] == work.moved
        host.audit()


def test_private_memory_is_an_upper_bound() -> None:
    host = Host("64M")
    guest = host.guest_memfd("2M", "thp-migratable")
    guest.access(0, "2M")
    guest.convert("1M", "4K", to="shared")
    assert host.tick(10).shared == 1
    guest.convert("1M", "4K", to="private")
    assert host.tick(10).collapsed == 1
    assert folios(guest) == {2 * MIB}
    assert guest.policy.copies_private_memory


@pytest.mark.parametrize("seconds", [-1, "10s", LONGEST_TICK + 1, float("nan")])
def test_times_that_are_none(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"^seconds: not a time"):
        Host("64M").tick(seconds)
