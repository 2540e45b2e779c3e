"""The oracle's way to mend ordinary memory: collapse, and splitting folios that are mapped in part."""

import errno

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRESH, KIND_ANON, KIND_SHMEM, USED
from oracle_compaction import alloc
from oracle_files import File
from oracle_memory import Memory
from oracle_operations import punch
from oracle_split import split_to_pages


def collapse(memory: Memory, file: File, first: int, count: int) -> tuple[int, int]:
    """Every aligned 2 MiB inside the range becomes one folio (L15); the last error counts."""
    begin, end = -(-first // BLOCK_PAGES) * BLOCK_PAGES, (first + count) // BLOCK_PAGES * BLOCK_PAGES
    if file.policy.kind not in (KIND_SHMEM, KIND_ANON) or begin >= end:
        return errno.EINVAL, 0
    error = done = 0
    for base in range(begin, end, BLOCK_PAGES):
        failed = collapse_block(memory, file, base)
        error, done = (failed, done) if failed else (error, done + BLOCK_PAGES)
    return error, done


def collapse_block(memory: Memory, file: File, base: int) -> int:
    """A new folio takes the place of what is there; holes read zero."""
    pages = [file.pages[index] for index in range(base, base + BLOCK_PAGES) if index in file.pages]
    if not pages and base // BLOCK_PAGES not in file.tables:
        return errno.EINVAL
    folio = pages[0].folio if pages else None
    if folio is not None and folio.order == BLOCK_ORDER and len(folio.members) == BLOCK_PAGES:
        return 0
    if any(page.folio.busy() for page in pages):
        return errno.EAGAIN
    pfn = alloc(memory, file, BLOCK_ORDER)
    if pfn is None:
        return errno.ENOMEM
    kept = {index for index in range(base, base + BLOCK_PAGES) if index in file.pages and file.pages[index].content == USED}
    punch(memory, file, base, BLOCK_PAGES)
    anonymous = file.policy.kind == KIND_ANON
    memory.insert(file, base, pfn, BLOCK_ORDER).cleared = not anonymous
    for index in kept if anonymous else range(base, base + BLOCK_PAGES):
        file.pages[index].content = USED
    if anonymous:
        file.unseen.add(base // BLOCK_PAGES)
    return 0


def free_lazily(memory: Memory, file: File, first: int, count: int) -> tuple[int, int]:
    """MADV_FREE: folios that the range covers in part are split (L16)."""
    if file.policy.kind != KIND_ANON:
        return errno.EINVAL, 0
    for base in range(first - first % BLOCK_PAGES, first + count, BLOCK_PAGES):
        for folio in file.folios(max(first, base), min(first + count, base + BLOCK_PAGES)):
            if sum(first <= index < first + count for index in folio.members) < 1 << folio.order:
                split_to_pages(memory, folio)
    return 0, count


def split_deferred(memory: Memory, file: File, max_none: int) -> tuple[int, int]:
    """The deferred-split shrinker: folios that are mapped in part are split, and their rest is freed (L16).

    Huge pages that it sees for the first time, too, if more than `max_none` of their pages are zeros (L17).
    """
    if not 0 <= max_none < BLOCK_PAGES:
        return errno.EINVAL, 0
    if file.policy.kind != KIND_ANON:
        return errno.EOPNOTSUPP, 0
    for folio in file.folios(0, file.size):
        if len(folio.members) < 1 << folio.order:
            split_to_pages(memory, folio)
        elif folio.order == BLOCK_ORDER and folio.index // BLOCK_PAGES in file.unseen:
            file.unseen.remove(folio.index // BLOCK_PAGES)
            zeros = sum(file.pages[index].content == FRESH for index in folio.members)
            if max_none < zeros and max_none != BLOCK_PAGES - 1 and split_to_pages(memory, folio):
                memory.counters["underused"] += 1
    return 0, file.size
