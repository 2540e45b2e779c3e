"""Memory in files: guest_memfd, shmem and hugetlb, which are allocated and punched by fallocate(2)."""

import errno
import os
from collections.abc import Sequence
from typing import Final

from gmemlab.errors import UnsupportedError, UsageError, operation_error
from gmemlab.kernel import abi
from gmemlab.kernel.calls import (
    MAP_NORESERVE,
    MAP_SHARED,
    PROT_READ_WRITE,
    fallocate,
    madvise,
    mmap,
    mmap_aligned,
    munmap,
)
from gmemlab.kernel.memory import LiveMemory, check_range, in_bytes, size_of
from gmemlab.kernel.observe.cache import count_present, pages_present
from gmemlab.protocol import Usage
from gmemlab.units import format_size

_PUNCH: Final = abi.KEEP_SIZE | abi.PUNCH_HOLE
_STAT_BLOCK: Final = 512  # bytes: the unit of st_blocks
_SHIFTS: Final = {2 << 20: 21, 1 << 30: 30}


class LiveFile(LiveMemory):
    """Memory that is a file.

    Args:
        size: bytes.
        fd: the file, which is closed with this object.
        address: of a mapping of all of it, or 0.
    """

    def __init__(self, size: int, fd: int, address: int) -> None:
        super().__init__(size, fd, address)
        self._stranded: set[int] = set()  # pages that were still there after they were punched

    def allocate(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Back a range, by default all of it, by fallocate(2). Raises what `fallocate` does."""
        self.fallocate(abi.KEEP_SIZE, in_bytes(offset), self.size if size is None else in_bytes(size))

    def punch_hole(self, offset: int | str, size: int | str) -> None:
        """Give a range back by fallocate(2). Raises what `fallocate` does."""
        self.fallocate(_PUNCH, in_bytes(offset), in_bytes(size))

    def fallocate(self, mode: int, offset: int, size: int) -> None:
        """Allocate, punch, or what else the mode says.

        guest_memfd answers EINTR now and then, also without a signal of ours, with part of the range allocated (section 0 of
        the facts on the live kernel): it is asked again for the rest, so that frequent signals cannot stop it for good.

        Raises:
            OperationError: with the kernel's errno; `done` counts the pages of the range that are there before the first that
                is not, if the kernel ran out of memory or pool pages.
        """
        got = 0
        while True:
            try:
                fallocate(self.fd, mode, offset + got, size - got)
            except InterruptedError:
                if mode == abi.KEEP_SIZE:
                    got = self._leading(offset, size) * abi.PAGE
                if got < size:
                    continue
            except OSError as error:
                ran_out = mode == abi.KEEP_SIZE and error.errno in (errno.ENOMEM, errno.ENOSPC)
                done = self._leading(offset, size) if ran_out else 0
                what = f"fallocate mode {mode}, {size} at {offset} ({self.kind})"
                raise operation_error(error.errno or 0, done, what) from error
            break
        if mode == _PUNCH:
            self._note_punch(offset, size)

    def _leading(self, offset: int, size: int) -> int:
        """How many pages of a range come before the first that is not there; none are counted if it is no range of pages."""
        if (offset | size) % abi.PAGE:
            return 0
        return [*self.present_in(offset, size), False].index(False)

    def present(self) -> list[bool]:
        """For each page, whether it is in the file (cachestat(2)).

        Raises:
            UnsupportedError: the kernel is older than 6.5.
        """
        return self.present_in(0, self.size)

    def present_in(self, offset: int, size: int) -> list[bool]:
        """`present` for a range."""
        return pages_present(self.fd, offset, size)

    def usage(self) -> Usage:
        """Where the memory is; pages are stranded that a punch could not free (L14), until they are used again."""
        present = self.present()
        stranded = sum(present[page] for page in self._stranded)
        return Usage(self.size, self.charged(), 0, sum(self.shared()) * abi.PAGE, 0, 0, stranded * abi.PAGE, 0)

    def charged(self) -> int:
        """Bytes of the file's folios."""
        return count_present(self.fd, 0, self.size) * abi.PAGE

    def close_file(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def _note_punch(self, offset: int, size: int) -> None:
        """See which pages that lie in a punched range as a whole are still there."""
        first, end = -(-offset // abi.PAGE), min(offset + size, self.size) // abi.PAGE
        if first < end:
            self._forget(first, end)
            there = self.present_in(first * abi.PAGE, (end - first) * abi.PAGE)
            self._stranded.update(page for page, kept in enumerate(there, start=first) if kept)

    def _used(self, offset: int, pages: int) -> None:
        self._forget(offset // abi.PAGE, offset // abi.PAGE + pages)

    def _forget(self, first: int, end: int) -> None:
        self._stranded = {page for page in self._stranded if not first <= page < end}


class ShmemMemory(LiveFile):
    """A memfd of shmem; its huge pages follow `transparent_hugepage/shmem_enabled` (L12).

    Args:
        size: bytes.

    Raises:
        OperationError: with the kernel's errno; InvalidArgument for a size that is no positive multiple of 4K.
    """

    kind = "shmem"

    def __init__(self, size: int | str) -> None:
        total = size_of(size)
        super().__init__(total, os.memfd_create("gmemlab", abi.MFD_CLOEXEC), 0)
        try:
            with self.errors(f"create {size}"):
                os.ftruncate(self.fd, total)
                self.address = mmap_aligned(total, abi.PMD, PROT_READ_WRITE, MAP_SHARED, self.fd)
        except OSError:
            self.close()
            raise

    def charged(self) -> int:
        """Bytes of the file's folios, also of their parts beyond its end (L12)."""
        return count_present(self.fd, 0, -(-self.size // abi.PMD) * abi.PMD) * abi.PAGE

    def collapse(self, offset: int | str, size: int | str) -> None:
        """Make the aligned 2M ranges of a range whole (MADV_COLLAPSE, L15).

        Raises:
            OperationError: with the kernel's errno: InvalidArgument for a range without pages, TryAgain for a pinned one.
        """
        start, length = in_bytes(offset), in_bytes(size)
        what = f"collapse {size} at {offset}"
        check_range(start, length, f"{what} ({self.kind})")
        first, end = self._window(start, length, what)
        with self.errors(what):
            madvise(first, end - first, abi.MADV_COLLAPSE)


class HugetlbMemory(LiveFile):
    """A memfd of hugetlb pages. Its own mapping reserves nothing; `reserve` does (L19).

    cachestat(2) does not know hugetlb, so which pages are there is kept here: after each operation, st_blocks tells how many
    came or went, and the kernel takes a range in ascending order.

    Args:
        size: bytes, a multiple of the page size.
        page: bytes of a page: 2M or 1G.

    Raises:
        UsageError: no such page size.
        InvalidArgument: not a positive multiple of it.
        UnsupportedError: the kernel has no such pages.
    """

    kind = "hugetlb"

    def __init__(self, size: int | str, page: int | str = "2M") -> None:
        self.page = in_bytes(page)
        if self.page not in _SHIFTS:
            raise UsageError("no such page size", key="page", value=str(page), allowed="2M, 1G")
        total = size_of(size, self.page)
        try:
            fd = os.memfd_create("gmemlab", abi.MFD_CLOEXEC | abi.MFD_HUGETLB | _SHIFTS[self.page] << abi.MFD_HUGE_SHIFT)
        except OSError as error:
            raise UnsupportedError(f"hugetlb pages of {format_size(self.page)}", f"no memfd: {error.strerror}") from error
        super().__init__(total, fd, 0)
        self._held: set[int] = set()  # by number of the huge page
        try:
            with self.errors(f"create {size}"):
                os.ftruncate(fd, total)
                self.address = mmap_aligned(total, self.page, PROT_READ_WRITE, MAP_SHARED | MAP_NORESERVE, fd)
        except OSError:
            self.close()
            raise

    def reserve(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Reserve the pages of a range, as a shared mmap of it does; they stay reserved when it is unmapped (L19).

        Raises:
            OutOfMemory: the pool cannot promise them.
        """
        start, length = in_bytes(offset), self.size if size is None else in_bytes(size)
        with self.errors(f"reserve {length} at {start}"):
            address = mmap(length, PROT_READ_WRITE, MAP_SHARED, self.fd, start)
            munmap(address, -(-length // self.page) * self.page)  # it maps whole huge pages, and unmaps nothing less

    def present_in(self, offset: int, size: int) -> list[bool]:
        """For each 4K page of a range, whether its huge page is in the file."""
        self._count_in(offset, size)
        places = range(offset, offset + size, abi.PAGE)
        return [place // self.page in self._held for place in places]

    def folio_sizes(self) -> Sequence[int]:
        """For each 4K page, the bytes of its huge page; 0 where there is none."""
        return [self.page if there else 0 for there in self.present()]

    def charged(self) -> int:
        """Bytes of the file's pages: st_blocks counts them."""
        return os.fstat(self.fd).st_blocks * _STAT_BLOCK

    def read(self, offset: int, size: int) -> bytes:
        """As `LiveMemory.read`."""
        try:
            return super().read(offset, size)
        finally:
            self._count_in(offset, size)

    def fallocate(self, mode: int, offset: int, size: int) -> None:
        """As `LiveFile.fallocate`."""
        super().fallocate(mode, offset, size)
        self._count_in(offset, size)

    def _fault(self, offset: int) -> int:
        return errno.EACCES if offset >= self.size else errno.ENOSPC

    def _note_punch(self, offset: int, size: int) -> None:
        # The kernel frees the pages that lie in the range as a whole (L18).
        first, end = -(-offset // self.page), (offset + size) // self.page
        self._held = {page for page in self._held if not first <= page < end}
        super()._note_punch(offset, size)

    def _used(self, offset: int, pages: int) -> None:
        super()._used(offset, pages)
        # One page more: the fault that failed is in it, and others of its huge page may have been before.
        self._count_in(offset, (pages + 1) * abi.PAGE)

    def _count_in(self, offset: int, size: int) -> None:
        """See what a range got since the last look: as many of its absent pages, ascending, as the file grew by."""
        grown = self.charged() // self.page - len(self._held)
        page = offset // self.page
        while grown > 0 and page * self.page < offset + size:
            if page not in self._held:
                self._held.add(page)
                grown -= 1
            page += 1
