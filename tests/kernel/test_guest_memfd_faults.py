"""guest_memfd on the running kernel: mappings, host accesses, advice, pins (L5 to L7, L10)."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from gmemlab.errors import HostAccessFault, InvalidArgument, MemoryFault
from gmemlab.kernel import abi
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.calls import (
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ_WRITE,
    madvise,
    mmap,
    munmap,
    read_bytes,
    write_bytes,
)
from gmemlab.kernel.guest_memfd import MAPPABLE, GuestMemfd
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.kvm import Vm
from gmemlab.kernel.observe.pages import frames
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


# -- mappings and faults (L5, L6, G25 to G27) --------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("prot", "how", "number"),
    [
        (PROT_READ_WRITE, MAP_SHARED, 0),
        (PROT_READ_WRITE, MAP_PRIVATE, errno.EINVAL),
        (PROT_READ_WRITE | PROT_EXEC, MAP_SHARED, errno.EPERM),
        (PROT_READ_WRITE | PROT_EXEC, MAP_PRIVATE, errno.EPERM),
    ],
)
def test_mappings(vm: Vm, host: LiveHost, flags: int, prot: int, how: int, number: int) -> None:
    memory = host.guest_memfd(SIZE, flags)
    # What may be executed is asked before the file is.
    number = number if flags & MMAP or number == errno.EPERM else errno.ENODEV
    if number:
        with refusal(number):
            mmap(SIZE, prot, how, memory.fd)
    else:
        munmap(mmap(SIZE, prot, how, memory.fd), SIZE)


@pytest.mark.parametrize("flags", [1, 3])
@pytest.mark.parametrize("offset", [SIZE, SIZE - PAGE, 1 << 40, 1 << 62])
def test_beyond_the_end_can_be_mapped_but_not_touched(vm: Vm, host: LiveHost, flags: int, offset: int) -> None:
    memory = host.guest_memfd(SIZE, flags)
    address = mmap(4 * PAGE, PROT_READ_WRITE, MAP_SHARED, memory.fd, offset)
    places = range(address, address + 4 * PAGE, PAGE)
    good = (SIZE - offset) // PAGE if flags == MAPPABLE and offset < SIZE else 0
    assert write_bytes(places, 7) == good
    assert read_bytes(places) == b"\x07" * good
    assert write_bytes(places[good:], 7) == 0
    assert len(pages_of(memory)) == good
    munmap(address, 4 * PAGE)


@pytest.mark.parametrize(("flags", "place"), [(3, SIZE), (1, 0), (1, SIZE)])
def test_a_plain_access_ends_in_sigbus(vm: Vm, host: LiveHost, flags: int, place: int) -> None:
    memory = host.guest_memfd(SIZE, flags)
    memory.allocate()
    script = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        f"address = libc.mmap(None, ctypes.c_size_t({SIZE + PAGE}), 3, 1, {memory.fd}, ctypes.c_long(0))\n"
        f"ctypes.c_char.from_address(address + {place}).value = b'x'\n"
    )
    result = subprocess.run([sys.executable, "-c", script], pass_fds=[memory.fd], check=False)
    assert result.returncode == -signal.SIGBUS


def test_host_accesses_allocate_and_zero(memory: GuestMemfd) -> None:
    assert memory.read(2 * PAGE, PAGE) == bytes(PAGE)
    assert pages_of(memory) == [2]
    memory.write(2 * PAGE, 2 * PAGE, b"z")
    assert memory.read(2 * PAGE, 2 * PAGE) == (b"z" + bytes(PAGE - 1)) * 2
    memory.access("32K", "4K", by="host")
    assert pages_of(memory) == [2, 3, 8]
    assert memory.read(8 * PAGE, 1) == b"\x01"
    memory.punch_hole(3 * PAGE, PAGE)
    assert memory.read(3 * PAGE, 2) == bytes(2)


@pytest.mark.parametrize(
    ("offset", "size", "done"),
    [
        (SIZE, PAGE, 0),
        (SIZE - 2 * PAGE, 4 * PAGE, 2),
        (0, 1 << 40, PAGES),
        (1 << 40, PAGE, 0),
        (LARGEST - 2 * PAGE + 1, PAGE, 0),
    ],
)
def test_host_accesses_beyond_the_end(memory: GuestMemfd, offset: int, size: int, done: int) -> None:
    with pytest.raises(HostAccessFault) as caught:
        memory.access(offset, size, by="host")
    assert caught.value.done == done
    assert len(pages_of(memory)) == done
    with pytest.raises(HostAccessFault):
        memory.read(offset, size)


@pytest.mark.parametrize(("offset", "size"), [(-PAGE, PAGE), (0, 0), (0, -PAGE), (1, PAGE), (0, PAGE + 1), (LARGEST, PAGE)])
def test_accesses_and_pins_of_bad_ranges(memory: GuestMemfd, offset: int, size: int) -> None:
    number = errno.EFBIG if offset == LARGEST else errno.EINVAL
    with refusal(number, done=0):
        memory.access(offset, size, by="host")
    with refusal(number, done=0):
        memory.pin(offset, size)
    assert not any(memory.present())


def test_private_memory(vm: Vm, host: LiveHost) -> None:
    memory = host.guest_memfd(SIZE, MMAP)
    memory.allocate(0, 4 * PAGE)
    for operation in (
        lambda: memory.write(0, PAGE, b"x"),
        lambda: memory.read(0, 1),
        lambda: memory.write(8 * PAGE, PAGE, b"x"),
    ):
        with pytest.raises(HostAccessFault) as caught:
            operation()
        assert caught.value.done == 0
    with pytest.raises(MemoryFault):
        memory.pin(0, PAGE)
    assert pages_of(memory) == [0, 1, 2, 3]
    assert memory.tags() == bytes(PAGES)


@pytest.mark.parametrize("flags", [0, abi.FLAG_INIT_SHARED])
def test_memory_that_cannot_be_mapped(vm: Vm, host: LiveHost, flags: int) -> None:
    memory = host.guest_memfd(SIZE, flags)
    memory.allocate(0, PAGE)
    with refusal(errno.ENODEV, done=0):
        memory.access(0, PAGE, by="host")
    with refusal(errno.ENODEV):
        memory.read(0, 1)
    with refusal(errno.ENODEV):
        memory.pin(0, PAGE)
    assert memory.tags() == bytes(PAGES)
    assert memory.usage().charged == PAGE


# -- madvise (L7) ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("advice", "number"),
    [
        (abi.MADV_REMOVE, 0),
        (abi.MADV_DONTNEED, 0),
        (abi.MADV_HUGEPAGE, 0),
        (abi.MADV_NOHUGEPAGE, 0),
        (abi.MADV_COLLAPSE, errno.EINVAL),
        (abi.MADV_FREE, errno.EINVAL),
    ],
)
def test_advice(vm: Vm, host: LiveHost, advice: int, number: int) -> None:
    memory = host.guest_memfd("4M")
    memory.write(0, memory.size, b"q")
    if number:
        with refusal(number):
            madvise(memory.address, abi.PMD, advice)
    else:
        madvise(memory.address, abi.PMD, advice)
    gone = advice == abi.MADV_REMOVE
    assert memory.usage().charged == (2 * MIB if gone else 4 * MIB)
    assert memory.read(0, 1) == (b"\0" if gone else b"q")
    assert memory.read(abi.PMD, 1) == b"q"
    assert {extent.folio for extent in memory.layout()} <= {0, PAGE}


@pytest.mark.parametrize("advice", [abi.MADV_POPULATE_READ, abi.MADV_POPULATE_WRITE])
def test_populating(vm: Vm, host: LiveHost, advice: int) -> None:
    memory = host.guest_memfd(SIZE)
    madvise(memory.address, 4 * PAGE, advice)
    assert [page for page, there in enumerate(memory.used()) if there] == [0, 1, 2, 3]
    with refusal(errno.EFAULT):
        madvise(host.guest_memfd(SIZE, MMAP).address, PAGE, advice)


# -- pins (L10) --------------------------------------------------------------------------------------------------------------


@needs_root
def test_punch_of_a_pinned_page(memory: GuestMemfd) -> None:
    memory.write(0, SIZE, b"p")
    frame = frames(memory.address, PAGE)[0]
    memory.pin(0, PAGE)
    memory.punch_hole(0, PAGE)
    assert pages_of(memory) == list(range(1, PAGES))
    assert memory.usage().stranded == 0
    assert memory.tags()[0] == 0
    memory.write(0, PAGE, b"n")
    assert frames(memory.address, PAGE)[0] not in (frame, None)
    with_others = memory.vm.create_guest_memfd(64 * MIB, MAPPABLE)
    address = mmap(64 * MIB, PROT_READ_WRITE, MAP_SHARED, with_others)
    write_bytes(range(address, address + 64 * MIB, PAGE), 1)
    assert frame not in frames(address, 64 * MIB)  # an orphan, in use until it is unpinned
    munmap(address, 64 * MIB)
    os.close(with_others)
    memory.unpin(0, PAGE)
    with pytest.raises(InvalidArgument):
        memory.unpin(0, PAGE)
    assert memory.tags()[:2] == b"np"


def test_pins_fault_pages_in(memory: GuestMemfd) -> None:
    memory.pin(PAGE, 3 * PAGE)
    assert pages_of(memory) == [1, 2, 3]
    with pytest.raises(MemoryFault):
        memory.pin(SIZE - PAGE, 2 * PAGE)
    with pytest.raises(InvalidArgument):
        memory.unpin(PAGE, 2 * PAGE)
    memory.unpin(PAGE, 3 * PAGE)
