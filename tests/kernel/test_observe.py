"""The observers of the live kernel, on memory whose state is known."""

import errno
import mmap
import os
import random
from pathlib import Path

import pytest

from gmemlab.errors import NotSupported, OperationError, OutOfMemory, UnsupportedError, UsageError
from gmemlab.kernel.observe import PAGE, cache, pages
from gmemlab.kernel.observe.cache import count_present, pages_present, pages_uptodate
from gmemlab.kernel.observe.pages import Folio, folios, frames, frames_of_file, map_counts, page_flags
from gmemlab.kernel.observe.pools import NodePool, read_pool
from gmemlab.kernel.observe.thp_stats import read_thp_stats, thp_sizes
from gmemlab.kernel.observe.vmstat import Counters, read_vmstat, refresh
from gmemlab.kernel.settings import Settings
from gmemlab.units import KIB, MIB
from raw_memory import ALLOCATE, MAPPABLE, PUNCH, fallocate, guest_memfd, mapped, shmem

HUGE = 2 * MIB
SHMEM_ENABLED = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
LIVE = Path("/")
PATIENCE = 120.0
MFD_HUGETLB = 4

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root")
needs_thp = pytest.mark.skipif(not (LIVE / SHMEM_ENABLED).exists(), reason="transparent huge pages in shmem")
needs_pool = pytest.mark.skipif(not (LIVE / POOL).exists(), reason="hugetlb pool of 2 MiB")


# -- cachestat, mincore --------------------------------------------------------------------------------------------------


def test_a_file_that_changes_under_the_look_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts some pages more or fewer than a moment before: their sum need not be what the whole was."""
    told = iter([6, 0, *[8] * 7])  # eight pages, of which six were there; then none of the first half, so six of four; then all
    monkeypatch.setattr(cache, "count_present", lambda fd, offset, size: next(told))
    assert pages_present(-1, 0, 8 * PAGE) == [True] * 8


def test_a_file_that_never_stands_still_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "count_present", lambda fd, offset, size: 5)
    with pytest.raises(OperationError, match="32768 bytes at 0, whose pages come and go") as told:
        pages_present(-1, 0, 8 * PAGE)
    assert told.value.errno == errno.EBUSY


@pytest.mark.parametrize("flags", [0, 1, MAPPABLE])
def test_pages_of_a_guest_memfd(flags: int) -> None:
    chooser = random.Random(flags)
    expected = [False] * 1024
    with guest_memfd(1024 * PAGE, flags) as file:
        for _ in range(60):
            first = chooser.randrange(1024)
            length = chooser.randint(1, min(1024 - first, 64))
            there = chooser.random() < 0.5
            fallocate(file, ALLOCATE if there else PUNCH, first * PAGE, length * PAGE)
            expected[first : first + length] = [there] * length
            assert pages_present(file, 0, 1024 * PAGE) == expected
            assert count_present(file, first * PAGE, length * PAGE) == (length if there else 0)
        assert pages_present(file, 100 * PAGE, 333 * PAGE) == expected[100:433]
        assert count_present(file, 100 * PAGE, 333 * PAGE) == sum(expected[100:433])


def test_whole_files_take_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(fd: int, offset: int, size: int) -> int:
        calls.append(size)
        return count_present(fd, offset, size)

    monkeypatch.setattr(cache, "count_present", counted)
    with shmem(64 * MIB) as file:
        assert not any(pages_present(file, 0, 64 * MIB))
        assert len(calls) == 1
        fallocate(file, 0, 0, 64 * MIB)
        assert all(pages_present(file, 0, 64 * MIB))
        assert len(calls) == 2
        fallocate(file, PUNCH, 32 * MIB, PAGE)
        present = pages_present(file, 0, 64 * MIB)
        assert [index for index, there in enumerate(present) if not there] == [32 * MIB // PAGE]
        assert len(calls) == 2 + 1 + 14  # one for each halving of 2^14 pages


def test_empty_range() -> None:
    with shmem(PAGE) as file:
        fallocate(file, 0, 0, PAGE)
        assert count_present(file, 0, 0) == 0
        assert pages_present(file, 0, 0) == []


def test_what_cachestat_refuses() -> None:
    with pytest.raises(OperationError, match="EBADF"):
        count_present(-1, 0, PAGE)


@needs_pool
def test_hugetlb_has_no_cachestat() -> None:
    file = os.memfd_create("gmemlab-test", MFD_HUGETLB)
    try:
        os.ftruncate(file, HUGE)
        with pytest.raises(NotSupported, match=f"cachestat of {HUGE} bytes at 0"):
            pages_present(file, 0, HUGE)
    finally:
        os.close(file)


def test_allocated_pages_are_not_up_to_date_before_they_are_touched() -> None:
    with guest_memfd(16 * PAGE, MAPPABLE) as file, mapped(file, 16 * PAGE) as (memory, address):
        fallocate(file, ALLOCATE, 0, 8 * PAGE)
        assert pages_uptodate(address, 16 * PAGE) == [False] * 16
        memory[2 * PAGE] = 1
        memory[9 * PAGE] = 1  # allocated by the fault
        assert [page for page, good in enumerate(pages_uptodate(address, 16 * PAGE)) if good] == [2, 9]
        assert count_present(file, 0, 16 * PAGE) == 9


def test_mincore_of_nothing() -> None:
    with pytest.raises(OutOfMemory, match="mincore"):
        pages_uptodate(PAGE, PAGE)


# -- frames and folios ---------------------------------------------------------------------------------------------------


@needs_root
def test_frames_of_a_guest_memfd() -> None:
    with guest_memfd(64 * PAGE, MAPPABLE) as file, mapped(file, 64 * PAGE) as (memory, address):
        touched = [0, 1, 2, 7, 40, 63]
        for page in touched:
            memory[page * PAGE] = 1
        found = folios(address, 64 * PAGE)
        assert [(folio.offset // PAGE, folio.size, folio.first, folio.pages) for folio in found] == [
            (page, PAGE, 0, 1) for page in touched
        ]
        numbers = frames(address, 64 * PAGE)
        assert [page for page, pfn in enumerate(numbers) if pfn is not None] == touched
        assert [folio.pfn for folio in found] == [numbers[page] for page in touched]
        assert len(set(numbers)) == 7
        assert frames_of_file(file, [40 * PAGE, 0, 64 * PAGE]) == [numbers[40], numbers[0], None]
        (flags,) = page_flags(found[0].pfn)
        assert {"UPTODATE", "MMAP"} <= flags
        assert not {"COMPOUND_HEAD", "BUDDY", "ANON"} & flags
        with mapped(file, 64 * PAGE) as (second, _):
            assert map_counts(found[0].pfn) == [1]
            assert second[0] == 1
            assert map_counts(found[0].pfn) == [2]


@needs_root
@needs_thp
def test_folios_that_a_split_leaves() -> None:
    with Settings(patience=PATIENCE) as settings, shmem(2 * HUGE) as file, mapped(file, 2 * HUGE) as (memory, address):
        settings.set(SHMEM_ENABLED, "always")
        settings.set("sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", 3_600_000)
        before = read_vmstat(), read_thp_stats(HUGE)
        fallocate(file, 0, 0, 2 * HUGE)
        _touch(memory)
        whole = folios(address, 2 * HUGE)
        if [folio.size for folio in whole] != [HUGE, HUGE]:
            pytest.skip("two free huge pages")
        assert [(folio.offset, folio.first, folio.pages) for folio in whole] == [(0, 0, 512), (HUGE, 0, 512)]
        assert [folio.pfn % 512 for folio in whole] == [0, 0]
        assert {"COMPOUND_HEAD", "THP"} <= page_flags(whole[0].pfn)[0]
        assert "COMPOUND_TAIL" in page_flags(whole[0].pfn, 512)[511]
        fallocate(file, PUNCH, 100 * PAGE, 3 * PAGE)
        _touch(memory, but=range(100, 103))
        found = folios(address, HUGE)
        assert [folio.size // PAGE for folio in found] == [64, 32, 4, 1, 8, 16, 128, 256]  # (L13)
        assert [folio.offset // PAGE for folio in found] == [0, 64, 96, 103, 104, 112, 128, 256]
        assert all(folio.pfn - whole[0].pfn == folio.offset // PAGE and folio.first == 0 for folio in found)
        assert folios(address + 70 * PAGE, 40 * PAGE)[0] == Folio(0, 32 * PAGE, whole[0].pfn + 70, 6, 26)
        assert read_vmstat().difference(before[0])["thp_split_page"] >= 1
        changes = read_thp_stats(HUGE).difference(before[1])
        assert changes["split"] >= 1
        assert changes["shmem_alloc"] >= 2


@needs_root
@needs_pool
def test_folios_of_a_hugetlb_page() -> None:
    with Settings(patience=PATIENCE) as settings:
        had = read_pool(HUGE)
        wanted = had.whole.total + 2
        if settings.set(POOL, wanted) != str(wanted):
            pytest.skip("two free huge pages")
        file = os.memfd_create("gmemlab-test", MFD_HUGETLB)
        try:
            os.ftruncate(file, HUGE)
            with mapped(file, HUGE) as (memory, address):
                memory[5 * PAGE] = 1
                (folio,) = folios(address, HUGE)
                assert (folio.offset, folio.size, folio.first, folio.pages) == (0, HUGE, 0, 512)
                assert "HUGE" in page_flags(folio.pfn)[0]
                has = read_pool(HUGE)
                assert (has.whole.total, has.whole.free) == (had.whole.total + 2, had.whole.free + 1)
                assert has.whole.total == sum(node.total for node in has.nodes.values())
                assert has.whole.free == sum(node.free for node in has.nodes.values())
        finally:
            os.close(file)


@needs_root
def test_a_range_that_maps_nothing() -> None:
    with mmap.mmap(-1, 4 * PAGE, mmap.MAP_SHARED) as memory:
        assert memory is not None
        assert folios(PAGE, 4 * PAGE) == []
        assert frames(PAGE, PAGE) == [None]


@needs_root
def test_unknown_flags_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kpageflags"
    file.write_bytes((1 << 3 | 1 << 30 | 1 << 63).to_bytes(8, "little"))
    monkeypatch.setattr(pages, "KPAGEFLAGS", str(file))
    assert page_flags(0, 5) == [frozenset({"UPTODATE", "bit 30", "bit 63"})]


def test_users_without_rights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pagemap"
    file.write_bytes((1 << 63).to_bytes(8, "little") * 4)  # present, the frame number blanked out
    monkeypatch.setattr(pages, "PAGEMAP", str(file))
    with pytest.raises(UnsupportedError, match="needs root"):
        frames(0, 4 * PAGE)
    monkeypatch.setattr(pages, "KPAGEFLAGS", str(tmp_path / "absent"))
    with pytest.raises(UnsupportedError, match="absent: cannot be opened"):
        page_flags(0)


# -- counters ------------------------------------------------------------------------------------------------------------


def test_difference_of_counters() -> None:
    changes = Counters({"a": 5, "b": 2, "new": 1}).difference(Counters({"a": 3, "b": 4, "old": 9}))
    assert dict(changes) == {"a": 2, "b": -2}


@needs_root
def test_vmstat_of_this_machine() -> None:
    with guest_memfd(64 * MIB) as file:
        refresh()
        before = read_vmstat()
        fallocate(file, ALLOCATE, 0, 64 * MIB)
        refresh()
        changes = read_vmstat().difference(before)
        events = sum(count for name, count in changes.items() if name.startswith("pgalloc_"))
        assert events >= 16384
        assert changes["nr_file_pages"] >= 16384 - 2048  # others use the machine as well
        assert changes["nr_unevictable"] >= 16384 - 2048  # (L8)


def test_vmstat_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 12\nnr_dirty -3\nnonsense\n")
    with pytest.raises(UsageError, match="/proc/vmstat:3: unexpected line"):
        read_vmstat(tmp_path)
    (tmp_path / "proc/vmstat").unlink()
    with pytest.raises(UnsupportedError, match="/proc/vmstat"):
        read_vmstat(tmp_path)


def test_thp_statistics(tmp_path: Path) -> None:
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    for size in (2048, 64):
        (folder / f"hugepages-{size}kB/stats").mkdir(parents=True)
    (folder / "hugepages-32kB").mkdir()
    (folder / "hugepages-64kB/stats/split").write_text("7\n")
    assert thp_sizes(tmp_path) == (64 * KIB, 2 * MIB)
    assert dict(read_thp_stats(64 * KIB, tmp_path)) == {"split": 7}
    with pytest.raises(UnsupportedError, match="hugepages-32kB/stats: this kernel lacks it"):
        read_thp_stats(32 * KIB, tmp_path)
    (folder / "hugepages-64kB/stats/split").write_text("many\n")
    with pytest.raises(UsageError, match="not a number"):
        read_thp_stats(64 * KIB, tmp_path)


def test_pools_by_node(tmp_path: Path) -> None:
    places = {"sys/kernel/mm/hugepages": (6, 3, 1), **{f"sys/devices/system/node/node{n}/hugepages": (3, n, 0) for n in (0, 1)}}
    for place, counts in places.items():
        folder = tmp_path / place / "hugepages-2048kB"
        folder.mkdir(parents=True)
        for name, count in zip(("nr_hugepages", "free_hugepages", "surplus_hugepages"), counts, strict=True):
            (folder / name).write_text(f"{count}\n")
    folder = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    (folder / "resv_hugepages").write_text("2\n")
    (folder / "nr_overcommit_hugepages").write_text("8\n")
    pool = read_pool(HUGE, tmp_path)
    assert (pool.whole.total, pool.whole.free, pool.whole.reserved, pool.whole.surplus, pool.overcommit) == (6, 3, 2, 1, 8)
    assert pool.nodes == {0: NodePool(3, 0, 0), 1: NodePool(3, 1, 0)}
    with pytest.raises(UnsupportedError, match="hugepages-1048576kB: this kernel lacks it"):
        read_pool(1 << 30, tmp_path)


def _touch(memory: mmap.mmap, *, but: range = range(0)) -> None:
    for page in range(len(memory) // PAGE):
        if page not in but:
            assert memory[page * PAGE] == 0
