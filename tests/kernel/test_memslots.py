"""Memslots on guest_memfd, which no guest ever uses here (L11, G28 to G30)."""

import errno

import pytest

from gmemlab.kernel import abi
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.differences import difference
from gmemlab.kernel.features import read_release
from gmemlab.kernel.guest_memfd import GuestMemfd
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.kvm import Vm
from live_world import LARGEST, refusal

SIZE = 16 * PAGE


@pytest.fixture
def memory(vm: Vm, host: LiveHost) -> GuestMemfd:
    return host.guest_memfd(SIZE)


def test_memslots(vm: Vm, host: LiveHost) -> None:
    memory = host.guest_memfd(SIZE)
    memory.bind(0, 0, 0, 8 * PAGE)
    overlap = difference("memslot_overlap", read_release())
    for offset, size in ((0, 8 * PAGE), (7 * PAGE, PAGE), (7 * PAGE, 9 * PAGE), (0, SIZE)):
        with refusal(overlap):
            memory.bind(1, 1 << 30, offset, size)
    memory.bind(1, 1 << 30, 8 * PAGE, 8 * PAGE)
    with refusal(errno.EINVAL):
        memory.bind(0, 0, 0, 4 * PAGE)  # cannot be changed
    with refusal(errno.EINVAL):
        memory.bind(0, 0, 0, 8 * PAGE)  # nor set again
    memory.unbind(0)
    with refusal(errno.EINVAL):
        memory.unbind(0)
    memory.bind(2, 0, 0, 8 * PAGE)
    with refusal(errno.EEXIST):
        host.guest_memfd(SIZE).bind(3, 4 * PAGE)  # guest addresses overlap


@pytest.mark.parametrize(
    ("offset", "size", "number"),
    [
        (1, PAGE, errno.EINVAL),
        (512, PAGE, errno.EINVAL),
        (0, SIZE + PAGE, errno.EINVAL),
        (SIZE, PAGE, errno.EINVAL),
        (SIZE - PAGE, 2 * PAGE, errno.EINVAL),
        (-PAGE, PAGE, errno.EINVAL),
        (LARGEST - 2 * PAGE + 1, PAGE, errno.EINVAL),  # a page later the sum overflows in kvm_gmem_bind, which 6.18 accepts
        (0, PAGE + 1, errno.EINVAL),
        (0, 0, errno.EINVAL),
        (0, -PAGE, errno.EINVAL),
    ],
)
def test_memslots_that_are_refused(memory: GuestMemfd, offset: int, size: int, number: int) -> None:
    with refusal(number):
        memory.bind(0, 0, offset, size)
    memory.bind(0)


def test_memslots_of_other_files(vm: Vm, host: LiveHost) -> None:
    other = host.shmem(SIZE)
    for fd, number in ((-1, errno.EBADF), (1 << 20, errno.EBADF), (other.fd, errno.EINVAL)):
        with refusal(number):
            vm.set_memory_region(0, 0, PAGE, 0, fd, 0)
    with Vm() as stranger, GuestMemfd(stranger, SIZE) as foreign, refusal(errno.EINVAL):
        vm.set_memory_region(0, 0, PAGE, 0, foreign.fd, 0)


@pytest.mark.parametrize("flag", [abi.MEM_READONLY, abi.MEM_READONLY | abi.MEM_LOG_DIRTY_PAGES])
def test_memslots_cannot_be_read_only(memory: GuestMemfd, flag: int) -> None:
    with refusal(errno.EINVAL):
        memory.vm.set_memory_region(0, 0, PAGE, 0, memory.fd, 0, abi.MEM_GUEST_MEMFD | flag)


def test_slots_outlive_files(vm: Vm, host: LiveHost) -> None:
    memory = host.guest_memfd(SIZE)
    memory.bind(0)
    memory.close()
    other = host.guest_memfd(SIZE)
    with refusal(errno.EINVAL):
        other.bind(0)
    other.unbind(0)
    other.bind(0)
