"""The guest's second-stage mapping in the oracle: sets of mapped pages and of blocks mapped at 2 MiB (K6, K8)."""

from collections.abc import Iterable

from gmemlab.core.hardware.counts import FAULT_2M, FAULT_4K, REFAULT
from gmemlab.core.layout import (
    ACCEPT_4K,
    ACCEPT_MARK_ONE_WAY,
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRESH,
    GUEST_GENERIC,
    GUEST_SNP,
    GUEST_TDX,
    TERM_ACCEPT,
    TERM_ATTRIBUTES,
    TERM_CONGRUENCE,
    TERM_FOLIO,
    TERM_HISTORY,
    TERM_INHIBIT,
    TERM_NONE,
    TERM_SLOT,
    TOUCH,
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
    return why_not_again(file, block, accept)


def why_not_again(file: File, block: int, accept: int) -> int:
    """What the hardware and the past have against it."""
    if file.guest == GUEST_SNP:
        assert file.rmp is not None
        frames = {file.pages[index].frame for index in block_pages(block) if index in file.pages}
        split = frames & file.rmp.assigned and min(frames) // BLOCK_PAGES not in file.rmp.whole
        return TERM_HISTORY if split else TERM_NONE
    if file.guest not in (GUEST_GENERIC, GUEST_TDX):
        return TERM_NONE
    marked = block in (file.one_way if file.guest == GUEST_TDX else file.inhibit)
    if marked and file.policy.accept_mark == ACCEPT_MARK_ONE_WAY:
        return TERM_INHIBIT
    if block in file.history:
        return TERM_HISTORY
    return TERM_ACCEPT if accept == ACCEPT_4K else TERM_NONE


def map_private(file: File, index: int, accept: int, counters: dict[str, int]) -> None:
    """A guest without page state touches a present private page: mapped at 2 MiB if nothing is in the way, else at 4 KiB."""
    block = index // BLOCK_PAGES
    if block in file.huge_mapped:
        if accept == ACCEPT_4K and file.guest == GUEST_GENERIC:
            shatter(file, block, "shattered_accept", counters)
            file.inhibit.add(block)
    elif term(file, index, accept) == TERM_NONE:
        if not block_pages(block) <= file.mapped:
            map_huge(file, block, counters)
    else:
        file.note(FAULT_4K, int(index not in file.mapped))
        map_small(file, index)
        if accept == ACCEPT_4K and file.pages[index].folio.order >= BLOCK_ORDER:
            file.inhibit.add(block)


def map_huge(file: File, block: int, counters: dict[str, int]) -> None:
    """A fault maps 2 MiB at once."""
    file.note(FAULT_2M)
    file.huge_mapped.add(block)
    file.mapped |= block_pages(block)
    file.history.discard(block)
    if block in file.shattered:
        file.shattered.remove(block)
        counters["healed_mapping"] += 1


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


def zap_huge(file: File, block: int, cause: str, counters: dict[str, int]) -> None:
    """A 2 MiB mapping goes, all of it, for the sake of a part."""
    file.huge_mapped.remove(block)
    file.mapped -= block_pages(block)
    file.shattered.add(block)
    file.zapped.add(block)
    counters[cause] += 1


def mend(file: File, block: int, counters: dict[str, int]) -> None:
    """After an operation on a block: what was in use of a zapped mapping faults back."""
    if file.guest == GUEST_SNP:
        from oracle_snp import mend as mend_snp  # which maps

        mend_snp(file, block, counters)
        return
    if block not in file.zapped:
        return
    file.zapped.remove(block)
    pages = sorted(block_pages(block) & set(file.pages))
    if len(pages) == BLOCK_PAGES and not set(pages) & file.shared and term(file, pages[0], TOUCH) == TERM_NONE:
        map_huge(file, block, counters)
        return
    for index in pages:
        if index not in file.mapped and index not in file.shared and file.pages[index].content != FRESH:
            file.note(REFAULT)
            map_small(file, index)


def unmap(file: File, indexes: Iterable[int], cause: str, counters: dict[str, int]) -> None:
    """Unmap pages, block by block; a block that keeps some of its 2 MiB mapping is shattered first."""
    doomed = set(indexes)
    for block in sorted({index // BLOCK_PAGES for index in doomed}):
        pages = block_pages(block)
        if file.guest == GUEST_TDX:
            from oracle_tdx import unmap_block  # which shatters

            unmap_block(file, block, pages & doomed, cause, counters)
        elif block in file.huge_mapped:
            if pages <= doomed:
                file.huge_mapped.remove(block)
            elif file.guest == GUEST_GENERIC or (cause == "shattered_convert" and file.in_place()):
                shatter(file, block, cause, counters)
            else:
                zap_huge(file, block, cause, counters)
        file.mapped -= pages & doomed
        if not pages & file.mapped:
            file.history.discard(block)


def forget_inhibit(file: File, first: int, end: int) -> None:
    """The one-way mark goes when a block has no present page any more."""
    for block in range(first // BLOCK_PAGES, (end - 1) // BLOCK_PAGES + 1):
        if not any(index in file.pages for index in block_pages(block)):
            file.inhibit.discard(block)
