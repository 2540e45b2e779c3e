"""TDX in the oracle: what is mapped is in the S-EPT (G76 to G80)."""

from gmemlab.core.hardware import counts
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_IN_PLACE,
    ACCEPT_LAUNCH,
    BLOCK_ORDER,
    BLOCK_PAGES,
    TERM_NONE,
    TOUCH,
)
from oracle_files import File
from oracle_mapping import block_pages, map_huge, map_small, shatter, term


def demote(file: File, block: int, cause: str, counters: dict[str, int]) -> None:
    for operation in (counts.RANGE_BLOCK, counts.TRACK, counts.DEMOTE):
        file.note(operation)
    shatter(file, block, cause, counters)


def access(file: File, pages: list[int], accept: int, counters: dict[str, int]) -> None:
    """Present private pages of one block, ascending."""
    block = pages[0] // BLOCK_PAGES
    fresh = [index for index in pages if index not in file.accepted]
    unmapped = [index for index in pages if index not in file.mapped]
    if accept in (ACCEPT_LAUNCH, ACCEPT_IN_PLACE):
        if block not in file.huge_mapped:
            file.note(counts.PAGE_ADD if accept == ACCEPT_LAUNCH else counts.PAGE_ADD_IN_PLACE, len(unmapped))
            for index in pages:
                map_small(file, index)
            file.accepted |= set(pages)
        return
    if accept == ACCEPT_2M and len(fresh) < BLOCK_PAGES:
        accept = ACCEPT_4K
    if block not in file.huge_mapped:
        if not block_pages(block) & file.mapped and term(file, pages[0], accept) == TERM_NONE:
            map_huge(file, block, counters)
            file.note(counts.AUG_2M)
        else:
            if accept == ACCEPT_4K and unmapped and file.pages[pages[0]].folio.order >= BLOCK_ORDER:
                file.one_way.add(block)
            for index in pages:
                map_small(file, index)
            file.note(counts.FAULT_4K, len(unmapped))
            file.note(counts.AUG_4K, len(unmapped))
    elif accept == ACCEPT_4K and fresh:
        demote(file, block, "shattered_accept", counters)
        file.one_way.add(block)
    if fresh:
        tell_accepts(file, block, len(fresh), accept)
    file.accepted |= set(pages)


def tell_accepts(file: File, block: int, fresh: int, accept: int) -> None:
    if accept == TOUCH:
        file.note(counts.UNACCEPTED, fresh)
    elif accept == ACCEPT_2M and block in file.huge_mapped:
        file.note(counts.ACCEPT_2M)
    else:
        file.note(counts.ACCEPT_MISMATCH, int(accept == ACCEPT_2M))
        file.note(counts.ACCEPT_4K, fresh)


def unmap_block(file: File, block: int, doomed: set[int], cause: str, counters: dict[str, int]) -> None:
    """Zap some pages of a block, and nothing else; they are not accepted then."""
    mapped = doomed & file.mapped
    if block in file.huge_mapped and block_pages(block) <= doomed:
        file.huge_mapped.remove(block)
        remove(file, 1, True)
    elif mapped:
        if block in file.huge_mapped:
            demote(file, block, cause, counters)
        remove(file, len(mapped), False)
    file.mapped -= mapped
    file.accepted -= doomed


def remove(file: File, number: int, huge: bool) -> None:
    file.note(counts.RANGE_BLOCK, number)
    file.note(counts.TRACK, number)
    file.note(counts.REMOVE_2M if huge else counts.REMOVE_4K, number)
