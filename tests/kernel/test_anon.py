"""Anonymous memory with 2M folios on the running kernel: giving parts back, and who splits (L16, L17)."""

import errno
from pathlib import Path

import pytest

from gmemlab.errors import InvalidArgument, MemoryFault, TooBig
from gmemlab.kernel import abi
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.calls import madvise
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.observe.pages import folios, frames, page_flags
from gmemlab.kernel.observe.vmstat import read_vmstat
from gmemlab.kernel.settings import Settings
from gmemlab.protocol import Extent, GuestMemory, Usage
from live_world import LARGEST, refusal

HUGE = abi.PMD
PAGES = HUGE // PAGE
THP = "sys/kernel/mm/transparent_hugepage"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@pytest.fixture
def huge(settings: Settings, host: LiveHost) -> AnonymousMemory:
    """Two 2M folios, all pages written."""
    settings.set(f"{THP}/enabled", "always")
    memory = host.anonymous(2 * HUGE)
    memory.write(0, memory.size, b"a")
    if sizes(memory) != [PAGES, PAGES]:
        pytest.skip("two free huge pages")
    return memory


def sizes(memory: AnonymousMemory) -> list[int]:
    """Pages of the folio of each run that is mapped."""
    return [folio.size // PAGE for folio in folios(memory.address, memory.size)]


def test_it_is_guest_memory(host: LiveHost) -> None:
    guest: GuestMemory = host.anonymous("64K")
    for by in ("guest", "guest-shared", "host"):
        guest.access(PAGE, PAGE, by=by)
    guest.close()
    guest.close()


def test_small_pages(settings: Settings, host: LiveHost) -> None:
    settings.set(f"{THP}/enabled", "never")
    memory = host.anonymous(HUGE)
    memory.allocate(PAGE, 3 * PAGE)
    assert memory.usage() == Usage(HUGE, 3 * PAGE, 0, 0, 0, 0, 0, 0)
    memory.punch_hole(2 * PAGE, PAGE)
    assert memory.layout() == [
        Extent(0, PAGE, 0, False),
        Extent(PAGE, PAGE, PAGE, False),
        Extent(2 * PAGE, PAGE, 0, False),
        Extent(3 * PAGE, PAGE, PAGE, False),
        Extent(4 * PAGE, HUGE - 4 * PAGE, 0, False),
    ]


@pytest.mark.parametrize("size", [0, -1, PAGE - 1, PAGE + 1])
def test_bad_sizes(host: LiveHost, size: int) -> None:
    with pytest.raises(InvalidArgument):
        host.anonymous(size)


def test_other_memory_of_this_process_is_out_of_reach(host: LiveHost) -> None:
    memory = host.anonymous(16 * PAGE)
    memory.write(0, memory.size, b"m")
    for operation in (memory.allocate, memory.punch_hole, memory.free, memory.collapse):
        for offset, size in (
            (-PAGE, PAGE),
            (0, 0),
            (0, -PAGE),
            (0, 17 * PAGE),
            (16 * PAGE, PAGE),
            (1, PAGE),
            (0, 1),
            (1 << 46, PAGE),
        ):
            with pytest.raises(InvalidArgument):
                operation(offset, size)
        with pytest.raises(TooBig):
            operation(LARGEST, PAGE)
    with refusal(errno.EACCES, done=1):
        memory.access(15 * PAGE, 2 * PAGE)
    with pytest.raises(MemoryFault):
        memory.pin(15 * PAGE, 2 * PAGE)
    assert memory.tags() == b"\x6d" * 15 + b"\x01"


def test_progress_before_memory_ran_out(host: LiveHost, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = host.anonymous(16 * PAGE)

    def short(address: int, size: int, advice: int) -> None:
        madvise(address, 3 * PAGE, advice)
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr("gmemlab.kernel.anonymous.madvise", short)
    with refusal(errno.ENOMEM, done=3):
        memory.allocate(PAGE, 8 * PAGE)
    with refusal(errno.ENOMEM, done=0):
        memory.free(PAGE, 8 * PAGE)


# -- parts of folios (L16) ---------------------------------------------------------------------------------------------------


def test_a_part_that_is_given_back_stays_charged(huge: AnonymousMemory) -> None:
    head = frames(huge.address, PAGE)[0] or 0
    before = read_vmstat()
    huge.punch_hole(10 * PAGE, 100 * PAGE)
    grown = read_vmstat().difference(before)
    assert (grown["thp_deferred_split_page"], grown["thp_split_page"]) == (1, 0)
    assert sizes(huge) == [PAGES, PAGES, PAGES]  # two runs of the first one, then the second
    assert huge.usage() == Usage(2 * HUGE, 2 * HUGE, 0, 0, 0, 0, 100 * PAGE, 0)
    huge.punch_hole(0, 10 * PAGE)
    huge.punch_hole(110 * PAGE, 401 * PAGE)
    assert huge.usage().charged == 2 * HUGE and huge.usage().stranded == 511 * PAGE
    assert "THP" in page_flags(head)[0]
    huge.punch_hole(511 * PAGE, PAGE)
    assert huge.usage() == Usage(2 * HUGE, HUGE, 0, 0, 0, 0, 0, 0)
    assert huge.tags() == bytes(PAGES) + b"a" * PAGES


def test_reclaim_splits_and_frees(huge: AnonymousMemory) -> None:
    huge.punch_hole(0, 256 * PAGE)
    before = read_vmstat()
    DROP_CACHES.write_text("2")
    assert read_vmstat().difference(before)["thp_split_page"] >= 1
    assert huge.usage() == Usage(2 * HUGE, HUGE + 256 * PAGE, 0, 0, 0, 0, 0, 0)
    assert sizes(huge) == [1] * 256 + [PAGES]
    assert huge.tags() == bytes(256) + b"a" * (256 + PAGES)


def test_a_whole_folio_goes_at_once(huge: AnonymousMemory) -> None:
    before = read_vmstat()
    huge.punch_hole(HUGE, HUGE)
    grown = read_vmstat().difference(before)
    assert grown["thp_deferred_split_page"] == grown["thp_split_page"] == 0
    assert huge.layout() == [Extent(0, HUGE, HUGE, False), Extent(HUGE, HUGE, 0, False)]


def test_free_splits_at_once(huge: AnonymousMemory) -> None:
    before = read_vmstat()
    huge.free(PAGE, PAGE)
    assert read_vmstat().difference(before)["thp_split_page"] == 1
    assert sizes(huge) == [1] * PAGES + [PAGES]


def test_a_pinned_folio_is_not_split(huge: AnonymousMemory) -> None:
    huge.pin(0, PAGE)
    huge.punch_hole(0, 256 * PAGE)
    DROP_CACHES.write_text("2")
    assert huge.usage().charged == 2 * HUGE
    huge.unpin(0, PAGE)
    DROP_CACHES.write_text("2")
    assert huge.usage().charged == HUGE + 256 * PAGE


def test_collapse(settings: Settings, host: LiveHost) -> None:
    settings.set(f"{THP}/enabled", "never")
    memory = host.anonymous(2 * HUGE)
    memory.write(0, 100 * PAGE, b"c")
    settings.set(f"{THP}/enabled", "madvise")
    memory.collapse(0, HUGE)
    assert sizes(memory) == [PAGES]
    assert memory.tags() == b"c" * 100 + bytes(2 * PAGES - 100)
    with pytest.raises(InvalidArgument):
        memory.collapse(HUGE, HUGE)


# -- huge pages that hold zeros (L17) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "split"), [(511, 0), (400, 1)])
def test_the_shrinker_of_underused_folios(settings: Settings, host: LiveHost, most: int, split: int) -> None:
    names = f"{THP}/shrink_underused", f"{THP}/khugepaged/max_ptes_none", f"{THP}/khugepaged/scan_sleep_millisecs"
    if not (Path("/") / names[0]).exists():
        pytest.skip(f"/{names[0]}")
    before_test = [settings.get(name) for name in names[:2]]
    settings.set(f"{THP}/enabled", "always")
    settings.set(names[1], most)
    settings.set(names[0], 1)
    try:
        memory = host.anonymous(HUGE)
        memory.write(0, 2 * PAGE, b"h")
        if sizes(memory) != [PAGES]:
            pytest.skip("a free huge page")
        before = read_vmstat()
        DROP_CACHES.write_text("2")
        assert (read_vmstat().difference(before)["thp_underused_split_page"] >= 1) is bool(split)
        assert memory.usage().charged == (2 * PAGE if split else HUGE)
    finally:
        for name, value in zip(names[:2], before_test, strict=True):
            settings.set(name, value)
