"""Virtual machines without a guest: numbers of the interface, capabilities, memory attributes, pre-faulting."""

import errno
import os
import re
from struct import Struct

import pytest

from gmemlab.errors import MemoryFault, NotFound, UnsupportedError
from gmemlab.kernel import abi, kvm
from gmemlab.kernel.abi import PAGE
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.features import CAPABILITIES, probe_kvm
from gmemlab.kernel.guest_memfd import GuestMemfd, TwoSourceGuest
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.kvm import Vm, has_per_file_attributes, set_file_attributes
from gmemlab.protocol import Extent
from gmemlab.units import MIB

_WRITE, _READ = 1, 2
_KVM = 0xAE


@pytest.mark.parametrize(
    ("number", "direction", "which", "layout", "size"),
    [
        (abi.SET_USER_MEMORY_REGION2, _WRITE, 0x49, abi.MEMORY_REGION2, 160),  # G2
        (abi.SET_MEMORY_ATTRIBUTES, _WRITE, 0xD2, abi.MEMORY_ATTRIBUTES, 32),  # G3
        (abi.CREATE_GUEST_MEMFD, _WRITE | _READ, 0xD4, abi.GUEST_MEMFD, 64),  # G1
        (abi.PRE_FAULT_MEMORY, _WRITE | _READ, 0xD5, abi.PRE_FAULT, 64),  # G4
        (abi.SET_MEMORY_ATTRIBUTES2, _WRITE | _READ, 0xD2, abi.MEMORY_ATTRIBUTES2, 128),  # G5
    ],
)
def test_ioctl_numbers_encode_the_size_of_their_structures(
    number: int, direction: int, which: int, layout: Struct, size: int
) -> None:
    assert layout.size == size
    assert number == direction << 30 | size << 16 | _KVM << 8 | which


def test_capabilities_are_those_of_the_device(vm: Vm) -> None:
    assert {name: vm.capability(name) for name in CAPABILITIES} == probe_kvm().capabilities


@pytest.mark.parametrize("kind", [30, 99])
def test_machine_types_that_do_not_exist(kind: int) -> None:
    before = _open_files()
    with pytest.raises(UnsupportedError, match=rf"KVM VM type {kind}: cannot be created: |/dev/kvm|KVM_CAP_GUEST_MEMFD"):
        Vm(kind)
    assert _open_files() == before


def test_a_kernel_without_guest_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "DEVICE", "/dev/null")
    with pytest.raises(UnsupportedError, match="/dev/null: KVM_CHECK_EXTENSION"):
        Vm()
    monkeypatch.setattr(kvm, "DEVICE", "/nonexistent")
    with pytest.raises(UnsupportedError, match="/nonexistent: No such file"):
        Vm()


def test_closing_twice_gives_everything_back(vm: Vm) -> None:
    before = _open_files()
    with Vm() as machine, GuestMemfd(machine, PAGE) as memory:
        assert _open_files() > before
        memory.close()
        machine.close()
    assert _open_files() == before


def test_a_machine_belongs_to_its_process(vm: Vm) -> None:
    fd = vm.create_guest_memfd(16 * PAGE, 0)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            vm.create_guest_memfd(PAGE, 0)
        except OSError as error:
            code = error.errno or 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EIO
    os.close(fd)


# -- what this machine has not -----------------------------------------------------------------------------------------------


def test_attributes_of_a_machine_that_has_none(vm: Vm) -> None:
    if vm.capability("KVM_CAP_MEMORY_ATTRIBUTES"):
        pytest.skip("an ordinary machine without memory attributes")
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is what is looked at
        vm.set_attributes(0, PAGE, abi.ATTRIBUTE_PRIVATE)
    assert caught.value.errno == errno.ENOTTY
    with pytest.raises(UnsupportedError, match="KVM_CAP_MEMORY_ATTRIBUTES: absent for machines of type 0"):
        TwoSourceGuest(vm, MIB)


def test_attributes_of_a_file_are_probed(vm: Vm) -> None:
    with GuestMemfd(vm, 4 * PAGE) as memory:
        number, at = set_file_attributes(memory.fd, 0, 0, 0)
        assert (number, at) in ((errno.ENOTTY, 0), (errno.EINVAL, 0))  # (G7)
        assert has_per_file_attributes(memory.fd) is (number == errno.EINVAL)
        if number == errno.ENOTTY:
            with pytest.raises(UnsupportedError, match="KVM_SET_MEMORY_ATTRIBUTES2"):
                memory.convert(0, PAGE, "private")


def test_guest_accesses_without_pre_faulting(vm: Vm) -> None:
    if vm.capability("KVM_CAP_PRE_FAULT_MEMORY"):
        pytest.skip("a kernel without KVM_PRE_FAULT_MEMORY")
    with GuestMemfd(vm, 4 * PAGE) as memory:
        with pytest.raises(NotFound, match="no memslot"):
            memory.access(0, PAGE, by="guest-shared")
        memory.bind(0)
        with pytest.raises(MemoryFault) as caught:
            memory.access(0, PAGE, by="guest")
        assert caught.value.done == 0
        with pytest.raises(UnsupportedError, match="KVM_CAP_PRE_FAULT_MEMORY: absent"):
            memory.access(0, PAGE, by="guest-shared")
        assert not any(memory.present())


# -- with KVM_PRE_FAULT_MEMORY -----------------------------------------------------------------------------------------------


def test_guest_accesses_through_memslots(vm: Vm) -> None:
    if not vm.capability("KVM_CAP_PRE_FAULT_MEMORY"):
        pytest.skip("KVM_CAP_PRE_FAULT_MEMORY")
    with GuestMemfd(vm, 64 * PAGE) as memory:
        memory.bind(0, 1 << 32, 0, 16 * PAGE)
        memory.bind(1, 1 << 33, 16 * PAGE, 16 * PAGE)
        memory.access(14 * PAGE, 4 * PAGE, by="guest-shared")
        assert [page for page, there in enumerate(memory.present()) if there] == [14, 15, 16, 17]
        with pytest.raises(NotFound) as caught:
            memory.access(30 * PAGE, 4 * PAGE, by="guest-shared")
        assert caught.value.done == 2
        memory.unbind(1)
        with pytest.raises(NotFound) as caught:
            memory.access(14 * PAGE, 4 * PAGE, by="guest-shared")
        assert caught.value.done == 2


# -- private and shared memory from two sources (live-kernel.md, section 7) --------------------------------------------------


@pytest.fixture
def guest(host: LiveHost) -> TwoSourceGuest:
    try:
        guest = host.two_source_guest("8M")
    except UnsupportedError as error:
        pytest.skip(str(error))
    if not guest.vm.capability("KVM_CAP_PRE_FAULT_MEMORY"):
        pytest.skip("KVM_CAP_PRE_FAULT_MEMORY")
    return guest


def _both(guest: TwoSourceGuest) -> tuple[int, int]:
    return sum(guest.present()), sum(guest.shared_side.present())


def test_double_allocation(guest: TwoSourceGuest) -> None:
    assert _both(guest) == (0, 0)
    guest.access(0, "2M")
    assert _both(guest) == (512, 0)
    guest.convert(0, "1M", "shared")
    assert _both(guest) == (512, 0)  # conversion frees nothing
    guest.access(0, "1M", by="guest-shared")
    guest.access("1M", "1M")
    private, shared = _both(guest)
    assert private == 512 and shared in (256, 512)  # as large as the anonymous folio is (K13)
    usage = guest.usage()
    assert (usage.size, usage.charged, usage.shared_side) == (8 * MIB, 2 * MIB, shared * PAGE)
    assert (usage.shared, usage.backed_twice) == (MIB, shared * PAGE)
    assert guest.layout() == [
        Extent(0, MIB, PAGE, True),
        Extent(MIB, MIB, PAGE, False),
        Extent(2 * MIB, 6 * MIB, 0, False),
    ]
    guest.punch_hole(0, "1M")
    assert _both(guest) == (256, shared)
    guest.shared_side.punch_hole(0, "1M")
    assert _both(guest) == (256, shared - 256)
    guest.convert(0, "1M", "private")
    guest.access(0, "2M")
    assert _both(guest) == (512, shared - 256)


def test_the_attribute_decides_who_may_touch(guest: TwoSourceGuest) -> None:
    guest.convert(PAGE, PAGE, "shared")
    with pytest.raises(MemoryFault) as caught:
        guest.access(0, 2 * PAGE)
    assert caught.value.done == 1
    with pytest.raises(MemoryFault):
        guest.access(0, PAGE, by="guest-shared")
    with pytest.raises(OSError, match="EACCES") as refused:
        guest.access(PAGE, 2 * PAGE, by="host")
    assert getattr(refused.value, "done", None) == 1
    assert _both(guest)[0] == 1
    guest.pin(PAGE, PAGE)
    guest.unpin(PAGE, PAGE)
    with pytest.raises(MemoryFault):
        guest.pin(0, PAGE)


@pytest.mark.parametrize(
    ("gpa", "size", "attributes", "flags"),
    [
        (0, PAGE, abi.ATTRIBUTE_PRIVATE, 1),
        (1, PAGE, abi.ATTRIBUTE_PRIVATE, 0),
        (0, PAGE + 1, abi.ATTRIBUTE_PRIVATE, 0),
        (0, 0, abi.ATTRIBUTE_PRIVATE, 0),
        (0, PAGE, 1, 0),
        (0, PAGE, 9, 0),
        (-PAGE, 2 * PAGE, abi.ATTRIBUTE_PRIVATE, 0),
    ],
)
def test_attributes_that_are_refused(guest: TwoSourceGuest, gpa: int, size: int, attributes: int, flags: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is what is looked at
        guest.vm.set_attributes(gpa, size, attributes, flags)
    assert caught.value.errno == errno.EINVAL  # (G38)
    guest.vm.set_attributes(1 << 40, PAGE, abi.ATTRIBUTE_PRIVATE)  # no memslot there, accepted


def test_private_machines_and_shared_files(guest: TwoSourceGuest) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is what is looked at
        guest.vm.create_guest_memfd(PAGE, abi.FLAG_INIT_SHARED)
    assert caught.value.errno == errno.EINVAL  # up to 7.3 (G12)


def test_anonymous_memory_is_not_converted(host: LiveHost) -> None:
    memory: AnonymousMemory = host.anonymous("4M")
    with pytest.raises(OSError, match=re.escape("convert 4096 at 0 to shared (anonymous): ")) as caught:
        memory.convert(0, PAGE, "shared")
    assert caught.value.errno == errno.EOPNOTSUPP


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names only
