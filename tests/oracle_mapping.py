"""The guest's second-stage mapping in the oracle: sets of mapped pages and of blocks mapped at 2 MiB (K6, K8)."""

from collections.abc import Iterable

from gmemlab.core.layout import (
    ACCEPT_4K,
    BLOCK_ORDER,
    BLOCK_PAGES,
    TERM_ACCEPT,
    TERM_ATTRIBUTES,
    TERM_CONGRUENCE,
    TERM_FOLIO,
    TERM_HISTORY,
    TERM_INHIBIT,
    TERM_NONE,
    TERM_SLOT,
)
from oracle_files import File


def block_pages(block: int) -> set[int]:
    """The file indexes of one 2 MiB of file."""
    return set(range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES))


def term(file: File, index: int, accept: int) -> int:
    """The first term of K8 that keeps the guest from mapping the 2 MiB around a present page at once."""
    block = index // BLOCK_PAGES
    pages = block_pages(block)
    folio = file.pages[index].folio
    if folio.order < BLOCK_ORDER or not pages <= folio.members:
        return TERM_FOLIO
    for gfn, count, offset in file.slots:
        if offset <= index < offset + count:
            if min(pages) < offset or max(pages) >= offset + count:
                return TERM_SLOT
            if (gfn - offset) % BLOCK_PAGES != 0:
                return TERM_CONGRUENCE
            break
    else:
        return TERM_SLOT
    if pages & file.shared:
        return TERM_ATTRIBUTES
    if block in file.history:
        return TERM_HISTORY
    if accept == ACCEPT_4K:
        return TERM_ACCEPT
    if block in file.inhibit:
        return TERM_INHIBIT
    return TERM_NONE


def map_private(file: File, index: int, accept: int, counters: dict[str, int]) -> None:
    """The guest touches a present private page: map it at 2 MiB if nothing is in the way, else at 4 KiB."""
    block = index // BLOCK_PAGES
    if block in file.huge_mapped:
        if accept == ACCEPT_4K:
            shatter(file, block, "shattered_accept", counters)
            file.inhibit.add(block)
    elif term(file, index, accept) == TERM_NONE:
        file.huge_mapped.add(block)
        file.mapped |= block_pages(block)
        if block in file.shattered:
            file.shattered.remove(block)
            counters["healed_mapping"] += 1
    else:
        map_small(file, index)
        if accept == ACCEPT_4K and file.pages[index].folio.order >= BLOCK_ORDER:
            file.inhibit.add(block)


def map_small(file: File, index: int) -> None:
    """Map one page at 4 KiB."""
    file.mapped.add(index)
    file.history.add(index // BLOCK_PAGES)


def shatter(file: File, block: int, cause: str, counters: dict[str, int]) -> None:
    """A 2 MiB mapping becomes 512 of 4 KiB."""
    file.huge_mapped.remove(block)
    file.history.add(block)
    file.shattered.add(block)
    counters[cause] += 1


def unmap(file: File, indexes: Iterable[int], cause: str, counters: dict[str, int]) -> None:
    """Unmap pages, block by block; a block that keeps some of its 2 MiB mapping is shattered first."""
    doomed = set(indexes)
    for block in sorted({index // BLOCK_PAGES for index in doomed}):
        pages = block_pages(block)
        if block in file.huge_mapped:
            if pages <= doomed:
                file.huge_mapped.remove(block)
            else:
                shatter(file, block, cause, counters)
        file.mapped -= pages & doomed
        if not pages & file.mapped:
            file.history.discard(block)


def forget_inhibit(file: File, first: int, end: int) -> None:
    """The one-way mark goes when a block has no present page any more."""
    for block in range(first // BLOCK_PAGES, (end - 1) // BLOCK_PAGES + 1):
        if not any(index in file.pages for index in block_pages(block)):
            file.inhibit.discard(block)
