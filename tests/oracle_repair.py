"""The oracle's way to mend ordinary memory: collapse, and splitting folios that are mapped in part."""

import errno
from collections import Counter

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRESH, KIND_ANON, KIND_SHMEM, MOVABLE, UNMOVABLE, USED, ZEROED
from oracle_effort import alloc_with
from oracle_files import File, Folio
from oracle_guests import tell_moves
from oracle_memory import Memory
from oracle_snp import move_entry
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
    if is_whole(file, base):
        return 0
    if any(page.folio.busy() for page in pages):
        return errno.EAGAIN
    mt = MOVABLE if file.policy.movable else UNMOVABLE
    pfn = alloc_with(memory, BLOCK_ORDER, mt, frozenset({"direct"}), *most_on(memory, file, base))
    if pfn is None:
        return errno.ENOMEM
    exchange(memory, file, base, pfn)
    return 0


def is_whole(file: File, base: int) -> bool:
    """Does one folio back all of the 2 MiB?"""
    folio = file.pages[base].folio if base in file.pages else None
    return folio is not None and folio.order == BLOCK_ORDER and len(folio.members) == BLOCK_PAGES


def exchange(memory: Memory, file: File, base: int, pfn: int) -> None:
    """The folio at `pfn` takes the place of what backs the 2 MiB.

    Anonymous memory keeps what was written; of shmem all that was there is written then, and holes are zeros like those that
    a punch left; guest_memfd keeps everything, and its holes are fresh.
    """
    before = {index: file.pages[index].content for index in range(base, base + BLOCK_PAGES) if index in file.pages}
    memory.counters["copied"] += len(before)
    accepted = set(file.accepted)
    for index in sorted(before):
        tell_moves(file, index, [(file.pages[index].frame, pfn + index - base)], memory.counters)
    for index in before:
        move_entry(file, file.pages[index].frame, -index)  # for as long as the old frames are freed and the new ones inserted
    for folio in sorted(file.folios(base, base + BLOCK_PAGES), key=lambda folio: max(folio.members)):  # with their last page
        memory.leave(folio)
    folio = memory.insert(file, base, pfn, BLOCK_ORDER)
    file.accepted = accepted
    for index in before:
        move_entry(file, -index, file.pages[index].frame)
    if file.policy.kind == KIND_ANON:
        file.unseen.add(base // BLOCK_PAGES)
        file.tables.discard(base // BLOCK_PAGES)
        memory.shrinker.add(folio)
    for index in sorted(folio.members):
        content = before.get(index, FRESH)
        if file.policy.kind == KIND_SHMEM:
            content = ZEROED if index not in before or content == ZEROED else USED
        file.pages[index].content = content
        memory.counters["firmware_copies"] += file.confidential() and index in before and index not in file.shared
    folio.cleared = all(file.pages[index].content != FRESH for index in folio.members)
    if any(file.pages[index].content == ZEROED for index in folio.members):
        memory.shrinker.add_zeros(folio)


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
    if file.policy.zero_scan:
        for folio in file.folios(0, file.size):
            zeros = sum(file.pages[index].content == ZEROED for index in folio.members)
            if folio.order == BLOCK_ORDER and zeros > max_none and max_none != BLOCK_PAGES - 1:
                split_zeros(memory, folio)
        return 0, file.size
    if file.policy.kind != KIND_ANON:
        return errno.EOPNOTSUPP, 0
    for folio in file.folios(0, file.size):
        if len(folio.members) < 1 << folio.order:
            split_to_pages(memory, folio)
        elif folio.order == BLOCK_ORDER and folio.index // BLOCK_PAGES in file.unseen:
            file.unseen.remove(folio.index // BLOCK_PAGES)
            memory.shrinker.drop(folio)
            zeros = sum(file.pages[index].content == FRESH for index in folio.members)
            if max_none < zeros and max_none != BLOCK_PAGES - 1 and split_to_pages(memory, folio):
                memory.counters["underused"] += 1
    return 0, file.size


def split_zeros(memory: Memory, folio: Folio) -> bool:
    """A huge page of shmem with too many zeros becomes base pages without them, unless it is held (T4)."""
    if folio.busy():
        memory.counters["split_failed"] += 1
        return False
    zeros = [index for index in sorted(folio.members) if folio.file.pages[index].content == ZEROED]
    memory.counters["split_punch"] += 1
    memory.counters["underused"] += 1
    memory.cut(folio, [(index, 0) for index in sorted(folio.members)])
    for index in zeros:
        memory.leave(folio.file.pages[index].folio)
    return True


def most_on(memory: Memory, file: File, base: int) -> tuple[int, set[int]]:
    """The first node that has the most of a 2 MiB of a file, and all that have as much: folios, or anonymous pages."""
    pages = [file.pages[index] for index in range(base, base + BLOCK_PAGES) if index in file.pages]
    if file.policy.kind != KIND_ANON:
        pages = list({page.folio: page for page in pages}.values())
    counts = Counter(memory.buddy.node_of(page.frame) for page in pages)
    most = max(counts.values(), default=0)
    alike = {node for node in memory.all_nodes() if counts[node] == most}
    return min(alike), alike
