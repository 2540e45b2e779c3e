"""shmem with 2M folios on the running kernel: who gets them, what punches leave of them, pins, collapse (L12 to L15)."""

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gmemlab.errors import InvalidArgument, TooBig
from gmemlab.kernel import abi
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.calls import madvise
from gmemlab.kernel.files import ShmemMemory
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.observe.pages import folios, frames
from gmemlab.kernel.observe.thp_stats import read_thp_stats
from gmemlab.kernel.observe.vmstat import Counters, read_vmstat
from gmemlab.kernel.settings import Settings
from gmemlab.protocol import Extent, GuestMemory, Usage
from gmemlab.units import KIB, MIB
from live_world import LARGEST, refusal

HUGE = abi.PMD
PAGES = HUGE // PAGE
TAIL = 8
THP = "sys/kernel/mm/transparent_hugepage"
ENABLED = f"{THP}/shmem_enabled"


@pytest.fixture
def huge(settings: Settings, host: LiveHost) -> ShmemMemory:
    """Two 2M folios, all pages written."""
    settings.set(ENABLED, "within_size")
    memory = host.shmem(2 * HUGE)
    memory.allocate()
    if folios_of(memory) != [(0, PAGES), (PAGES, PAGES)]:
        pytest.skip("two free huge pages")
    memory.write(0, memory.size, b"s")
    return memory


def folios_of(memory: ShmemMemory) -> list[tuple[int, int]]:
    """First page and number of pages of each folio."""
    memory.map_present()
    return [(folio.offset // PAGE - folio.first, folio.size // PAGE) for folio in folios(memory.address, memory.size)]


@contextmanager
def splits(count: int, failed: int = 0) -> Iterator[None]:
    """Expect so many splits of huge folios, and attempts that failed."""
    before = _split_counters()
    yield
    assert dict(_split_counters().difference(before)) == {"thp_split_page": count, "failed": failed}


def _split_counters() -> Counters:
    counters = read_vmstat()
    return Counters({"thp_split_page": counters["thp_split_page"], "failed": counters["thp_split_page_failed"]})


def split_around(first: int, order: int, page: int) -> list[tuple[int, int]]:
    """What halving a folio around a page leaves: (first page, order), ascending (L13)."""
    if order == 0:
        return [(first, 0)]
    half = 1 << (order - 1)
    left, right = (first, order - 1), (first + half, order - 1)
    if page < first + half:
        return [*split_around(*left, page), right]
    return [left, *split_around(*right, page)]


def after_punch(begin: int, end: int) -> list[tuple[int, int]]:
    """Folios of one 2M after a punch of pages [begin, end), as (first page, pages)."""
    pieces = split_around(0, 9, begin)
    if end < PAGES:
        home = next(piece for piece in pieces if piece[0] <= end < piece[0] + (1 << piece[1]))
        pieces[pieces.index(home) : pieces.index(home) + 1] = split_around(*home, end)
    return [(first, 1 << order) for first, order in pieces if not begin <= first < end]


# -- who gets huge folios (L12) ----------------------------------------------------------------------------------------------


def test_it_is_guest_memory(host: LiveHost) -> None:
    guest: GuestMemory = host.shmem("1M")
    guest.allocate("4K", "8K")
    for by in ("guest", "guest-shared", "host"):
        guest.access(0, "4K", by=by)
    assert guest.usage().charged == 3 * PAGE
    with refusal(errno.EOPNOTSUPP):
        guest.convert(0, PAGE, "shared")


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE + 1])
def test_bad_sizes(host: LiveHost, size: int) -> None:
    with pytest.raises(InvalidArgument):
        host.shmem(size)


@pytest.mark.parametrize(
    ("choice", "whole", "tail"),
    [
        ("never", 1, 1),
        ("advise", 1, 1),
        ("within_size", PAGES, TAIL),  # since 6.14, the largest folio that fits
        ("always", PAGES, PAGES),
        ("force", PAGES, PAGES),
    ],
)
@pytest.mark.parametrize("how", ["allocate", "write"])
def test_settings(settings: Settings, host: LiveHost, choice: str, whole: int, tail: int, how: str) -> None:
    settings.set(ENABLED, choice)
    memory = host.shmem(HUGE + TAIL * PAGE)
    if how == "allocate":
        memory.allocate(0, PAGE)
        memory.allocate(HUGE, PAGE)
    else:
        for offset in (0, HUGE):  # write(2): a fault would ask for advice too
            os.pwrite(memory.fd, b"w", offset)
    assert memory.usage() == Usage(memory.size, (whole + tail) * PAGE, 0, 0, 0, 0, 0, 0)
    assert memory.layout()[0].folio == whole * PAGE
    memory.punch_hole(HUGE, PAGE)
    assert memory.usage().stranded == 0


def test_advice_needs_a_fault(settings: Settings, host: LiveHost) -> None:
    settings.set(ENABLED, "advise")
    memory = host.shmem(2 * HUGE)
    madvise(memory.address, memory.size, abi.MADV_HUGEPAGE)
    memory.allocate(0, PAGE)
    assert memory.usage().charged == PAGE
    memory.access(HUGE, PAGE)
    assert memory.usage().charged == PAGE + HUGE


def test_smaller_sizes_are_for_faults(settings: Settings, host: LiveHost) -> None:
    name = f"{THP}/hugepages-64kB/shmem_enabled"
    if not (Path("/") / name).exists():
        pytest.skip("folios of 64K in shmem")
    settings.set(ENABLED, "never")
    settings.set(name, "always")
    try:
        memory = host.shmem(HUGE)
        memory.allocate(0, PAGE)
        assert memory.usage().charged == PAGE
        memory.access(128 * KIB, PAGE)
        assert memory.layout() == [
            Extent(0, PAGE, PAGE, False),
            Extent(PAGE, 128 * KIB - PAGE, 0, False),
            Extent(128 * KIB, 64 * KIB, 64 * KIB, False),
            Extent(192 * KIB, HUGE - 192 * KIB, 0, False),
        ]
    finally:
        settings.set(name, "never")


# -- fallocate ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [1, 3])
def test_bad_ranges(host: LiveHost, mode: int) -> None:
    memory = host.shmem(HUGE)
    for offset, size in ((-PAGE, PAGE), (0, 0), (0, -1), (-1, 1)):
        with refusal(errno.EINVAL, done=0):
            memory.fallocate(mode, offset, size)
    for offset, size in ((LARGEST, 1), (1 << 62, 1 << 62)):
        with pytest.raises(TooBig):
            memory.fallocate(mode, offset, size)
    assert memory.usage().charged == 0


def test_allocation_of_bytes_rounds_outward(settings: Settings, host: LiveHost) -> None:
    settings.set(ENABLED, "never")
    memory = host.shmem(16 * PAGE)
    memory.allocate(PAGE - 1, 2)
    assert memory.usage().charged == 2 * PAGE
    memory.write(0, 4 * PAGE, b"b")
    memory.punch_hole(1, 3 * PAGE)  # the pages at its ends are zeroed in part
    assert memory.usage().charged == 2 * PAGE
    assert memory.tags()[:5] == b"b\0\0\0\0"


# -- partial punches (L13) ---------------------------------------------------------------------------------------------------


def test_punch_of_the_first_page(huge: ShmemMemory) -> None:
    with splits(1):
        huge.punch_hole(0, PAGE)
    assert folios_of(huge) == [*((1 << order, 1 << order) for order in range(9)), (PAGES, PAGES)]
    assert huge.tags() == b"\0" + b"s" * (2 * PAGES - 1)
    assert huge.usage() == Usage(huge.size, huge.size - PAGE, 0, 0, 0, 0, 0, 0)


def test_punch_in_the_middle(huge: ShmemMemory) -> None:
    before = frames(huge.address, HUGE)
    with splits(1):
        huge.punch_hole(100 * PAGE, 3 * PAGE)
    assert [pages for first, pages in folios_of(huge)[:-1]] == [64, 32, 4, 1, 8, 16, 128, 256]
    assert folios_of(huge)[:-1] == after_punch(100, 103)
    assert [extent.folio // PAGE for extent in huge.layout()] == [64, 32, 4, 0, 1, 8, 16, 128, 256, 512]
    after = frames(huge.address, HUGE)
    assert after == [*before[:100], None, None, None, *before[103:]]
    with splits(0):
        huge.punch_hole(64 * PAGE, 8 * PAGE)  # splits a folio of 32 pages, which is not counted
    assert folios_of(huge)[:7] == [(0, 64), (72, 1), (73, 1), (74, 2), (76, 4), (80, 16), (96, 4)]


def test_random_punches(settings: Settings, huge: ShmemMemory) -> None:
    chooser = random.Random(13)
    for _ in range(60):
        huge.punch_hole(0, HUGE)
        huge.write(0, HUGE, b"r")
        begin = chooser.randrange(PAGES)
        end = chooser.randint(begin + 1, PAGES)
        whole = (begin, end) == (0, PAGES)
        with splits(0 if whole else 1):
            huge.punch_hole(begin * PAGE, (end - begin) * PAGE)
        assert [folio for folio in folios_of(huge) if folio[0] < PAGES] == ([] if whole else after_punch(begin, end))
        assert huge.tags()[:PAGES] == b"r" * begin + bytes(end - begin) + b"r" * (PAGES - end)


def test_punch_of_whole_folios(huge: ShmemMemory) -> None:
    with splits(0):
        huge.punch_hole(HUGE, HUGE)
    assert huge.layout() == [Extent(0, HUGE, HUGE, False), Extent(HUGE, HUGE, 0, False)]
    with splits(0):
        huge.punch_hole(0, 8 * HUGE)
    assert huge.usage().charged == 0


def test_punch_across_two_folios(huge: ShmemMemory) -> None:
    with splits(2):
        huge.punch_hole(HUGE - PAGE, 2 * PAGE)
    assert folios_of(huge) == [*after_punch(511, 512), *((PAGES + (1 << order), 1 << order) for order in range(9))]


# -- pins (L14) --------------------------------------------------------------------------------------------------------------


def test_a_pin_keeps_a_folio_whole(huge: ShmemMemory) -> None:
    huge.pin(7 * PAGE, PAGE)
    failed = read_thp_stats(HUGE)["split_failed"]
    for attempt in range(1, 4):
        with splits(0, failed=1):
            huge.punch_hole(300 * PAGE, 2 * PAGE)
        assert read_thp_stats(HUGE)["split_failed"] == failed + attempt
    assert folios_of(huge) == [(0, PAGES), (PAGES, PAGES)]
    assert huge.tags()[299:303] == b"s\0\0s"
    assert huge.usage() == Usage(huge.size, huge.size, 0, 0, 0, 0, 2 * PAGE, 0)
    for first in range(0, PAGES, 64):
        huge.punch_hole(first * PAGE, 64 * PAGE)
    assert huge.usage().stranded == HUGE and huge.usage().charged == 2 * HUGE
    assert huge.tags()[:PAGES] == bytes(PAGES)
    huge.unpin(7 * PAGE, PAGE)
    assert huge.usage().charged == 2 * HUGE  # nothing is freed by that
    with splits(1):
        huge.punch_hole(5 * PAGE, PAGE)
    assert huge.usage().charged == 2 * HUGE - PAGE
    huge.write(0, 2 * PAGE, b"u")
    assert huge.usage().stranded == HUGE - 3 * PAGE


def test_unpinning_lets_go_at_once(huge: ShmemMemory) -> None:
    """The pin must be gone when `unpin` returns: a split right after it succeeds, every time."""
    for _ in range(100):
        huge.punch_hole(0, HUGE)
        huge.write(0, HUGE, b"u")
        huge.pin(0, 3 * PAGE)
        huge.pin(0, 3 * PAGE)
        with splits(0, failed=1):
            huge.punch_hole(400 * PAGE, PAGE)
        huge.unpin(0, 3 * PAGE)
        with splits(0, failed=1):
            huge.punch_hole(400 * PAGE, PAGE)
        huge.unpin(0, 3 * PAGE)
        with splits(1):
            huge.punch_hole(400 * PAGE, PAGE)


def test_a_punch_of_exactly_the_folio_orphans_it(huge: ShmemMemory) -> None:
    frame = frames(huge.address, PAGE)[0]
    huge.pin(0, PAGE)
    with splits(0):
        huge.punch_hole(0, HUGE)
    assert huge.usage().charged == HUGE and huge.usage().stranded == 0
    huge.write(0, PAGE, b"o")
    assert frames(huge.address, PAGE)[0] != frame
    huge.unpin(0, PAGE)


# -- collapse (L15) ----------------------------------------------------------------------------------------------------------


def test_collapse_fills_holes_with_zeros(huge: ShmemMemory) -> None:
    huge.punch_hole(100 * PAGE, 3 * PAGE)
    assert huge.usage().charged == 2 * HUGE - 3 * PAGE
    huge.collapse(0, HUGE)
    assert huge.usage().charged == 2 * HUGE
    assert folios_of(huge) == [(0, PAGES), (PAGES, PAGES)]
    assert huge.tags() == b"s" * 100 + b"\0\0\0" + b"s" * (2 * PAGES - 103)


def test_collapse_that_is_refused(huge: ShmemMemory) -> None:
    huge.punch_hole(0, PAGE)
    huge.pin(PAGE, PAGE)
    with refusal(errno.EAGAIN):
        huge.collapse(0, HUGE)
    huge.unpin(PAGE, PAGE)
    huge.collapse(0, HUGE)
    huge.punch_hole(0, HUGE)
    with pytest.raises(InvalidArgument):
        huge.collapse(0, HUGE)
    assert huge.usage().charged == HUGE
    for offset, size in ((-HUGE, HUGE), (0, 0), (1, HUGE)):
        with pytest.raises(InvalidArgument):
            huge.collapse(offset, size)


def test_sizes_are_those_of_the_file(settings: Settings, host: LiveHost) -> None:
    memory = host.shmem("3M")
    assert memory.size == 3 * MIB and memory.address % HUGE == 0
    with pytest.raises(InvalidArgument):
        host.shmem(3 * MIB + 1)
