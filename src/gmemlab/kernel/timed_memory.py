"""What operations on guest memory cost on the running kernel, by kind of memory and page size.

Every operation is timed once in each round, all of them in turn, so that what else the machine does falls on all alike. A
first round is thrown away. Memory that the host below has not backed yet costs milliseconds per 2M at its first touch
(live-kernel.md, section 0), and a host that is told of free pages takes them back within seconds: so pages are touched once
right before their faults are timed, and freed as they were allocated, which makes the allocator hand them out again (L21).
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import abi
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.calls import madvise, syscall
from gmemlab.kernel.features import probe_kvm, read_hugetlb_pools, read_thp
from gmemlab.kernel.files import HugetlbMemory, LiveFile, ShmemMemory
from gmemlab.kernel.guest_memfd import MAPPABLE, GuestMemfd, TwoSourceGuest
from gmemlab.kernel.kvm import Vm
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.vmstat import read_vmstat
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.timing import PUNCH, fallocate_ns, ioctl_ns, madvise_ns, null_call_ns, register_ns, touch_ns, write_ns
from gmemlab.units import HOUR, MILLISECOND

PER_PAGE: Final = "ns per 4K page"
PER_HUGE: Final = "ns per 2M"
PER_CALL: Final = "ns per call"
AT_ONCE: Final = 2  # a file and a hugetlb pool of the given size are there at the same time
_COLLAPSED: Final = 16  # ranges of 2M: each takes milliseconds at times
_CONVERTED: Final = 4096  # pages
_MOVED: Final = 1000  # pages: with fewer, compaction was over before it began
_COMPACT: Final = Path("/proc/sys/vm/compact_memory")

_THP: Final = "sys/kernel/mm/transparent_hugepage"
_SHMEM: Final = f"{_THP}/shmem_enabled"
_SHMEM_2M: Final = f"{_THP}/hugepages-2048kB/shmem_enabled"
_ANONYMOUS: Final = f"{_THP}/enabled"
_KHUGEPAGED: Final = f"{_THP}/khugepaged/scan_sleep_millisecs"
_POOL: Final = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

Results = dict[str, float]
Progress = Callable[[str, float], None]


class Operation(NamedTuple):
    """Something that is timed: the unit of its figures, and what is done in words."""

    unit: str
    meaning: str


@dataclass(frozen=True)
class Timings:
    """What was measured.

    Attributes:
        samples: for each operation, one figure of each round, in nanoseconds by its unit.
        skipped: for each operation without figures, why: the feature that this kernel lacks.
        call_ns: what Python and ctypes take for one call, which is taken off; median.
    """

    samples: Mapping[str, Sequence[float]]
    skipped: Mapping[str, str]
    call_ns: float


@dataclass(frozen=True)
class Round:
    """What a round needs.

    Attributes:
        size: bytes of each file.
        settings: in which huge pages are switched on and off.
        null_ns: what Python and ctypes take for one call now.
    """

    size: int
    settings: Settings
    null_ns: float


class Group(NamedTuple):
    """Operations that are timed on one kind of memory, and the function that does one round of them."""

    operations: Mapping[str, Operation]
    run: Callable[[Round], Results]


def measure(settings: Settings, size: int, rounds: int, progress: Progress | None = None) -> Timings:
    """Time all operations that this kernel has.

    Args:
        settings: puts everything back when it is left.
        size: bytes of each file, a multiple of 2M; memory for `AT_ONCE` of them is used.
        rounds: how often each is timed, after one round that does not count.
        progress: called with what is being done, and the share of all that is done.

    Raises:
        UsageError: another process has changed one of the settings.
    """
    if read_thp() is not None:
        settings.set(_KHUGEPAGED, HOUR // MILLISECOND)  # khugepaged would collapse meanwhile
    samples: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    nulls = []
    for number in range(rounds + 1):
        for place, group in enumerate(GROUPS):
            if progress:
                what = next(iter(group.operations)) if number else "warming up"
                progress(what, (number + place / len(GROUPS)) / (rounds + 1))
            nulls.append(null_call_ns())
            try:
                results = group.run(Round(size, settings, nulls[-1]))
            except (UnsupportedError, OSError) as error:
                reasons.update(dict.fromkeys(group.operations, str(error)))
                continue
            if number:
                for name, value in results.items():
                    samples.setdefault(name, []).append(value)
    wanted = [name for group in GROUPS for name in group.operations]
    skipped = {name: reasons.get(name, "not measured") for name in wanted if name not in samples}
    return Timings({name: samples[name] for name in wanted if name in samples}, skipped, sorted(nulls)[len(nulls) // 2])


# -- one round of each kind of memory ----------------------------------------------------------------------------------------


def _in_pages(memory: LiveFile, name: str, null_ns: float) -> Results:
    """Allocate and punch a file of 4K pages as a whole, punch every other page, touch all pages."""
    pages = memory.size // abi.PAGE
    every_other = range(0, memory.size, 2 * abi.PAGE)
    results = {
        f"{name}-fallocate": fallocate_ns(memory.fd, abi.KEEP_SIZE, (0,), memory.size, null_ns) / pages,
        f"{name}-punch": fallocate_ns(memory.fd, PUNCH, (0,), memory.size, null_ns) / pages,
    }
    memory.allocate()
    results[f"{name}-punch-page"] = fallocate_ns(memory.fd, PUNCH, every_other, abi.PAGE, null_ns) / len(every_other)
    memory.punch_hole(0, memory.size)
    if memory.address:
        results[f"{name}-write-fault"] = _warm_fault_ns(memory, abi.PAGE) / pages
    return results


def _in_huge_pages(memory: LiveFile, name: str, null_ns: float) -> Results:
    """Allocate, punch, punch one page of, and touch a file, 2M at a time."""
    blocks = range(0, memory.size, abi.PMD)
    results = {
        f"{name}-fallocate": fallocate_ns(memory.fd, abi.KEEP_SIZE, blocks, abi.PMD, null_ns) / len(blocks),
        f"{name}-punch": fallocate_ns(memory.fd, PUNCH, blocks, abi.PMD, null_ns) / len(blocks),
    }
    results[f"{name}-write-fault"] = _warm_fault_ns(memory, abi.PMD) / len(blocks)
    memory.punch_hole(0, memory.size)
    memory.allocate()  # mapped nowhere
    results[f"{name}-punch-page"] = fallocate_ns(memory.fd, PUNCH, blocks, abi.PAGE, null_ns) / len(blocks)
    return results


def _warm_fault_ns(memory: LiveMemory, step: int) -> float:
    """Return the nanoseconds of write faults in an empty file, all of which is there afterwards."""
    touch_ns(memory.address, memory.size, step)
    memory.punch_hole(0, memory.size)
    return touch_ns(memory.address, memory.size, step)


def _guest_memfd(this: Round) -> Results:
    mappable = "MMAP" in probe_kvm().guest_memfd_flags
    with Vm() as vm, GuestMemfd(vm, this.size, MAPPABLE if mappable else 0) as memory:
        return _in_pages(memory, "guest-memfd", this.null_ns)


def _mapped(this: Round) -> Results:
    """Fault in pages that are there, cleared or not yet (G27), and take the mapping away again."""
    if "MMAP" not in probe_kvm().guest_memfd_flags:
        raise UnsupportedError("GUEST_MEMFD_FLAG_MMAP", "absent")
    with Vm() as vm, GuestMemfd(vm, this.size, MAPPABLE) as memory:
        pages = memory.size // abi.PAGE
        memory.allocate()
        fresh = touch_ns(memory.address, memory.size, abi.PAGE) / pages
        unmap = madvise_ns((memory.address,), memory.size, abi.MADV_DONTNEED, this.null_ns) / pages
        cleared = touch_ns(memory.address, memory.size, abi.PAGE) / pages
        return {"host-fault": cleared, "host-unmap": unmap, "clear-4k": max(0.0, fresh - cleared)}


def _shmem(this: Round) -> Results:
    with _shmem_folios(this.settings, "never"), ShmemMemory(this.size) as memory:
        return _in_pages(memory, "shmem", this.null_ns)


def _shmem_huge(this: Round) -> Results:
    with _shmem_folios(this.settings, "always"), ShmemMemory(this.size) as memory:
        before = read_vmstat()
        results = _in_huge_pages(memory, "shmem-2m", this.null_ns)
        changes = read_vmstat().difference(before)
    if changes["thp_file_fallback"] > 0 or changes["thp_split_page"] < this.size // abi.PMD:
        raise UnsupportedError("2M folios in shmem", "allocations fell back to 4K: free memory is too fragmented")
    return results


def _collapse(this: Round) -> Results:
    size = min(this.size, _COLLAPSED * abi.PMD)
    with _shmem_folios(this.settings, "always"), ShmemMemory(size) as memory:
        touch_ns(memory.address, size, abi.PMD)  # what is freed here is what the collapse allocates
    with _shmem_folios(this.settings, "never"), ShmemMemory(size) as memory:
        touch_ns(memory.address, size, abi.PAGE)
        this.settings.set(_SHMEM, "always")
        ranges = range(memory.address, memory.address + size, abi.PMD)
        return {"shmem-2m-collapse": madvise_ns(ranges, abi.PMD, abi.MADV_COLLAPSE, this.null_ns) / len(ranges)}


def _compaction(this: Round) -> Results:
    """Have the machine's memory compacted, where every other page of a file is a hole; what is scanned in vain is in it."""
    with _shmem_folios(this.settings, "never"), ShmemMemory(this.size) as memory:
        memory.allocate()
        fallocate_ns(memory.fd, PUNCH, range(0, memory.size, 2 * abi.PAGE), abi.PAGE, this.null_ns)
        before = read_vmstat()
        elapsed = write_ns(_COMPACT, b"1")
        moved = read_vmstat().difference(before)["pgmigrate_success"]
    if moved < _MOVED:
        raise UnsupportedError("compaction of shmem", f"only {moved} pages moved")
    return {"compaction-move": elapsed / moved}


def _hugetlb(this: Round) -> Results:
    wanted = this.size // abi.PMD
    pool = next((pool for pool in read_hugetlb_pools() if pool.page_bytes == abi.PMD), None)
    if pool is None:
        raise UnsupportedError(f"/{_POOL}", "absent: no hugetlb pool of 2M pages")
    missing = wanted - (pool.free - pool.reserved)
    if missing > 0 and int(this.settings.set(_POOL, pool.total + missing)) < pool.total + missing:
        raise UnsupportedError("hugetlb pool of 2M pages", "cannot grow: free memory is too fragmented")
    with HugetlbMemory(this.size) as memory:
        memory.reserve()  # so that nobody else takes the pages: a fault would end in SIGBUS (L19)
        results = _in_huge_pages(memory, "hugetlb-2m", this.null_ns)
        cleared = touch_ns(memory.address, memory.size, abi.PMD) / wanted  # all pages are there, and mapped nowhere
        return {**results, "clear-2m": max(0.0, results["hugetlb-2m-write-fault"] - cleared)}


def _anonymous(this: Round) -> Results:
    results: Results = {}
    for name, advice, step in (("anon", abi.MADV_NOHUGEPAGE, abi.PAGE), ("anon-2m", abi.MADV_HUGEPAGE, abi.PMD)):
        if read_thp() is not None:
            this.settings.set(_ANONYMOUS, "madvise")
        elif step == abi.PMD:
            break
        with AnonymousMemory(this.size) as memory:
            if read_thp() is not None:
                madvise(memory.address, this.size, advice)
            count = this.size // step
            results[f"{name}-write-fault"] = _warm_fault_ns(memory, step) / count
            results[f"{name}-free"] = madvise_ns((memory.address,), this.size, abi.MADV_DONTNEED, this.null_ns) / count
    return results


def _pins(this: Round) -> Results:
    """Register and unregister buffers of 2M whose 4K pages are mapped already."""
    pages = this.size // abi.PAGE
    pin = unpin = 0.0
    with _shmem_folios(this.settings, "never"), ShmemMemory(this.size) as memory, _ring() as ring:
        touch_ns(memory.address, memory.size, abi.PAGE)
        for place in range(memory.address, memory.address + memory.size, abi.PMD):
            vector = (ctypes.c_uint64 * 2)(place, abi.PMD)
            pin += register_ns(ring, abi.REGISTER_BUFFERS, ctypes.addressof(vector), 1, this.null_ns)
            unpin += register_ns(ring, abi.UNREGISTER_BUFFERS, 0, 0, this.null_ns)
    return {"pin": pin / pages, "unpin": unpin / pages}


def _conversion(this: Round) -> Results:
    """Set the attribute of every other page, then of 2M at a time, none of which is backed."""
    size = min(this.size, _CONVERTED * abi.PAGE)
    with Vm(abi.VM_SW_PROTECTED) as vm, TwoSourceGuest(vm, size):
        alone = _conversion_ns(vm, range(0, size, 2 * abi.PAGE), abi.PAGE, 0, this.null_ns)
        together = _conversion_ns(vm, range(0, size, abi.PMD), abi.PMD, abi.ATTRIBUTE_PRIVATE, this.null_ns)
        page = max(0.0, together - alone) / (abi.PMD // abi.PAGE - 1)
        return {"convert": max(0.0, alone - page), "convert-page": page}


def _conversion_ns(vm: Vm, places: Sequence[int], size: int, attributes: int, null_ns: float) -> float:
    """Return the nanoseconds of one call, of as many as there are places."""
    requests = [ctypes.create_string_buffer(abi.MEMORY_ATTRIBUTES.pack(place, size, attributes, 0)) for place in places]
    addresses = [ctypes.addressof(request) for request in requests]
    return ioctl_ns(vm.fd, abi.SET_MEMORY_ATTRIBUTES, addresses, null_ns) / len(places)


@contextmanager
def _shmem_folios(settings: Settings, choice: str) -> Iterator[None]:
    """Give shmem files 2M folios (`always`) or 4K pages (`never`) meanwhile."""
    if read_thp() is None:
        if choice == "always":
            raise UnsupportedError(f"/{_SHMEM}", "absent: no huge pages in shmem")
        yield
        return
    settings.set(_SHMEM_2M, "inherit")
    before = settings.get(_SHMEM)
    settings.set(_SHMEM, choice)
    try:
        yield
    finally:
        settings.set(_SHMEM, before)


@contextmanager
def _ring() -> Iterator[int]:
    parameters = ctypes.create_string_buffer(abi.IO_URING_PARAMS)
    try:
        ring = syscall(abi.SYS_IO_URING_SETUP, 1, ctypes.byref(parameters))
    except OSError as error:
        raise UnsupportedError("io_uring", f"pins need it: {error.strerror}") from error
    try:
        yield ring
    finally:
        os.close(ring)


def _file_operations(name: str, what: str, unit: str, unit_of_pages: str, page: str) -> dict[str, Operation]:
    return {
        f"{name}-fallocate": Operation(unit, f"{what}: fallocate"),
        f"{name}-punch": Operation(unit, f"{what}: punch, freeing {'all of the file' if unit == PER_PAGE else 'the page'}"),
        f"{name}-punch-page": Operation(unit_of_pages, f"{what}: {page}"),
        f"{name}-write-fault": Operation(unit, f"{what}: write fault"),
    }


GROUPS: Final = (
    Group(
        _file_operations("guest-memfd", "guest_memfd", PER_PAGE, PER_CALL, "punch of every other page, one call each"),
        _guest_memfd,
    ),
    Group(
        {
            "host-fault": Operation(PER_PAGE, "guest_memfd: write fault of a page that is there, and cleared"),
            "host-unmap": Operation(PER_PAGE, "guest_memfd: MADV_DONTNEED of all, which takes the mapping away"),
            "clear-4k": Operation(PER_PAGE, "guest_memfd: write fault of a page that is there, not cleared, less host-fault"),
        },
        _mapped,
    ),
    Group(_file_operations("shmem", "shmem, 4K pages", PER_PAGE, PER_CALL, "punch of every other page, one call each"), _shmem),
    Group(
        _file_operations("shmem-2m", "shmem, 2M folios", PER_HUGE, PER_CALL, "punch of one 4K page, with the split"),
        _shmem_huge,
    ),
    Group({"shmem-2m-collapse": Operation(PER_HUGE, "shmem: MADV_COLLAPSE of 512 pages")}, _collapse),
    Group(
        {"compaction-move": Operation(PER_PAGE, "compact_memory: each page that moves, with all that is scanned")}, _compaction
    ),
    Group(
        {
            **_file_operations("hugetlb-2m", "hugetlb, 2M pages", PER_HUGE, PER_CALL, "punch of one 4K page, which zeroes"),
            "clear-2m": Operation(PER_HUGE, "hugetlb: write fault, less that of a page that is there"),
        },
        _hugetlb,
    ),
    Group(
        {
            "anon-write-fault": Operation(PER_PAGE, "anonymous memory, 4K pages: write fault"),
            "anon-free": Operation(PER_PAGE, "anonymous memory, 4K pages: MADV_DONTNEED of all"),
            "anon-2m-write-fault": Operation(PER_HUGE, "anonymous memory, 2M folios: write fault"),
            "anon-2m-free": Operation(PER_HUGE, "anonymous memory, 2M folios: MADV_DONTNEED of all"),
        },
        _anonymous,
    ),
    Group(
        {
            "pin": Operation(PER_PAGE, "pins by io_uring: register a buffer of 512 pages"),
            "unpin": Operation(PER_PAGE, "pins by io_uring: unregister it"),
        },
        _pins,
    ),
    Group(
        {
            "convert": Operation(PER_CALL, "KVM_SET_MEMORY_ATTRIBUTES: the call"),
            "convert-page": Operation(PER_PAGE, "KVM_SET_MEMORY_ATTRIBUTES: each page of the range"),
        },
        _conversion,
    ),
)
