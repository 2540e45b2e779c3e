"""System calls that Python lacks or wraps too tightly: arguments reach the kernel unchanged, errors are `OSError`.

Memory is touched through the kernel (process_vm_writev on this process itself): a page that cannot be faulted in is an
error there, where the processor's own access would end Python with SIGBUS.
"""

import ctypes
import errno
import os
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.abi import PAGE

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.syscall.restype = ctypes.c_long

PROT_NONE: Final = 0
PROT_READ: Final = 1
PROT_READ_WRITE: Final = 3
PROT_EXEC: Final = 4
MAP_SHARED: Final = 1
MAP_PRIVATE: Final = 2
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_NORESERVE: Final = 0x4000
MAP_POPULATE: Final = 0x8000
_FAILED: Final = ctypes.c_void_p(-1).value
_MOST_VECTORS: Final = 1024  # UIO_MAXIOV

_Transfer = Callable[..., int]
for _name in ("process_vm_readv", "process_vm_writev"):
    _function = getattr(_libc, _name)
    _function.restype = ctypes.c_ssize_t
    _function.argtypes = (
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
    )  # fmt: skip


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """Allocate, punch, or what else the mode says. Numbers beyond 64 bits are cut off.

    Args:
        fd: the file.
        mode: FALLOC_FL_* bits.
        offset: bytes, perhaps wrong on purpose.
        size: bytes, perhaps wrong on purpose.

    Raises:
        OSError: with the kernel's errno.
    """
    _checked(_libc.fallocate(fd, ctypes.c_int32(mode).value, ctypes.c_int64(offset).value, ctypes.c_int64(size).value))


def mmap(size: int, prot: int, flags: int, fd: int = -1, offset: int = 0, address: int = 0) -> int:
    """Map memory, as it is asked for. Returns the address.

    Args:
        size: bytes.
        prot: PROT_* bits.
        flags: MAP_* bits.
        fd: the file, -1 for none.
        offset: in the file.
        address: where it shall be; a wish, unless flags have MAP_FIXED.

    Raises:
        OSError: with the kernel's errno.
    """
    found: int | None = _libc.mmap(address, size, prot, flags, fd, offset)
    if found is None or found == _FAILED:
        raise _error()
    return found


def mmap_aligned(size: int, alignment: int, prot: int, flags: int, fd: int = -1) -> int:
    """Map memory at an address that is a multiple of `alignment`, so that huge pages can be mapped. Returns the address.

    Nobody can access the page behind it: whoever goes beyond the end gets EFAULT, not other memory of this process.
    Unmap it with `munmap_aligned`.

    Args:
        size: bytes, a multiple of 4096.
        alignment: bytes, a power of two.
        prot: PROT_* bits.
        flags: MAP_* bits.
        fd: the file, -1 for none.

    Raises:
        OSError: with the kernel's errno.
    """
    length = size + alignment + PAGE
    room = mmap(length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
    start = -(-room // alignment) * alignment
    try:
        mmap(size, prot, flags | MAP_FIXED, fd, 0, start)
    except OSError:
        munmap(room, length)
        raise
    if start > room:
        munmap(room, start - room)
    end = start + size + PAGE
    if room + length > end:
        munmap(end, room + length - end)
    return start


def munmap_aligned(address: int, size: int) -> None:
    """Undo `mmap_aligned`.

    Args:
        address: that it returned.
        size: that it was given.

    Raises:
        OSError: with the kernel's errno.
    """
    munmap(address, size)
    munmap(address + size, PAGE)


def munmap(address: int, size: int) -> None:
    """Unmap memory.

    Args:
        address: of the first byte.
        size: bytes.

    Raises:
        OSError: with the kernel's errno.
    """
    _checked(_libc.munmap(address, size))


def madvise(address: int, size: int, advice: int) -> None:
    """Tell the kernel what a range will be used for, or what to do with it.

    Args:
        address: of the first byte.
        size: bytes.
        advice: MADV_*.

    Raises:
        OSError: with the kernel's errno.
    """
    _checked(_libc.madvise(address, size, advice))


def write_bytes(places: Sequence[int], value: int) -> int:
    """Write a byte to each of some addresses of this process, in order, as accesses of its own would.

    Returns how many were written before the first that cannot be: there, an access would end in SIGBUS or SIGSEGV.

    Args:
        places: the addresses.
        value: of the byte.

    Raises:
        UnsupportedError: the kernel lacks process_vm_writev(2).
    """
    return _scattered(_libc.process_vm_writev, places, ctypes.create_string_buffer(bytes((value,)) * len(places), len(places)))


def read_bytes(places: Sequence[int]) -> bytes:
    """Read a byte at each of some addresses of this process, in order; fewer if one cannot be read (see `write_bytes`).

    Args:
        places: the addresses.

    Raises:
        UnsupportedError: the kernel lacks process_vm_readv(2).
    """
    buffer = ctypes.create_string_buffer(len(places))
    count = _scattered(_libc.process_vm_readv, places, buffer)
    return buffer.raw[:count]


def read_memory(address: int, size: int) -> bytes:
    """Read this process's own memory, as an access of its own would.

    Args:
        address: of the first byte.
        size: bytes.

    Raises:
        OSError: EFAULT where the access would end in SIGBUS or SIGSEGV.
        UnsupportedError: the kernel lacks process_vm_readv(2).
    """
    buffer = ctypes.create_string_buffer(size)
    if _transferred(_libc.process_vm_readv, buffer, 0, size, array("Q", (address, size))) != size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return buffer.raw


def syscall(number: int, *arguments: Any) -> int:
    """Make a call that the C library has no name for; returns its result.

    Args:
        number: of the call.
        *arguments: as ctypes takes them.

    Raises:
        OSError: with the kernel's errno.
    """
    return _checked(int(_libc.syscall(ctypes.c_long(number), *arguments)))


def _scattered(call: _Transfer, places: Sequence[int], buffer: "ctypes.Array[ctypes.c_char]") -> int:
    """Transfer the bytes at some addresses, in order, up to the first that faults; a vector of one byte is not split."""
    done = 0
    while done < len(places):
        some = places[done : done + _MOST_VECTORS]
        vectors = array("Q", bytes(16 * len(some)))
        vectors[::2] = array("Q", some)
        vectors[1::2] = array("Q", (1,)) * len(some)
        count = _transferred(call, buffer, done, len(some), vectors)
        if count == 0:
            break
        done += count
    return done


def _transferred(call: _Transfer, buffer: "ctypes.Array[ctypes.c_char]", start: int, size: int, vectors: "array[int]") -> int:
    """Transfer between the buffer and other places in this process; 0 if the first of them faults."""
    own = array("Q", (ctypes.addressof(buffer) + start, size))
    count = call(os.getpid(), own.buffer_info()[0], 1, vectors.buffer_info()[0], len(vectors) // 2, 0)
    if count >= 0:
        return count
    error = _error()
    if error.errno == errno.ENOSYS:
        raise UnsupportedError("process_vm_readv(2)", "this kernel lacks it (CONFIG_CROSS_MEMORY_ATTACH)") from error
    if error.errno != errno.EFAULT:
        raise error
    return 0


def _checked(result: int) -> int:
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
