"""guest_memfd on the running kernel: creation, every refusal of a call, what is counted (L1 to L4, L8, L9)."""

import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gmemlab.errors import InvalidArgument, NotSupported, OperationError, TooBig
from gmemlab.kernel import abi
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.calls import fallocate
from gmemlab.kernel.guest_memfd import MAPPABLE, GuestMemfd
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.kvm import Vm
from gmemlab.kernel.observe.pages import frames, page_flags
from gmemlab.protocol import Extent, GuestMemory, Usage
from gmemlab.units import MIB
from live_world import LARGEST, refusal

PAGES = 16
SIZE = PAGES * PAGE
MMAP = abi.FLAG_MMAP
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root")


@pytest.fixture
def memory(vm: Vm, host: LiveHost) -> GuestMemfd:
    return host.guest_memfd(SIZE)


def pages_of(memory: GuestMemfd) -> list[int]:
    return [page for page, there in enumerate(memory.present()) if there]


def test_it_is_guest_memory(memory: GuestMemfd) -> None:
    guest: GuestMemory = memory
    guest.allocate("4K", "8K")
    assert guest.usage() == Usage(SIZE, 2 * PAGE, 0, SIZE, 0, 0, 0, 0)
    assert guest.layout() == [
        Extent(0, PAGE, 0, True),
        Extent(PAGE, 2 * PAGE, PAGE, True),
        Extent(3 * PAGE, 13 * PAGE, 0, True),
    ]
    guest.close()
    guest.close()


# -- creation (L1, G11) ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE + 1, -1, -PAGE, 1 << 63, (1 << 63) + PAGE, (1 << 64) - PAGE])
@pytest.mark.parametrize("flags", [0, MAPPABLE])
def test_bad_sizes(vm: Vm, host: LiveHost, size: int, flags: int) -> None:
    with pytest.raises(InvalidArgument, match=f"create {size} with flags"):
        host.guest_memfd(size, flags)


@pytest.mark.parametrize("flags", [1 << 2, 1 << 3, 1 << 31, 1 << 63, 7, -1])
@pytest.mark.parametrize("size", [SIZE, 0])
def test_bad_flags(vm: Vm, host: LiveHost, size: int, flags: int) -> None:
    with pytest.raises(InvalidArgument):
        host.guest_memfd(size, flags)


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_good_flags(vm: Vm, host: LiveHost, flags: int) -> None:
    memory = host.guest_memfd("64K", flags)
    assert memory.size == os.fstat(memory.fd).st_size == SIZE
    assert bool(memory.address) is bool(flags & MMAP)
    assert sum(memory.shared()) == (PAGES if flags & abi.FLAG_INIT_SHARED else 0)
    memory.allocate()
    assert memory.layout() == [Extent(0, SIZE, PAGE, bool(flags & abi.FLAG_INIT_SHARED))]


def test_the_largest_file_and_reserved_words(vm: Vm) -> None:
    fd = vm.create_guest_memfd((1 << 63) - PAGE, 0, reserved=(1, 2, 3, 4, 5, (1 << 64) - 1))
    assert os.fstat(fd).st_size == (1 << 63) - PAGE
    os.close(fd)


def test_files_are_separate(vm: Vm, host: LiveHost) -> None:
    one, other = host.guest_memfd(SIZE), host.guest_memfd(2 * SIZE)
    assert os.fstat(one.fd).st_ino != os.fstat(other.fd).st_ino
    one.allocate()
    assert not any(other.present())
    assert os.get_inheritable(one.fd)  # without close-on-exec (G15)


# -- fallocate (L2, G17 to G21) ----------------------------------------------------------------------------------------------

GOOD = {1: "allocate", 3: "punch"}
REFUSED_BY_FILE = (0, 0x8, 0x10, 0x20, 0x40)  # modes that the VFS knows
REFUSED_BEFORE = (0x2, 0x4, 0x5, 0xA, 0x100, -1)  # those that it refuses before it looks at overflow
RANGES = (
    (0, PAGE), (0, SIZE), (SIZE - PAGE, PAGE),
    (0, 0), (-1, PAGE), (-PAGE, 2 * PAGE), (0, -PAGE), (0, -(1 << 63)), (-(1 << 63), PAGE), (-(1 << 63), 0),
    (LARGEST - PAGE + 1, PAGE), (LARGEST, 1), (LARGEST, LARGEST), (1 << 62, 1 << 62), (PAGE + 1, LARGEST),
    (1, PAGE), (0, PAGE + 1), (0, 1), (PAGE - 1, PAGE + 1), (SIZE + 1, PAGE), (SIZE, 512), (1, LARGEST - 1),
    (SIZE, PAGE), (SIZE - PAGE, 2 * PAGE), (0, SIZE + PAGE), (LARGEST - 2 * PAGE + 1, PAGE), (1 << 40, 1 << 40),
)  # fmt: skip


def expected(mode: int, offset: int, size: int) -> int:
    """The errno, in the kernel's order (L2, G18)."""
    if offset < 0 or size <= 0:
        return errno.EINVAL
    if mode in REFUSED_BEFORE:
        return errno.EOPNOTSUPP
    if offset + size > LARGEST:
        return errno.EFBIG
    if mode not in GOOD:
        return errno.EOPNOTSUPP
    if offset % PAGE or size % PAGE:
        return errno.EINVAL
    return errno.EINVAL if mode == 1 and offset + size > SIZE else 0


@pytest.mark.parametrize("flags", [0, 1, 3])
@pytest.mark.parametrize("mode", [*GOOD, *REFUSED_BY_FILE, *REFUSED_BEFORE])
def test_precedence_of_fallocate(vm: Vm, host: LiveHost, mode: int, flags: int) -> None:
    memory = host.guest_memfd(SIZE, flags)
    memory.allocate(4 * PAGE, PAGE)
    for offset, size in RANGES:
        before = memory.present()
        number = expected(mode, offset, size)
        if number:
            with pytest.raises(OperationError) as caught:
                memory.fallocate(mode, offset, size)
            assert (caught.value.errno, caught.value.done) == (number, 0), (mode, offset, size)
            assert memory.present() == before
        else:
            memory.fallocate(mode, offset, size)


def test_errors_have_the_classes_of_the_model(memory: GuestMemfd) -> None:
    for operation in (memory.allocate, memory.punch_hole):
        with pytest.raises(InvalidArgument, match=r"fallocate mode \d, 4096 at -4096 \(guest_memfd\): Invalid argument"):
            operation(-PAGE, PAGE)
        with pytest.raises(TooBig):
            operation(LARGEST, 1)
    with pytest.raises(NotSupported):
        memory.fallocate(0, 0, PAGE)


def test_both_are_idempotent(memory: GuestMemfd) -> None:
    for _ in range(2):
        memory.allocate(2 * PAGE, 3 * PAGE)
        assert pages_of(memory) == [2, 3, 4]
    for _ in range(2):
        memory.punch_hole(3 * PAGE, 100 * PAGE)
        assert pages_of(memory) == [2]
    memory.punch_hole("1G", "1G")
    assert pages_of(memory) == [2]


def test_allocation_neither_zeroes_nor_prepares(memory: GuestMemfd) -> None:
    memory.allocate()
    assert not any(memory.used())
    assert memory.tags() == bytes(PAGES)
    assert not any(memory.used())  # looking at them changed nothing
    memory.write(0, 3 * PAGE, b"a")
    memory.allocate()
    assert memory.tags() == b"aaa" + bytes(PAGES - 3)
    assert [page for page, there in enumerate(memory.used()) if there] == [0, 1, 2]


def test_random_punches_keep_the_rest(memory: GuestMemfd) -> None:
    chooser = random.Random(2)
    tags = bytearray(PAGES)
    for step in range(300):
        first = chooser.randrange(PAGES)
        count = chooser.randint(1, PAGES - first)
        if chooser.random() < 0.5:
            memory.write(first * PAGE, count * PAGE, bytes((step % 255 + 1,)))
            tags[first : first + count] = bytes((step % 255 + 1,)) * count
        else:
            memory.punch_hole(first * PAGE, count * PAGE)
            tags[first : first + count] = bytes(count)
        assert memory.tags() == tags
        assert pages_of(memory) == [page for page, tag in enumerate(tags) if tag]
        assert memory.usage().charged == len(pages_of(memory)) * PAGE


def test_interrupted_allocations_go_on(memory: GuestMemfd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's EINTR comes with part of the range allocated (section 0)."""
    calls: list[int] = []

    def interrupted(fd: int, mode: int, offset: int, size: int) -> None:
        calls.append(mode)
        if len(calls) < 4:
            fallocate(fd, mode, offset, len(calls) * PAGE)
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        fallocate(fd, mode, offset, size)

    monkeypatch.setattr("gmemlab.kernel.files.fallocate", interrupted)
    memory.allocate(PAGE, 10 * PAGE)
    assert len(calls) == 4
    assert pages_of(memory) == list(range(1, 11))


def test_progress_before_memory_ran_out(memory: GuestMemfd, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(fd: int, mode: int, offset: int, size: int) -> None:
        fallocate(fd, mode, offset, 3 * PAGE)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    memory.allocate(8 * PAGE, PAGE)
    monkeypatch.setattr("gmemlab.kernel.files.fallocate", short)
    with pytest.raises(OperationError, match="3 pages done before") as caught:
        memory.allocate(2 * PAGE, 8 * PAGE)
    assert (caught.value.errno, caught.value.done) == (errno.ENOMEM, 3)
    with pytest.raises(OperationError) as caught:
        memory.allocate(0, PAGE)
    assert caught.value.done == 1


def test_a_storm_of_signals(vm: Vm, host: LiveHost) -> None:
    """Signals come faster than the kernel can walk the pages that are there already."""
    memory = host.guest_memfd("64M", 0)
    arrived: list[int] = []

    def arrive(number: int, _frame: object) -> None:
        arrived.append(number)
        if len(arrived) > 10_000:
            pytest.fail("the allocation never ends")

    previous = signal.signal(signal.SIGALRM, arrive)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        memory.allocate()
        memory.punch_hole(PAGE, memory.size)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(arrived) > 3
    assert memory.usage().charged == PAGE


# -- stat and other calls (L3, L4, G16) --------------------------------------------------------------------------------------


def test_stat(memory: GuestMemfd) -> None:
    memory.allocate()
    found = os.fstat(memory.fd)
    assert (found.st_size, found.st_blocks, found.st_blksize) == (SIZE, 0, PAGE)
    times = [found.st_mtime_ns]
    for operation in (memory.allocate, memory.punch_hole):
        time.sleep(0.02)  # more than a tick: the clock of files
        operation(0, PAGE)
        times.append(os.fstat(memory.fd).st_mtime_ns)
    assert times[0] < times[1] < times[2]


CALLS: dict[str, tuple[Callable[[int, int], object], int]] = {
    "read": (lambda fd, _: os.read(fd, 1), errno.EINVAL),
    "write": (lambda fd, _: os.write(fd, b"x"), errno.EINVAL),
    "readv": (lambda fd, _: os.readv(fd, [bytearray(1)]), errno.EINVAL),
    "pread": (lambda fd, _: os.pread(fd, 1, 0), errno.ESPIPE),
    "pwrite": (lambda fd, _: os.pwrite(fd, b"x", 0), errno.ESPIPE),
    "lseek": (lambda fd, _: os.lseek(fd, 0, os.SEEK_SET), errno.ESPIPE),
    "seek data": (lambda fd, _: os.lseek(fd, 0, os.SEEK_DATA), errno.ESPIPE),
    "shrink": (lambda fd, _: os.ftruncate(fd, PAGE), errno.EINVAL),
    "grow": (lambda fd, _: os.ftruncate(fd, 2 * SIZE), errno.EINVAL),
    "fsync": (lambda fd, _: os.fsync(fd), errno.EINVAL),
    "fdatasync": (lambda fd, _: os.fdatasync(fd), errno.EINVAL),
    "fchmod": (lambda fd, _: os.fchmod(fd, 0o600), errno.EINVAL),
    "fchown": (lambda fd, _: os.fchown(fd, 0, 0), errno.EINVAL),
    "utime": (lambda fd, _: os.utime(fd), errno.EINVAL),
    "copy into it": (lambda fd, other: os.copy_file_range(other, fd, PAGE), errno.EXDEV),
    "copy out of it": (lambda fd, other: os.copy_file_range(fd, other, PAGE), errno.EXDEV),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("flags", [0, 1, 3])
def test_calls_that_are_not_served(vm: Vm, host: LiveHost, name: str, flags: int) -> None:
    memory = host.guest_memfd(SIZE, flags)
    memory.allocate()
    call, number = CALLS[name]
    with host.shmem(PAGE) as other, refusal(number):
        call(memory.fd, other.fd)
    assert os.fstat(memory.fd).st_size == SIZE
    assert all(memory.present())


def test_splice(memory: GuestMemfd) -> None:
    ends = os.pipe()
    with refusal(errno.EINVAL):
        os.splice(memory.fd, ends[1], PAGE)
    for end in ends:
        os.close(end)


# -- accounting (L8, L9) -----------------------------------------------------------------------------------------------------


@needs_root
def test_pages_are_unevictable_and_no_shmem(vm: Vm, host: LiveHost) -> None:
    memory = host.guest_memfd("4M")
    memory.write(0, memory.size, b"x")
    flags = [page_flags(frame)[0] for frame in frames(memory.address, memory.size) if frame is not None]
    assert len(flags) == 1024
    assert not any({"COMPOUND_HEAD", "COMPOUND_TAIL", "SWAPBACKED", "ANON"} & names for names in flags)
    lag = 31 * (os.cpu_count() or 1)  # pages that a processor has not put on the list yet
    assert sum("UNEVICTABLE" in names for names in flags) >= 1024 - lag


def _memory_cgroup() -> tuple[Path, str]:
    for root, limit in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        folder = root / f"gmemlab-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if (folder / limit).exists():
            return folder, limit
        folder.rmdir()
    pytest.skip("memory cgroups")


@needs_root
def test_the_limit_of_a_cgroup_kills(vm: Vm, host: LiveHost) -> None:
    folder, limit = _memory_cgroup()
    memory = host.guest_memfd("128M", 0)
    try:
        (folder / limit).write_text(str(32 * MIB))
        script = (
            "import ctypes, os, sys\n"
            f"open({str(folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
            "libc = ctypes.CDLL(None)\n"
            f"libc.fallocate({memory.fd}, 1, ctypes.c_int64(0), ctypes.c_int64({memory.size}))\n"
        )
        result = subprocess.run([sys.executable, "-c", script], pass_fds=[memory.fd], check=False)
        assert result.returncode == -signal.SIGKILL
        present = memory.present()
        there = sum(present)
        assert 0 < there * PAGE <= 32 * MIB
        assert present == [True] * there + [False] * (len(present) - there)  # what was allocated stays
    finally:
        memory.close()
        folder.rmdir()


# -- objects -----------------------------------------------------------------------------------------------------------------


def test_a_host_closes_what_it_made(vm: Vm) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    maps = Path("/proc/self/maps").read_text(encoding="ascii").count("guest_memfd")
    with LiveHost() as host:
        for flags in range(4):
            memory = host.guest_memfd(SIZE, flags)
            memory.allocate()
        memory.pin(0, PAGE)
        host.guest_memfd(SIZE).close()
        with pytest.raises(InvalidArgument):
            host.guest_memfd(0)
        assert len(list(Path("/proc/self/fd").iterdir())) > before
    host.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/self/maps").read_text(encoding="ascii").count("guest_memfd") == maps


def test_python_survives_every_access(vm: Vm, host: LiveHost) -> None:
    """Random ranges, most of them wrong, on every kind of file; nothing outside the file is written."""
    chooser = random.Random(5)
    guard = mmap.mmap(-1, 4 * MIB)
    memories = [host.guest_memfd(SIZE, flags) for flags in range(4)] + [host.shmem(SIZE), host.anonymous(SIZE)]
    numbers = (
        0,
        1,
        -1,
        PAGE,
        -PAGE,
        SIZE,
        SIZE - PAGE,
        5 * PAGE,
        1 << 30,
        1 << 47,
        1 << 62,
        LARGEST,
        -(1 << 63),
        LARGEST - PAGE + 1,
    )
    for _ in range(1500):
        memory = chooser.choice(memories)
        offset, size = chooser.choice(numbers), chooser.choice(numbers)
        operation = chooser.choice((memory.access, memory.pin, memory.punch_hole))
        with suppress(OperationError):
            operation(offset, size, *(("host",) if operation == memory.access else ()))
            assert offset >= 0 and size > 0
    assert not any(guard[:])
