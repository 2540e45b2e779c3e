"""A stopwatch for system calls and page faults: nanoseconds inside the kernel, without what Python and ctypes take.

Calls are made in a loop; what the same loop takes with a C function that does nothing is taken off. The way into the kernel
and back stays in: whoever calls pays for it (measured: 0.13 us with a system call that does nothing, getppid). The clock is
the processor time of this thread: on a busy machine a long loop is preempted and a short one is not, so that the wall clock
would charge the kernel with what others do (measured: 3 us instead of 1 us for getppid). Waiting is not counted.
"""

import ctypes
import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gmemlab.kernel import abi

PUNCH: Final = abi.KEEP_SIZE | abi.PUNCH_HOLE
_NULL_CALLS: Final = 2000
_NULL_TRIES: Final = 5
_Call = Callable[..., int]
_Arguments = Sequence[tuple[int, ...]]

_libc: Final = ctypes.CDLL(None, use_errno=True)
_fallocate: Final = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_madvise: Final = _libc.madvise
_madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_ioctl: Final = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_size_t)
_syscall: Final = _libc.syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_uint)
# Looks at one argument only; four are given, so that Python has as much to do as for the others.
_null: Final = _libc.labs
_null.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def null_call_ns() -> float:
    """Return what Python and ctypes take for one call, in a loop that calls a C function that does nothing: median of a few."""
    arguments = [(0, 0, offset, abi.PAGE) for offset in range(_NULL_CALLS)]
    return sorted(_loop(_null, arguments)[0] for _ in range(_NULL_TRIES))[_NULL_TRIES // 2] / _NULL_CALLS


def fallocate_ns(fd: int, mode: int, offsets: Sequence[int], size: int, null_ns: float) -> float:
    """Return the nanoseconds of fallocate(2) in all, for ranges with one call each.

    Args:
        fd: the file.
        mode: FALLOC_FL_* bits.
        offsets: of the ranges, in bytes.
        size: of each range, in bytes.
        null_ns: from `null_call_ns`.

    Raises:
        OSError: the kernel refuses a call.
    """
    return _calls_ns(_fallocate, [(fd, mode, offset, size) for offset in offsets], null_ns)


def madvise_ns(addresses: Sequence[int], size: int, advice: int, null_ns: float) -> float:
    """Return the nanoseconds of madvise(2) in all, for ranges with one call each.

    Args:
        addresses: of the ranges.
        size: of each range, in bytes.
        advice: MADV_*.
        null_ns: from `null_call_ns`.

    Raises:
        OSError: the kernel refuses a call.
    """
    return _calls_ns(_madvise, [(address, size, advice) for address in addresses], null_ns)


def ioctl_ns(fd: int, request: int, addresses: Sequence[int], null_ns: float) -> float:
    """Return the nanoseconds of ioctl(2) in all, one call for each structure.

    Args:
        fd: the file.
        request: its number.
        addresses: of the structures.
        null_ns: from `null_call_ns`.

    Raises:
        OSError: the kernel refuses a call.
    """
    return _calls_ns(_ioctl, [(fd, request, address) for address in addresses], null_ns)


def register_ns(ring: int, operation: int, vectors: int, count: int, null_ns: float) -> float:
    """Return the nanoseconds of one io_uring_register(2).

    Args:
        ring: the io_uring.
        operation: IORING_REGISTER_* or IORING_UNREGISTER_*.
        vectors: address of its argument.
        count: of the argument's parts.
        null_ns: from `null_call_ns`.

    Raises:
        OSError: the kernel refuses the call.
    """
    return _calls_ns(_syscall, [(abi.SYS_IO_URING_REGISTER, ring, operation, vectors, count)], null_ns)


def touch_ns(address: int, size: int, step: int) -> float:
    """Return the nanoseconds of write faults in all, without what the same loop takes when nothing faults.

    Args:
        address: of mapped memory that can be backed: where it cannot, the process dies.
        size: bytes.
        step: bytes from one touched byte to the next.
    """
    view = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
    first, second = (_touch(view, step) for _ in range(2))
    return float(max(0, first - second))


def write_ns(path: Path, data: bytes) -> int:
    """Return the nanoseconds of one write(2) to a file of /proc or /sys that does its work meanwhile.

    Args:
        path: of the file.
        data: what is written.

    Raises:
        OSError: there is no such file, or the kernel refuses.
    """
    fd = os.open(path, os.O_WRONLY)
    try:
        start = time.thread_time_ns()
        os.write(fd, data)
        return time.thread_time_ns() - start
    finally:
        os.close(fd)


def _calls_ns(call: _Call, arguments: _Arguments, null_ns: float) -> float:
    elapsed, failed = _loop(call, arguments)
    for again in failed:
        # guest_memfd is interrupted now and then without a signal of ours (live-kernel.md, section 0).
        while call(*again) < 0:
            if (number := ctypes.get_errno()) != errno.EINTR:
                raise OSError(number, os.strerror(number))
    return max(0.0, elapsed - null_ns * len(arguments))


def _loop(call: _Call, arguments: _Arguments) -> tuple[int, list[tuple[int, ...]]]:
    """Return the time of a call with each set of arguments, and the sets for which it failed."""
    start = time.thread_time_ns()
    failed = [some for some in arguments if call(*some) < 0]
    return time.thread_time_ns() - start, failed


def _touch(view: memoryview, step: int) -> int:
    start = time.thread_time_ns()
    for place in range(0, len(view), step):
        view[place] = 1
    return time.thread_time_ns() - start
