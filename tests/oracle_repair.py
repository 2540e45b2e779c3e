"""The oracle's way to mend ordinary memory: collapse, and splitting folios that are mapped in part."""

import errno

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, KIND_ANON, KIND_SHMEM, MOVABLE, UNMOVABLE, USED
from oracle_memory import File, Folio, Memory
from oracle_operations import punch


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
    if not pages:
        return errno.EINVAL
    folio = pages[0].folio
    if folio.order == BLOCK_ORDER and len(folio.members) == BLOCK_PAGES:
        return 0
    if any(page.folio.busy() for page in pages):
        return errno.EAGAIN
    pfn = memory.buddy.alloc(BLOCK_ORDER, MOVABLE if file.policy.movable else UNMOVABLE)
    if pfn is None:
        return errno.ENOMEM
    punch(memory, file, base, BLOCK_PAGES)
    memory.insert(file, base, pfn, BLOCK_ORDER).cleared = True
    for index in range(base, base + BLOCK_PAGES):
        file.pages[index].content = USED
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


def split_deferred(memory: Memory, file: File) -> tuple[int, int]:
    """The deferred-split shrinker: folios that are mapped in part are split, and their rest is freed (L16)."""
    if file.policy.kind != KIND_ANON:
        return errno.EOPNOTSUPP, 0
    for folio in file.folios(0, file.size):
        if len(folio.members) < 1 << folio.order:
            split_to_pages(memory, folio)
    return 0, file.size


def split_to_pages(memory: Memory, folio: Folio) -> None:
    """Base pages; those that are not mapped are freed. A held folio stays."""
    if folio.order == 0:
        return
    if folio.busy():
        memory.counters["split_failed"] += 1
        return
    if folio.order == BLOCK_ORDER:
        memory.counters["split_punch"] += 1
    folio.file.tables.add(folio.index // BLOCK_PAGES)
    for offset, pfn in enumerate(folio.frames()):
        index = folio.index + offset
        if index in folio.members:
            piece = Folio(folio.file, index, pfn, 0, None, {index}, folio.cleared)
            folio.file.pages[index].folio = memory.users[pfn] = piece
    for offset, pfn in enumerate(folio.frames()):
        if folio.index + offset not in folio.members:
            del memory.users[pfn]
            memory.buddy.free(pfn, 0)
