"""Pins by io_uring's registered buffers: what they hold, when they let go, what limits them."""

import ctypes
import errno
import os
import resource
from collections.abc import Iterator

import pytest

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import pins
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.calls import MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE, PROT_READ_WRITE, mmap, munmap, syscall
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.observe.pages import frames
from gmemlab.kernel.observe.vmstat import read_vmstat, refresh
from gmemlab.kernel.pins import MOST_PINS, Pin
from live_world import refusal

PAGES = 64
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root")


@pytest.fixture
def address() -> Iterator[int]:
    place = mmap(PAGES * PAGE, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    try:
        Pin(place, PAGE).release()
    except UnsupportedError as error:
        pytest.skip(str(error))
    yield place
    munmap(place, PAGES * PAGE)


def pinned_pages() -> int:
    refresh()
    counters = read_vmstat()
    return counters["nr_foll_pin_acquired"] - counters["nr_foll_pin_released"]


@needs_root
def test_pins_come_and_go_with_the_calls(address: int) -> None:
    exact = 0
    for _ in range(40):
        counts = [pinned_pages()]
        first, second = Pin(address, 16 * PAGE), Pin(address + 8 * PAGE, 16 * PAGE)
        counts.append(pinned_pages())
        first.release()
        counts.append(pinned_pages())  # when `release` returns, not some time later
        first.release()
        second.release()
        counts.append(pinned_pages())
        exact += [count - counts[0] for count in counts] == [0, 32, 16, 0]
    assert exact >= 30  # the counters are those of the machine, where others pin pages too


@needs_root
def test_pins_fault_pages_in(address: int) -> None:
    assert not any(frames(address + PAGE, (PAGES - 1) * PAGE))
    Pin(address + 2 * PAGE, 2 * PAGE).release()
    assert [frame is not None for frame in frames(address + PAGE, 4 * PAGE)] == [False, True, True, False]


def test_addresses_that_cannot_be_pinned(address: int) -> None:
    before = _open_files()
    hole = mmap(PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS)
    for place, size in ((hole, PAGE), (0, PAGE), (hole - PAGE, 2 * PAGE)):
        with refusal(errno.EFAULT):
            Pin(place, size)
    with refusal(errno.EINVAL):
        Pin(address, 0)
    munmap(hole, PAGE)
    assert _open_files() == before


def test_the_number_of_pins_is_bounded(address: int) -> None:
    before = _open_files()
    held = [Pin(address, PAGE) for _ in range(MOST_PINS)]
    with refusal(errno.EMFILE):
        Pin(address, PAGE)
    held.pop().release()
    held.append(Pin(address, PAGE))
    for pin in held:
        pin.release()
    assert _open_files() == before


def test_large_ranges_are_cut_into_buffers(address: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[int]] = []

    def seen(number: int, *arguments: object) -> int:
        if len(arguments) == 4 and arguments[1] == 0:
            count = arguments[3]
            assert isinstance(count, int)
            given.append(list((ctypes.c_uint64 * (2 * count)).from_address(_address(arguments[2]))))
        return syscall(number, *arguments)

    monkeypatch.setattr(pins, "_LARGEST_BUFFER", 4 * PAGE)
    monkeypatch.setattr(pins, "syscall", seen)
    Pin(address, 10 * PAGE).release()
    ends = (address, 4 * PAGE), (address + 4 * PAGE, 4 * PAGE), (address + 8 * PAGE, 2 * PAGE)
    assert given == [[number for pair in ends for number in pair]]


def _address(reference: object) -> int:
    pointer = ctypes.cast(reference, ctypes.c_void_p)  # type: ignore[arg-type]  # what byref returns has no type
    return pointer.value or 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_io_uring(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pins, "syscall", refuse)
    with pytest.raises(UnsupportedError, match=f"io_uring: pins need it: {os.strerror(number)}"):
        Pin(0, PAGE)


def test_the_limit_of_locked_memory_is_raised_as_far_as_allowed(address: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only users without CAP_IPC_LOCK meet it, so the kernel's answer is made up."""
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    soft = 64 * 1024
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, limits[1]))
    calls: list[int] = []

    def refuse_while_low(number: int, *arguments: object) -> int:
        calls.append(number)
        if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == soft:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return syscall(number, *arguments)

    monkeypatch.setattr(pins, "syscall", refuse_while_low)
    try:
        Pin(address, PAGE).release()
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (limits[1], limits[1])
        assert len(calls) == 4  # setup twice, register, unregister
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)


def test_memory_objects_release_exactly_one_call(address: int) -> None:
    with LiveHost() as host:
        memory = host.shmem(16 * PAGE)
        before = _open_files()
        memory.pin(0, 2 * PAGE)
        memory.pin(0, 2 * PAGE)
        memory.pin(0, PAGE)
        memory.unpin(0, 2 * PAGE)
        with refusal(errno.EINVAL, done=0):
            memory.unpin(PAGE, PAGE)
        memory.unpin(0, 2 * PAGE)
        with refusal(errno.EINVAL, done=0):
            memory.unpin(0, 2 * PAGE)
        memory.unpin(0, PAGE)
        assert _open_files() == before


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names only
