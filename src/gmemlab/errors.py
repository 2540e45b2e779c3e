"""Every exception gmemlab raises on purpose.

::

    GmemlabError                     exit code 1
    ├── UsageError                   exit code 2: input that is wrong, with the place and what is allowed
    ├── UnsupportedError             exit code 3: this kernel or machine lacks something, which is named
    ├── CapacityError                exit code 1: a table of the model is full, though the modelled memory is not
    └── OperationError (OSError)     an operation on memory failed, with its errno and how far it got
        ├── OutOfMemory              ENOMEM: no free memory, no page structs for a split, no pool page to reserve
        ├── PoolExhausted            ENOSPC: no page left in the hugetlb pool
        ├── TryAgain                 EAGAIN: a page is pinned or referenced
        ├── InvalidArgument          EINVAL: negative, empty, unaligned, beyond the end of the file
        ├── MemoryFault              EFAULT: the page's attribute or presence forbids the access
        ├── HostAccessFault          EACCES: the host touched private memory (SIGBUS on a real machine)
        ├── NotSupported             EOPNOTSUPP: this kind of memory has no such operation
        ├── TooBig                   EFBIG: the range ends beyond what a file can hold
        └── NotFound                 ENOENT: no such page

The model and the live kernel raise the same ones. ``str()`` of each is one line, fit for a terminal.
"""

import errno as _errno
import os
from typing import ClassVar, Self

_VALUE_WIDTH = 80


class GmemlabError(Exception):
    """Base of all errors that are raised on purpose; ``exit_code`` is what the command line returns for it."""

    exit_code: ClassVar[int] = 1


class UsageError(GmemlabError):
    """Input that cannot be used: a file, an option, an argument.

    Args:
        message: what is wrong, in a few words.
        file: the file that the input came from.
        line: its line, from 1.
        key: the key or option at fault, as the user writes it.
        value: the value at fault.
        allowed: what would have been accepted.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        key: str | None = None,
        value: object = None,
        allowed: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = None if file is None else os.fspath(file)
        self.line = line
        self.key = key
        self.value = value
        self.allowed = allowed

    def at(self, *, file: str | os.PathLike[str] | None = None, line: int | None = None, key: str | None = None) -> Self:
        """Return the same error with the place added where it had none.

        Args:
            file: used if the error names no file.
            line: used if the error names no line.
            key: used if the error names no key.
        """
        return type(self)(
            self.message,
            file=file if self.file is None else self.file,
            line=line if self.line is None else self.line,
            key=key if self.key is None else self.key,
            value=self.value,
            allowed=self.allowed,
        )

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        elif self.line is not None:
            place = f"line {self.line}: "
        key = f"{self.key}: " if self.key is not None else ""
        remarks = []
        if self.value is not None:
            remarks.append(f"value {_shortened(repr(self.value))}")
        if self.allowed is not None:
            remarks.append(f"allowed: {self.allowed}")
        return _one_line(f"{place}{key}{self.message}" + (f" ({'; '.join(remarks)})" if remarks else ""))


class UnsupportedError(GmemlabError):
    """The kernel or machine lacks something.

    Args:
        feature: the name of what is missing, such as ``/proc/buddyinfo`` or ``KVM_CAP_GUEST_MEMFD``.
        reason: how that showed, in a few words.
    """

    exit_code = 3

    def __init__(self, feature: str, reason: str) -> None:
        super().__init__(feature, reason)
        self.feature = feature
        self.reason = reason

    def __str__(self) -> str:
        return _one_line(f"{self.feature}: {self.reason}")


class CapacityError(GmemlabError):
    """A table of the model is full, though the memory that it models is not: the state is no longer of use."""


class OperationError(GmemlabError, OSError):
    """An operation on memory failed.

    Args:
        errno: the Linux error number (> 0).
        done: 4 KiB pages that were handled before the failure; that much has happened and stays.
        what: the operation, as the message shall name it.
    """

    ERRNO: ClassVar[int | None] = None

    def __init__(self, errno: int, done: int, what: str) -> None:
        super().__init__(errno, os.strerror(errno))
        self.done = done
        self.what = what

    def __str__(self) -> str:
        name = _errno.errorcode.get(self.errno or 0, str(self.errno))
        progress = f"; {self.done} page{'s' if self.done != 1 else ''} done before" if self.done else ""
        return _one_line(f"{self.what}: {self.strerror} ({name}){progress}")

    def __reduce__(self) -> tuple[type[Self], tuple[int | None, int, str]]:
        return type(self), (self.errno, self.done, self.what)


class OutOfMemory(OperationError):
    """ENOMEM: no free memory, no page structs for a split (K5), or no pool page to reserve (G70)."""

    ERRNO = _errno.ENOMEM


class PoolExhausted(OperationError):
    """ENOSPC: the hugetlb pool has no page left."""

    ERRNO = _errno.ENOSPC


class TryAgain(OperationError):
    """EAGAIN: a page in the range is pinned or referenced (G45, G72 to G74); ``done`` pages came before it."""

    ERRNO = _errno.EAGAIN


class InvalidArgument(OperationError):
    """EINVAL: a range that is negative, empty, unaligned or beyond the end of the file."""

    ERRNO = _errno.EINVAL


class MemoryFault(OperationError):
    """EFAULT: the page is private where shared was wanted, the other way round (G39), or absent."""

    ERRNO = _errno.EFAULT


class HostAccessFault(OperationError):
    """EACCES: the host touched private memory; a process on a real machine gets SIGBUS (G26)."""

    ERRNO = _errno.EACCES


class NotSupported(OperationError):
    """EOPNOTSUPP: this kind of memory has no such operation."""

    ERRNO = _errno.EOPNOTSUPP


class TooBig(OperationError):
    """EFBIG: the range ends beyond the largest file offset."""

    ERRNO = _errno.EFBIG


class NotFound(OperationError):
    """ENOENT: no page there."""

    ERRNO = _errno.ENOENT


_BY_ERRNO: dict[int | None, type[OperationError]] = {kind.ERRNO: kind for kind in OperationError.__subclasses__()}


def operation_error(errno: int, done: int, what: str) -> OperationError:
    """Return (not raise) the exception for an errno: its own class, or ``OperationError`` if it has none.

    Args:
        errno: the Linux error number (> 0).
        done: 4 KiB pages handled before the failure.
        what: the operation, as the message shall name it.
    """
    return _BY_ERRNO.get(errno, OperationError)(errno, done, what)


def _shortened(text: str) -> str:
    return text if len(text) <= _VALUE_WIDTH else text[: _VALUE_WIDTH - 3] + "..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
