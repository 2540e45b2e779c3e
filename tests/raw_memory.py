"""Files of guest memory and mappings, by bare system calls: what the tests of the observers look at."""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

PUNCH: Final = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
ALLOCATE: Final = 1
MAPPABLE: Final = 3  # GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED (G8)
_KVM_CREATE_VM: Final = 0xAE01
_KVM_CREATE_GUEST_MEMFD: Final = 0xC040AED4  # (G1)

_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextmanager
def guest_memfd(size: int, flags: int = 0) -> Iterator[int]:
    """Yield a guest_memfd of a VM of its own; skip the test where the kernel has none."""
    try:
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        vm = fcntl.ioctl(kvm, _KVM_CREATE_VM)
        file = fcntl.ioctl(vm, _KVM_CREATE_GUEST_MEMFD, bytearray(struct.pack("<8Q", size, flags, *(0,) * 6)))
    except OSError as error:
        pytest.skip(f"guest_memfd with flags {flags}: {error.strerror}")
    try:
        yield file
    finally:
        for handle in (file, vm, kvm):
            os.close(handle)


@contextmanager
def shmem(size: int) -> Iterator[int]:
    """Yield a memfd."""
    file = os.memfd_create("gmemlab-test")
    try:
        os.ftruncate(file, size)
        yield file
    finally:
        os.close(file)


@contextmanager
def mapped(file: int, size: int) -> Iterator[tuple[mmap.mmap, int]]:
    """Yield a shared mapping of a file, and its address."""
    with mmap.mmap(file, size) as memory:
        anchor = ctypes.c_char.from_buffer(memory)
        try:
            yield memory, ctypes.addressof(anchor)
        finally:
            del anchor


def fallocate(file: int, mode: int, offset: int, size: int) -> None:
    """Call fallocate(2), again if it was interrupted (section 0 of live-kernel)."""
    while _libc.fallocate(file, mode, ctypes.c_int64(offset), ctypes.c_int64(size)) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
