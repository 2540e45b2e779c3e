"""Long-term pins on pages of this process, as passthrough and RDMA hold them: io_uring's registered buffers.

Each pin has a ring of its own, so that releasing it undoes exactly one call. A pin stays on its frames when the file
punches them (L10, L14).
"""

import ctypes
import errno
import os
import resource
from collections.abc import Callable
from typing import Any, ClassVar, Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.abi import (
    IO_URING_PARAMS,
    REGISTER_BUFFERS,
    SYS_IO_URING_REGISTER,
    SYS_IO_URING_SETUP,
    UNREGISTER_BUFFERS,
)
from gmemlab.kernel.calls import syscall

MOST_PINS: Final = 512  # each is an open file; half of the usual limit of a process
_ENTRIES: Final = 1
_LARGEST_BUFFER: Final = 1 << 30  # io_uring refuses larger ones
_ABSENT: Final = (errno.ENOSYS, errno.EPERM)  # EPERM: kernel.io_uring_disabled


class Pin:
    """One call's pins on a range of addresses.

    Args:
        address: of the first byte; the pages are faulted in for writing.
        size: bytes.

    Raises:
        UnsupportedError: io_uring is absent or forbidden.
        OSError: EFAULT where a page cannot be faulted in; ENOMEM beyond RLIMIT_MEMLOCK, which binds only users without
            CAP_IPC_LOCK; EMFILE beyond `MOST_PINS`.
    """

    _held: ClassVar[int] = 0

    def __init__(self, address: int, size: int) -> None:
        if Pin._held >= MOST_PINS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        words: list[int] = []
        for start in range(address, address + size, _LARGEST_BUFFER):
            words += [start, min(_LARGEST_BUFFER, address + size - start)]
        vectors = (ctypes.c_uint64 * len(words))(*words)
        self._ring = _with_memlock(_ring)
        try:
            _with_memlock(lambda: _register(self._ring, REGISTER_BUFFERS, ctypes.byref(vectors), len(words) // 2))
        except OSError:
            os.close(self._ring)
            raise
        Pin._held += 1

    def release(self) -> None:
        """Let the pages go; harmless when done twice.

        Closing the ring alone would let them go some time later, from a kernel worker.
        """
        if self._ring < 0:
            return
        while True:
            try:
                _register(self._ring, UNREGISTER_BUFFERS, None, 0)
            except InterruptedError:  # up to 6.12, the kernel waits for the ring's other users
                continue
            break
        os.close(self._ring)
        self._ring = -1
        Pin._held -= 1


def _ring() -> int:
    parameters = ctypes.create_string_buffer(IO_URING_PARAMS)
    try:
        return syscall(SYS_IO_URING_SETUP, _ENTRIES, ctypes.byref(parameters))
    except OSError as error:
        if error.errno in _ABSENT:
            raise UnsupportedError("io_uring", f"pins need it: {error.strerror}") from error
        raise


def _register(ring: int, operation: int, vectors: Any, count: int) -> int:
    return syscall(SYS_IO_URING_REGISTER, ring, operation, vectors, count)


def _with_memlock(call: Callable[[], int]) -> int:
    """Call, and once more with as much locked memory as this process may allow itself if the kernel says ENOMEM."""
    try:
        return call()
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if error.errno != errno.ENOMEM or soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        return call()
