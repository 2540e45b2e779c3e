"""Virtual machines through /dev/kvm: guest_memfd, memslots, memory attributes, pre-faulting. No guest ever runs.

A machine belongs to the process that made it: its ioctls from a forked child give EIO.
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from gmemlab.errors import UnsupportedError, operation_error
from gmemlab.kernel import abi
from gmemlab.kernel.features import CAPABILITIES, probe_kvm

DEVICE: Final = "/dev/kvm"
_MASK: Final = (1 << 64) - 1
_WORD: Final = (1 << 32) - 1
_RESERVED: Final = (0,) * 6


class Vm:
    """A virtual machine of some type. Numbers reach the kernel unchanged (cut to 64 bits); errors are `OSError`.

    Args:
        kind: `abi.VM_DEFAULT` or `abi.VM_SW_PROTECTED`.

    Raises:
        UnsupportedError: no KVM, no guest_memfd, or no such type of machine.
    """

    def __init__(self, kind: int = abi.VM_DEFAULT) -> None:
        found = probe_kvm(DEVICE)
        if not found.available:
            raise UnsupportedError(DEVICE, found.reason)
        if not found.guest_memfd:
            raise UnsupportedError("KVM_CAP_GUEST_MEMFD", "this kernel lacks it (it came with 6.8)")
        self.kind = kind
        self._vcpu = -1
        self._kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.fd = _ioctl(self._kvm, abi.CREATE_VM, kind)
        except OSError as error:
            os.close(self._kvm)
            raise UnsupportedError(f"KVM VM type {kind}", f"cannot be created: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def capability(self, name: str) -> int:
        """KVM_CHECK_EXTENSION on this machine; 0 if absent.

        Args:
            name: one of `features.CAPABILITIES`.
        """
        return _ioctl(self.fd, abi.CHECK_EXTENSION, CAPABILITIES[name])

    def create_guest_memfd(self, size: int, flags: int = 0, reserved: Sequence[int] = _RESERVED) -> int:
        """KVM_CREATE_GUEST_MEMFD (G1). Returns the file.

        Args:
            size: bytes.
            flags: of the file (G8).
            reserved: six words, which 6.18 ignores (L1).

        Raises:
            OSError: EINVAL for flags or a size that it does not take (G11).
        """
        request = abi.GUEST_MEMFD.pack(size & _MASK, flags & _MASK, *(word & _MASK for word in reserved))
        return _ioctl(self.fd, abi.CREATE_GUEST_MEMFD, bytearray(request))

    def set_memory_region(
        self, slot: int, gpa: int, size: int, user: int, fd: int, offset: int, flags: int = abi.MEM_GUEST_MEMFD
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION2 (G2); a size of 0 deletes the slot.

        Args:
            slot: its number.
            gpa: guest address, bytes.
            size: bytes.
            user: address of the memory for shared pages.
            fd: the guest_memfd.
            offset: in it, bytes.
            flags: KVM_MEM_*.

        Raises:
            OSError: with the kernel's errno (G28 to G30).
        """
        request = abi.MEMORY_REGION2.pack(
            slot & _WORD, flags & _WORD, gpa & _MASK, size & _MASK, user & _MASK, offset & _MASK, fd & _WORD, 0
        )
        _ioctl(self.fd, abi.SET_USER_MEMORY_REGION2, bytearray(request))

    def set_attributes(self, gpa: int, size: int, attributes: int, flags: int = 0) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES on the machine (G3, G38).

        Args:
            gpa: guest address, bytes.
            size: bytes.
            attributes: 0 or `abi.ATTRIBUTE_PRIVATE`.
            flags: must be 0.

        Raises:
            OSError: EINVAL for what it does not take; ENOTTY where the kernel lacks it.
        """
        request = abi.MEMORY_ATTRIBUTES.pack(gpa & _MASK, size & _MASK, attributes & _MASK, flags & _MASK)
        _ioctl(self.fd, abi.SET_MEMORY_ATTRIBUTES, bytearray(request))

    def pre_fault(self, gpa: int, size: int, flags: int = 0) -> None:
        """KVM_PRE_FAULT_MEMORY on a vCPU (G4, G40), until all of the range is mapped.

        Args:
            gpa: guest address, bytes.
            size: bytes.
            flags: must be 0.

        Raises:
            UnsupportedError: the kernel lacks it, or has no nested paging to fill.
            OperationError: with the kernel's errno: NotFound without a memslot; `done` pages were mapped before.
        """
        if not self.capability("KVM_CAP_PRE_FAULT_MEMORY"):
            raise UnsupportedError("KVM_CAP_PRE_FAULT_MEMORY", "absent (it came with 6.11, and needs nested paging)")
        request = bytearray(abi.PRE_FAULT.pack(gpa & _MASK, size & _MASK, flags & _MASK))
        left = -1
        while left:
            try:
                _ioctl(self._get_vcpu(), abi.PRE_FAULT_MEMORY, request)
            except OSError as error:
                done = (size - abi.PRE_FAULT.unpack(request)[1]) // abi.PAGE if left > 0 else 0
                raise operation_error(error.errno or 0, done, f"pre-fault {size} at {gpa:#x}") from error
            _, left, _ = abi.PRE_FAULT.unpack(request)

    def _get_vcpu(self) -> int:
        if self._vcpu < 0:
            self._vcpu = _ioctl(self.fd, abi.CREATE_VCPU, 0)
        return self._vcpu

    def close(self) -> None:
        """Close it; files of guest_memfd stay as long as they are open; harmless when done twice."""
        for fd in (self._vcpu, self.fd, self._kvm):
            if fd >= 0:
                os.close(fd)
        self._vcpu = self.fd = self._kvm = -1


def has_per_file_attributes(fd: int) -> bool:
    """Whether KVM_SET_MEMORY_ATTRIBUTES2 exists on a guest_memfd (G5), which no capability number tells for sure (G7).

    Args:
        fd: a guest_memfd.
    """
    number, _ = set_file_attributes(fd, 0, 0, 0)
    return number != errno.ENOTTY


def set_file_attributes(fd: int, offset: int, size: int, attributes: int, flags: int = 0) -> tuple[int, int]:
    """KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd (G5, G42). Returns (errno, error_offset); 0 is success.

    Args:
        fd: the file.
        offset: bytes.
        size: bytes.
        attributes: 0 or `abi.ATTRIBUTE_PRIVATE`.
        flags: must be 0.
    """
    request = bytearray(abi.MEMORY_ATTRIBUTES2.pack(offset & _MASK, size & _MASK, attributes & _MASK, flags & _MASK, 0))
    try:
        _ioctl(fd, abi.SET_MEMORY_ATTRIBUTES2, request)
    except OSError as error:
        return error.errno or 0, int(abi.MEMORY_ATTRIBUTES2.unpack(request)[4])
    return 0, 0


def _ioctl(fd: int, request: int, argument: int | bytearray) -> int:
    """Call ioctl(2), again if it was interrupted; a bytearray is changed in place."""
    while True:
        try:
            return int(fcntl.ioctl(fd, request, argument))
        except InterruptedError:
            continue
