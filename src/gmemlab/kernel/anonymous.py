"""Anonymous memory: what a VMM's ordinary guest memory is, and the shared side of a two-source guest (K13)."""

import errno
from contextlib import suppress
from functools import cache

from gmemlab.errors import operation_error
from gmemlab.kernel import abi
from gmemlab.kernel.calls import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ_WRITE,
    madvise,
    mmap,
    mmap_aligned,
    munmap,
    read_bytes,
)
from gmemlab.kernel.memory import LiveMemory, check_range, in_bytes, size_of
from gmemlab.kernel.observe.cache import pages_uptodate
from gmemlab.kernel.observe.pages import Folio, folios, frames, page_flags
from gmemlab.protocol import Usage


class AnonymousMemory(LiveMemory):
    """A private anonymous mapping that asks for huge pages; `transparent_hugepage/enabled` says whether it gets them.

    Ranges must lie within it, in whole pages: beyond its ends lies other memory of this process.

    Args:
        size: bytes.

    Raises:
        InvalidArgument: not a positive multiple of 4K.
        OutOfMemory: no room for such a mapping.
    """

    kind = "anonymous"

    def __init__(self, size: int | str) -> None:
        total = size_of(size)
        super().__init__(total, -1, 0)
        with self.errors(f"create {size}"):
            self.address = mmap_aligned(total, abi.PMD, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
        with suppress(OSError):  # a kernel without huge pages
            madvise(self.address, total, abi.MADV_HUGEPAGE)

    def allocate(self, offset: int | str = 0, size: int | str | None = None) -> None:
        """Back a range, by default all of it, as writing to it would (MADV_POPULATE_WRITE).

        Raises:
            OutOfMemory: pages cannot be had; `done` were there before.
        """
        self._advise(in_bytes(offset), self.size if size is None else in_bytes(size), abi.MADV_POPULATE_WRITE, "allocate")

    def punch_hole(self, offset: int | str, size: int | str) -> None:
        """Give a range back (MADV_DONTNEED); a folio that it covers in part keeps its frames (L16)."""
        self._advise(in_bytes(offset), in_bytes(size), abi.MADV_DONTNEED, "punch")

    def free(self, offset: int | str, size: int | str) -> None:
        """Say that the contents of a range are not needed (MADV_FREE), which splits a folio at once (L16)."""
        self._advise(in_bytes(offset), in_bytes(size), abi.MADV_FREE, "free")

    def collapse(self, offset: int | str, size: int | str) -> None:
        """Make the aligned 2M ranges of a range whole (MADV_COLLAPSE, L15).

        Raises:
            OperationError: with the kernel's errno: InvalidArgument for a range without pages, TryAgain for a pinned one.
        """
        self._advise(in_bytes(offset), in_bytes(size), abi.MADV_COLLAPSE, "collapse")

    def present(self) -> list[bool]:
        """For each page, whether it is mapped."""
        return pages_uptodate(self.address, self.size)

    def map_present(self) -> None:
        """Nothing to do: what is there is mapped."""

    def own_folios(self) -> list[Folio]:
        """The folios behind the mapping, without the kernel's pages of zeros, which are nobody's (L17).

        Raises:
            UnsupportedError: not root.
        """
        return [folio for folio in folios(self.address, self.size) if not _is_zeros(folio)]

    def usage(self) -> Usage:
        """Where the memory is: a folio is charged as a whole until its last page goes (L16), which is what is stranded.

        Raises:
            UnsupportedError: not root, so that folios cannot be seen.
        """
        found = self.own_folios()
        charged = sum({folio.pfn - folio.first: folio.size for folio in found}.values())
        mapped = sum(folio.pages for folio in found) * abi.PAGE
        return Usage(self.size, charged, 0, 0, 0, 0, charged - mapped, 0)

    def _advise(self, offset: int, size: int, advice: int, what: str) -> None:
        text = f"{what} {size} at {offset} ({self.kind})"
        check_range(offset, size, text)
        if offset + size > self.size:
            raise operation_error(errno.EINVAL, 0, text)
        while True:
            try:
                madvise(self.address + offset, size, advice)
            except InterruptedError:
                continue
            except OSError as error:
                raise operation_error(error.errno or 0, self._allocated(advice, offset, size), text) from error
            return

    def _allocated(self, advice: int, offset: int, size: int) -> int:
        """How far a failed allocation got, in pages."""
        if advice != abi.MADV_POPULATE_WRITE:
            return 0
        return [*pages_uptodate(self.address + offset, size), False].index(False)


def _is_zeros(folio: Folio) -> bool:
    """Whether it is the kernel's page of zeros, of 4K or 2M, which nobody is charged for (L17: what a shrinker leaves)."""
    if folio.size == abi.PAGE:
        return folio.pfn == _zero_frame()
    return "ZERO_PAGE" in page_flags(folio.pfn)[0]


@cache
def _zero_frame() -> int | None:
    """Frame of the 4K page of zeros, which a page shows that was only read."""
    address = mmap(abi.PAGE, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    try:
        read_bytes((address,))
        return frames(address, abi.PAGE)[0]
    finally:
        munmap(address, abi.PAGE)
