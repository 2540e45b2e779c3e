"""What the live memory objects have in common: a file or mapping of a size, pins, and the words of `protocol.GuestMemory`.

Offsets and sizes are bytes, as numbers or as text (`"64M"`). Numbers may be wrong on purpose: system calls that take a range
get it unchanged, and the kernel's errno comes back as the model's exception. Accesses and pins, which reach the kernel as
addresses, are checked here as the model checks them, so that they never reach other memory of this process.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from types import TracebackType
from typing import Final, Self

from gmemlab.errors import UsageError, operation_error
from gmemlab.kernel import abi
from gmemlab.kernel.calls import madvise, munmap_aligned, read_bytes, read_memory, write_bytes
from gmemlab.kernel.observe.cache import pages_uptodate
from gmemlab.kernel.observe.pages import folios
from gmemlab.kernel.pins import Pin
from gmemlab.protocol import Extent, Usage
from gmemlab.units import parse_size

ACCESSES: Final = ("guest", "guest-shared", "host")
_TOUCH: Final = b"\x01"


class LiveMemory:
    """Memory on the running kernel; satisfies `protocol.GuestMemory` with its subclasses.

    Attributes:
        kind: in messages.
        size: bytes.
        fd: the file, or -1.
        address: of a mapping of all of it, a multiple of 2M; 0 where the host cannot map it.
        closed: whether it was given back.
    """

    kind = "memory"

    def __init__(self, size: int, fd: int, address: int) -> None:
        self.size = size
        self.fd = fd
        self.address = address
        self._pins: list[tuple[int, int, Pin]] = []
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def allocate(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Back a range, by default all of it."""
        raise NotImplementedError

    def punch_hole(self, offset: int | str, size: int | str) -> None:
        """Give a range back."""
        raise NotImplementedError

    def access(self, offset: int | str, size: int | str, by: str = "guest") -> None:
        """Touch a range for writing: the first byte of each page becomes 1.

        Args:
            offset: first byte.
            size: bytes.
            by: `guest`, `guest-shared` or `host`, which are the same for ordinary memory.

        Raises:
            OperationError: as `write`.
        """
        check_access(by)
        self.write(in_bytes(offset), in_bytes(size), _TOUCH)

    def write(self, offset: int, size: int, tag: bytes) -> None:
        """Write `tag`, one byte, to the start of each page of a range, ascending.

        Raises:
            HostAccessFault: beyond the end, or private memory: a plain access would end in SIGBUS (L6, G26).
            PoolExhausted: a hugetlb page that the pool cannot give; SIGBUS too (L19).
            OutOfMemory: any other page that cannot be had.
            OperationError: ENODEV where the host cannot map the memory (G25); InvalidArgument, TooBig for no range of pages.
        """
        what = f"write {size} at {offset} ({self.kind})"
        first, end = self._window(offset, size, what)
        check_range(offset, size, what)
        done = write_bytes(range(first, end, abi.PAGE), tag[0])
        self._used(offset, done)
        if first + done * abi.PAGE < end:
            raise operation_error(self._fault(offset + done * abi.PAGE), done, what)

    def read(self, offset: int, size: int) -> bytes:
        """Read a range through the mapping, which faults absent pages in.

        Raises:
            OperationError: as `write`; `done` is not counted.
        """
        what = f"read {size} at {offset} ({self.kind})"
        first, _ = self._window(offset, size, what)
        if offset < 0 or size < 0:
            raise operation_error(errno.EINVAL, 0, what)
        if offset + size > self.size:
            raise operation_error(self._fault(self.size), 0, what)
        try:
            return read_memory(first, size)
        except OSError as error:
            raise operation_error(self._fault(offset), 0, what) from error

    def tags(self) -> bytes:
        """The first byte of each page. Pages that were not used since they were allocated read 0, and are not touched."""
        used = [page for page, there in enumerate(self.used()) if there]
        tags = bytearray(self.size // abi.PAGE)
        for page, byte in zip(used, read_bytes([self.address + page * abi.PAGE for page in used]), strict=False):
            tags[page] = byte
        return bytes(tags)

    def used(self) -> list[bool]:
        """For each page, whether it is there and up to date (mincore(2)), so that reading it changes nothing."""
        return pages_uptodate(self.address, self.size) if self.address else [False] * (self.size // abi.PAGE)

    def convert(self, offset: int | str, size: int | str, to: str) -> None:
        """Conversion is for confidential guests.

        Raises:
            NotSupported: always.
        """
        check_attribute(to)
        raise operation_error(errno.EOPNOTSUPP, 0, f"convert {size} at {offset} to {to} ({self.kind})")

    def pin(self, offset: int | str, size: int | str) -> None:
        """Pin a range, which faults its pages in for writing.

        Raises:
            MemoryFault: a page cannot be faulted in: private, beyond the end, or none to be had. Pages before it stay.
            OperationError: ENODEV where the host cannot map the memory; InvalidArgument, TooBig for no range of pages.
            UnsupportedError: io_uring is absent or forbidden.
        """
        start, length = in_bytes(offset), in_bytes(size)
        what = f"pin {size} at {offset}"
        first, end = self._window(start, length, what)
        check_range(start, length, f"{what} ({self.kind})")
        try:
            with self.errors(what):
                self._pins.append((start, length, Pin(first, end - first)))
        finally:
            self._used(start, length // abi.PAGE)

    def unpin(self, offset: int | str, size: int | str) -> None:
        """Undo the newest `pin` of exactly this range.

        Raises:
            InvalidArgument: there is none.
        """
        wanted = (in_bytes(offset), in_bytes(size))
        for index in range(len(self._pins) - 1, -1, -1):
            if self._pins[index][:2] == wanted:
                self._pins.pop(index)[2].release()
                return
        raise operation_error(errno.EINVAL, 0, f"unpin {size} at {offset} ({self.kind})")

    def present(self) -> list[bool]:
        """For each page, whether it is there."""
        raise NotImplementedError

    def map_present(self) -> None:
        """Map the pages that are there into this process, so that their folios can be seen; adds none."""
        with self.errors("map"):
            for first, count in runs(self.present()):
                madvise(self.address + first * abi.PAGE, count * abi.PAGE, abi.MADV_POPULATE_READ)

    def folio_sizes(self) -> Sequence[int]:
        """For each page, the bytes of its folio; 0 where there is none.

        Raises:
            UnsupportedError: not root, so that folios cannot be seen.
        """
        self.map_present()
        sizes = [0] * (self.size // abi.PAGE)
        for folio in folios(self.address, self.size):
            first = folio.offset // abi.PAGE
            sizes[first : first + folio.pages] = [folio.size] * folio.pages
        return sizes

    def shared(self) -> Sequence[int]:
        """For each page, 1 if its attribute is shared; ordinary memory has none."""
        return bytes(self.size // abi.PAGE)

    def usage(self) -> Usage:
        """Where the memory is."""
        raise NotImplementedError

    def layout(self) -> list[Extent]:
        """The folios, as runs of alike pages, and the holes.

        Raises:
            UnsupportedError: not root, so that folios cannot be seen.
        """
        extents: list[Extent] = []
        offset = 0
        for (folio, shared), pages in groupby(zip(self.folio_sizes(), self.shared(), strict=True)):
            length = sum(1 for _ in pages) * abi.PAGE
            extents.append(Extent(offset, length, folio, bool(shared)))
            offset += length
        return extents

    def close(self) -> None:
        """Release all pins, unmap, close; harmless when done twice."""
        if self.closed:
            return
        self.closed = True
        for _, _, pin in self._pins:
            pin.release()
        self._pins.clear()
        if self.address:
            munmap_aligned(self.address, self.size)
        self.close_file()

    def close_file(self) -> None:
        """Close what is behind the mapping."""

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn the kernel's errors into the exceptions of `errors.py`."""
        try:
            yield
        except OSError as error:
            raise operation_error(error.errno or 0, 0, f"{what} ({self.kind})") from error

    def _window(self, offset: int, size: int, what: str) -> tuple[int, int]:
        """The addresses of a range; the page behind the end, which nobody can access, stands for all beyond it."""
        if not self.address:
            raise operation_error(errno.ENODEV, 0, f"{what}: created without MMAP ({self.kind})")
        first = min(offset, self.size)
        return self.address + first, self.address + max(first, min(offset + size, self.size + abi.PAGE))

    def _fault(self, offset: int) -> int:
        """The errno of a host access that faults: EACCES beyond the end, else what the kind of memory can lack."""
        return errno.EACCES if offset >= self.size else errno.ENOMEM

    def _used(self, offset: int, pages: int) -> None:
        """Called when so many pages from `offset` on may have been faulted in."""


def check_access(by: str) -> None:
    """Refuse a kind of access that does not exist.

    Raises:
        UsageError: always in that case.
    """
    if by not in ACCESSES:
        raise UsageError("no such kind of access", key="by", value=by, allowed=", ".join(ACCESSES))


def check_attribute(to: str) -> None:
    """Refuse an attribute that does not exist.

    Raises:
        UsageError: always in that case.
    """
    if to not in ("shared", "private"):
        raise UsageError("no such attribute", key="to", value=to, allowed="shared, private")


def check_range(offset: int, size: int, what: str) -> None:
    """Refuse what is no range of pages, in the order of fallocate(2) (L2).

    Raises:
        InvalidArgument: negative, empty or unaligned.
        TooBig: its end is no file offset.
    """
    if offset < 0 or size <= 0:
        raise operation_error(errno.EINVAL, 0, what)
    if offset + size > abi.LARGEST_OFFSET:
        raise operation_error(errno.EFBIG, 0, what)
    if (offset | size) % abi.PAGE:
        raise operation_error(errno.EINVAL, 0, f"{what}: not a multiple of 4K")


def size_of(size: int | str, page: int = abi.PAGE) -> int:
    """Bytes of a new memory object.

    Raises:
        InvalidArgument: not a positive multiple of the page size.
        UsageError: text that is no size.
    """
    total = in_bytes(size)
    if total <= 0 or total % page:
        raise operation_error(errno.EINVAL, 0, f"create {size}: not a multiple of {page} bytes")
    return total


def in_bytes(value: int | str) -> int:
    """Bytes that a number or a text such as `"64M"` means; numbers are taken as they are."""
    return value if isinstance(value, int) else parse_size(value)


def runs(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """First index and length of each run of true values."""
    start = 0
    for there, group in groupby(flags):
        length = sum(1 for _ in group)
        if there:
            yield start, length
        start += length
