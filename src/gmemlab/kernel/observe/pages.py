"""The frames and folios behind a mapped range, from /proc/self/pagemap, /proc/kpageflags and /proc/kpagecount.

Only pages that this process has mapped and touched are seen. Root only: others are shown no frame numbers.
"""

import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from gmemlab.errors import UnsupportedError, operation_error
from gmemlab.kernel.calls import MAP_POPULATE, MAP_SHARED, PROT_READ, mmap, munmap
from gmemlab.kernel.observe import PAGE

PAGEMAP: Final = "/proc/self/pagemap"
KPAGEFLAGS: Final = "/proc/kpageflags"
KPAGECOUNT: Final = "/proc/kpagecount"

_WORD: Final = 8
_CHUNK_PAGES: Final = 1 << 17  # a MiB of words
_BLOCK_PAGES: Final = 512
_PRESENT: Final = 1 << 63
_PFN: Final = (1 << 55) - 1
_HEAD: Final = 1 << 15
_TAIL: Final = 1 << 16
# include/uapi/linux/kernel-page-flags.h (KPF_*), and from bit 32 on include/linux/kernel-page-flags.h.
# fmt: off
_LOW_FLAGS: Final = (
    "LOCKED", "ERROR", "REFERENCED", "UPTODATE", "DIRTY", "LRU", "ACTIVE", "SLAB", "WRITEBACK", "RECLAIM",
    "BUDDY", "MMAP", "ANON", "SWAPCACHE", "SWAPBACKED", "COMPOUND_HEAD", "COMPOUND_TAIL", "HUGE",
    "UNEVICTABLE", "HWPOISON", "NOPAGE", "KSM", "THP", "OFFLINE", "ZERO_PAGE", "IDLE", "PGTABLE",
)
_HIGH_FLAGS: Final = (
    "RESERVED", "MLOCKED", "OWNER_2", "PRIVATE", "PRIVATE_2", "OWNER_PRIVATE", "ARCH", "UNCACHED", "SOFTDIRTY",
    "ARCH_2", "ARCH_3",
)
# fmt: on
_FLAGS: Final = dict(enumerate(_LOW_FLAGS)) | dict(enumerate(_HIGH_FLAGS, start=32))


@dataclass(frozen=True, slots=True)
class Folio:
    """A run of consecutive pages of one folio, as a mapping shows it.

    Attributes:
        offset: of the run's first page, in bytes from the start of the range that was asked for.
        size: of the whole folio, in bytes.
        pfn: frame number of the run's first page.
        first: that page's index inside the folio.
        pages: length of the run; fewer than the folio has if the rest is not mapped or outside the range.
    """

    offset: int
    size: int
    pfn: int
    first: int
    pages: int


def frames(address: int, size: int) -> list[int | None]:
    """Return the frame number of each page of a range; None where no page is mapped.

    Args:
        address: of the first byte, a multiple of 4096.
        size: bytes, a multiple of 4096.

    Raises:
        UnsupportedError: not root, or no /proc/self/pagemap.
    """
    return [word & _PFN if word & _PRESENT else None for word in _pagemap(address, size)]


def frames_of_file(fd: int, offsets: Iterable[int]) -> list[int | None]:
    """Return the frame number behind single pages of a file, each mapped for a moment; None behind the file's end.

    A hole is filled by that.

    Args:
        fd: of a file that can be mapped.
        offsets: of the pages, in bytes.

    Raises:
        UnsupportedError: not root, or no /proc/self/pagemap.
        OperationError: the file cannot be mapped.
    """
    found: list[int | None] = []
    for offset in offsets:
        try:
            address = mmap(PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, offset)
        except OSError as error:
            raise operation_error(error.errno or 0, len(found), f"mapping a file at {offset:#x}") from error
        try:
            found += frames(address, PAGE)
        finally:
            munmap(address, PAGE)
    return found


def folios(address: int, size: int) -> list[Folio]:
    """Return the folios that a range maps, ascending; whatever is not mapped is left out.

    Args:
        address: of the first byte, a multiple of 4096.
        size: bytes, a multiple of 4096.

    Raises:
        UnsupportedError: not root, or no /proc/self/pagemap or /proc/kpageflags.
    """
    words = _pagemap(address, size)
    found: list[Folio] = []
    with _opened(KPAGEFLAGS) as handle:
        blocks = _Blocks(handle)
        page = 0
        while page < len(words):
            if not words[page] & _PRESENT:
                page += 1
                continue
            pfn = words[page] & _PFN
            head, pages = blocks.folio_of(pfn)
            end = min(len(words), page + head + pages - pfn)
            stop = page + 1
            while stop < end and words[stop] & _PRESENT and words[stop] & _PFN == pfn + stop - page:
                stop += 1
            found.append(Folio(page * PAGE, pages * PAGE, pfn, pfn - head, stop - page))
            page = stop
    return found


def page_flags(pfn: int, count: int = 1) -> list[frozenset[str]]:
    """Return the names of the flags of frames, without KPF_: ``UNEVICTABLE``, ``COMPOUND_HEAD``; ``bit N`` if unknown.

    Args:
        pfn: the first frame.
        count: how many frames; fewer are returned at the end of memory.

    Raises:
        UnsupportedError: not root, or no /proc/kpageflags.
    """
    with _opened(KPAGEFLAGS) as handle:
        return [_names(word) for word in _words(handle, KPAGEFLAGS, pfn, count)]


def map_counts(pfn: int, count: int = 1) -> list[int]:
    """Return how often frames are mapped into processes.

    Args:
        pfn: the first frame.
        count: how many frames; fewer are returned at the end of memory.

    Raises:
        UnsupportedError: not root, or no /proc/kpagecount.
    """
    with _opened(KPAGECOUNT) as handle:
        return list(_words(handle, KPAGECOUNT, pfn, count))


class _Blocks:
    """The flags of frames, read by aligned 2 MiB and kept."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._read: dict[int, array[int]] = {}

    def folio_of(self, pfn: int) -> tuple[int, int]:
        """Return head and number of pages of a frame's folio, which is a power of two and aligned to its size."""
        head = pfn
        order = 0
        while self._flags(head) & _TAIL:
            order += 1
            head = pfn >> order << order
        pages = 1
        if self._flags(head) & _HEAD:
            while self._flags(head + pages) & _TAIL:
                pages *= 2
        return head, pages

    def _flags(self, pfn: int) -> int:
        block, index = divmod(pfn, _BLOCK_PAGES)
        if block not in self._read:
            self._read[block] = _words(self._handle, KPAGEFLAGS, block * _BLOCK_PAGES, _BLOCK_PAGES)
        words = self._read[block]
        return words[index] if index < len(words) else 0


def _pagemap(address: int, size: int) -> "array[int]":
    with _opened(PAGEMAP) as handle:
        words = _words(handle, PAGEMAP, address // PAGE, size // PAGE)
    # The frame numbers of all pages are zero for whoever lacks CAP_SYS_ADMIN (since 4.2).
    if any(word & _PRESENT and not word & _PFN for word in words):
        raise UnsupportedError(PAGEMAP, "shows no frame numbers to this user: needs root")
    return words


def _words(handle: int, name: str, first: int, count: int) -> "array[int]":
    """Read 64-bit words; fewer at the end of the file."""
    words = array("Q")
    end = first + count
    while first < end:
        wanted = min(_CHUNK_PAGES, end - first) * _WORD
        try:
            data = os.pread(handle, wanted, first * _WORD)
        except OSError as error:
            raise operation_error(error.errno or 0, len(words), f"reading {name} at {first * _WORD:#x}") from error
        words.frombytes(data)
        if not data:
            break
        first += len(data) // _WORD
    return words


@contextmanager
def _opened(name: str) -> Iterator[int]:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UnsupportedError(name, f"cannot be opened: {error.strerror} (needs root)") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _names(word: int) -> frozenset[str]:
    return frozenset(_FLAGS.get(bit, f"bit {bit}") for bit in range(word.bit_length()) if word >> bit & 1)
