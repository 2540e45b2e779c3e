"""Which pages of a file are present, and which pages of a mapping are up to date. All pages are 4 KiB.

cachestat(2) sees every kind of file but hugetlb, also a guest_memfd that cannot be mapped; mincore(2) sees those pages of a
guest_memfd that were faulted, so zeroed, and not those that were merely allocated.
"""

import ctypes
import errno
from typing import Final

from gmemlab.errors import UnsupportedError, operation_error
from gmemlab.kernel.observe import PAGE

_SYS_CACHESTAT: Final = 451  # since 6.5; one number for all architectures
_LOOKS: Final = 10  # at a file that changes meanwhile: reclaim and khugepaged ask nobody

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    """struct cachestat_range of include/uapi/linux/mman.h; a length of 0 means to the end of the file."""

    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    """struct cachestat."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted"))


def count_present(fd: int, offset: int, size: int) -> int:
    """Return how many pages of a range are in the file.

    Args:
        fd: the file.
        offset: bytes, a multiple of 4096.
        size: bytes, a multiple of 4096; none are counted if it is 0.

    Raises:
        NotSupported: the file is one of hugetlb.
        UnsupportedError: the kernel is older than 6.5.
        OperationError: otherwise, with the kernel's errno.
    """
    if size == 0:
        return 0
    where, counts = _Range(offset, size), _Counts()
    if _libc.syscall(_SYS_CACHESTAT, fd, ctypes.byref(where), ctypes.byref(counts), 0) != 0:
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise UnsupportedError("cachestat(2)", "this kernel lacks it (it came with 6.5)")
        raise operation_error(number, 0, f"cachestat of {size} bytes at {offset}")
    return int(counts.cache)


def pages_present(fd: int, offset: int, size: int) -> list[bool]:
    """Return for each page of a range whether it is in the file.

    One system call tells about a range that is present or absent as a whole; others are halved until it is so.

    Args:
        fd: the file.
        offset: bytes, a multiple of 4096.
        size: bytes, a multiple of 4096.

    Raises:
        NotSupported: the file is one of hugetlb.
        UnsupportedError: the kernel is older than 6.5.
        OperationError: otherwise, with the kernel's errno; EBUSY where the file changes at each look.
    """
    for _ in range(_LOOKS):
        present = _look(fd, offset, size // PAGE)
        if present is not None:
            return present
    raise operation_error(errno.EBUSY, 0, f"cachestat of {size} bytes at {offset}, whose pages come and go,")


def pages_uptodate(address: int, size: int) -> list[bool]:
    """Return for each page of a mapping what mincore(2) says of it.

    Args:
        address: of the first byte, a multiple of 4096.
        size: bytes.

    Raises:
        OutOfMemory: part of the range is not mapped.
        OperationError: otherwise, with the kernel's errno.
    """
    vector = (ctypes.c_ubyte * -(-size // PAGE))()
    if _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector) != 0:
        raise operation_error(ctypes.get_errno(), 0, f"mincore of {size} bytes")
    return [bool(byte & 1) for byte in vector]


def _look(fd: int, offset: int, pages: int) -> list[bool] | None:
    """Return which pages are present; None where the halves of a range add up to what its whole was not."""
    present: list[bool] = []
    waiting = [(offset, pages, count_present(fd, offset, pages * PAGE))]
    while waiting:
        start, length, count = waiting.pop()
        if not 0 <= count <= length:
            return None
        if count in (0, length):
            present += [count > 0] * length
        else:
            half = length // 2
            middle = start + half * PAGE
            first = count_present(fd, start, half * PAGE)
            waiting.append((middle, length - half, count - first))
            waiting.append((start, half, first))
    return present
