"""SEV-SNP in the oracle: sets of assigned frames and of host blocks that have one RMP entry (G81 to G83)."""

from collections.abc import Iterable

from gmemlab.core.hardware import counts
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_IN_PLACE,
    ACCEPT_LAUNCH,
    BLOCK_PAGES,
    GIGA_BLOCKS,
    TERM_FOLIO,
    TERM_NONE,
    TERM_SLOT,
    TOUCH,
)
from oracle_files import File, Rmp
from oracle_mapping import block_pages, map_huge, map_small, term, zap_huge


def rmp_of(file: File) -> Rmp:
    assert file.rmp is not None
    return file.rmp


def has_one_entry(file: File, block: int) -> bool:
    """Is the 2 MiB of the file in one RMP entry?"""
    rmp = rmp_of(file)
    frames = [file.pages[index].frame for index in block_pages(block) if index in file.pages]
    return bool(frames) and frames[0] // BLOCK_PAGES in rmp.whole


def smash(file: File, block: int) -> None:
    first = block * BLOCK_PAGES
    rmp_of(file).whole.remove(file.pages[first].frame // BLOCK_PAGES)
    file.note(counts.PSMASH)


def request(file: File, first: int, end: int, huge: bool) -> None:
    """A page-state change request: aligned 2 MiB as one entry each, 64 entries at a time (W21)."""
    entries = 0
    while first < end:
        step = BLOCK_PAGES if huge and first % BLOCK_PAGES == 0 and first + BLOCK_PAGES <= end else 1
        entries += 1
        first += step
    file.note(counts.PSC_ENTRY, entries)
    file.note(counts.PSC_REQUEST, -(-entries // 64))


def request_accepts(file: File, first: int, end: int, accept: int) -> None:
    """In chunks of 4 MiB (W19)."""
    for chunk in range(first - first % 1024, end, 1024):
        request(file, max(first, chunk), min(end, chunk + 1024), accept == ACCEPT_2M)


def assign(file: File, indexes: Iterable[int]) -> None:
    """RMPUPDATE to private, 4 KiB each, which splits the kernel's own mapping (K11)."""
    rmp = rmp_of(file)
    for index in indexes:
        frame = file.pages[index].frame
        if frame in rmp.assigned:
            continue
        rmp.assigned.add(frame)
        file.note(counts.RMPUPDATE_PRIVATE_4K)
        split_direct(file, frame // BLOCK_PAGES)


def split_direct(file: File, block: int) -> None:
    """The kernel's own mapping of a host block is one of 4 KiB pages from here on (K11)."""
    rmp = rmp_of(file)
    if block not in rmp.direct:
        file.note(counts.DIRECT_MAP_2M)
        file.note(counts.DIRECT_MAP_1G, int(all(other // GIGA_BLOCKS != block // GIGA_BLOCKS for other in rmp.direct)))
        rmp.direct.add(block)


def fault(file: File, pages: list[int], counters: dict[str, int]) -> None:
    """Prepared, then mapped at the level of the entry or lower."""
    rmp = rmp_of(file)
    block = pages[0] // BLOCK_PAGES
    why = term(file, pages[0], TOUCH)
    present = [file.pages[index].frame for index in block_pages(block) if index in file.pages]
    if not rmp.assigned.intersection(present) and why not in (TERM_FOLIO, TERM_SLOT):
        rmp.whole.add(present[0] // BLOCK_PAGES)
        rmp.assigned.update(present)
        file.note(counts.RMPUPDATE_PRIVATE_2M)
    else:
        assign(file, pages)
    if has_one_entry(file, block):
        if why == TERM_NONE:
            if not block_pages(block) <= file.mapped:
                map_huge(file, block, counters)
            return
        file.note(counts.RMP_FAULT)
        file.note(counts.FAULT_4K)  # mapped once more after the zap
        smash(file, block)
    file.note(counts.FAULT_4K, len(set(pages) - file.mapped))
    for index in pages:
        map_small(file, index)


def smash_for_guest(file: File, block: int, cause: str, counters: dict[str, int]) -> None:
    file.note(counts.RMP_FAULT)
    smash(file, block)
    if block in file.huge_mapped:
        zap_huge(file, block, cause, counters)


def access(file: File, pages: list[int], accept: int, counters: dict[str, int]) -> None:
    """Present private pages of one block, ascending."""
    block = pages[0] // BLOCK_PAGES
    if accept in (ACCEPT_LAUNCH, ACCEPT_IN_PLACE):
        fresh = [index for index in pages if index not in file.accepted]
        if fresh and has_one_entry(file, block):
            smash_for_guest(file, block, "shattered_accept", counters)
        if fresh:
            assign(file, pages)
            file.note(counts.LAUNCH_UPDATE if accept == ACCEPT_LAUNCH else counts.LAUNCH_IN_PLACE, len(fresh))
    else:
        fault(file, pages, counters)
        fresh = [index for index in pages if index not in file.accepted]
        if accept == TOUCH:
            file.note(counts.UNACCEPTED, len(fresh))
        elif fresh:
            validate(file, pages, fresh, accept == ACCEPT_2M, counters)
    file.accepted |= set(pages)
    mend(file, block, counters)


def validate(file: File, pages: list[int], fresh: list[int], huge: bool, counters: dict[str, int]) -> None:
    block = pages[0] // BLOCK_PAGES
    if huge and len(fresh) == BLOCK_PAGES:
        if block in file.huge_mapped:
            file.note(counts.PVALIDATE_2M)
            return
        file.note(counts.SIZE_MISMATCH)
    elif has_one_entry(file, block):
        smash_for_guest(file, block, "shattered_accept", counters)
        file.note(counts.FAULT_4K, len(set(pages) - file.mapped))
        for index in pages:
            map_small(file, index)
    file.note(counts.PVALIDATE_4K, len(fresh))


def mend(file: File, block: int, counters: dict[str, int]) -> None:
    """What a zapped 2 MiB mapping had in use faults back."""
    if block not in file.zapped:
        return
    file.zapped.remove(block)
    used = sorted(block_pages(block) & file.accepted)
    if used and has_one_entry(file, block):
        fault(file, used[:1], counters)
    if block not in file.huge_mapped:
        back = [index for index in used if index not in file.mapped]
        file.note(counts.REFAULT, len(back))
        for index in back:
            map_small(file, index)


def fault_in(file: File, pages: set[int], counters: dict[str, int]) -> None:
    """PVALIDATE reaches pages, of which no table maps some."""
    for index in sorted(pages):
        if index not in file.mapped:
            fault(file, [index], counters)


def rescind(file: File, pages: set[int], counters: dict[str, int]) -> None:
    """The guest gives up pages of one block."""
    block = min(pages) // BLOCK_PAGES
    mine = pages & file.accepted
    if not mine:
        return
    fault_in(file, mine, counters)
    if len(mine) == BLOCK_PAGES and block in file.huge_mapped:
        file.note(counts.RESCIND_2M)
    else:
        file.note(counts.SIZE_MISMATCH, int(len(mine) == BLOCK_PAGES))
        if has_one_entry(file, block):
            smash_for_guest(file, block, "shattered_convert", counters)
            fault_in(file, mine, counters)
        file.note(counts.RESCIND_4K, len(mine))
    file.accepted -= mine


def give_up(file: File, pages: Iterable[int]) -> None:
    """Before pages of one block leave the file or are made shared: a larger entry is smashed, nothing is validated."""
    doomed = set(pages)
    block = min(doomed) // BLOCK_PAGES
    if doomed & set(file.pages) and has_one_entry(file, block) and not block_pages(block) <= doomed:
        smash(file, block)
    file.accepted -= doomed


def move_entry(file: File, old: int, new: int) -> None:
    """Another frame has the entry of 4 KiB."""
    if file.rmp is not None and old in file.rmp.assigned:
        file.rmp.assigned.remove(old)
        file.rmp.assigned.add(new)


def note_moves(file: File, moves: list[tuple[int, int]]) -> None:
    """The firmware moves pages, from frame to frame (K16, G87): both sides are told to the RMP, and split the direct map."""
    for old, new in moves:
        if old in rmp_of(file).assigned:
            for operation in (counts.RMPUPDATE_PRIVATE_4K, counts.PAGE_MOVE_4K, counts.RMPUPDATE_SHARED_4K):
                file.note(operation)
            split_direct(file, new // BLOCK_PAGES)
            split_direct(file, old // BLOCK_PAGES)


def move_whole(file: File, old: int, new: int) -> None:
    """The firmware moves the 2 MiB of one entry, from host block to host block."""
    rmp_of(file).whole.remove(old)
    rmp_of(file).whole.add(new)
    for operation in (counts.RMPUPDATE_PRIVATE_2M, counts.PAGE_MOVE_2M, counts.RMPUPDATE_SHARED_2M):
        file.note(operation)


def make_shared(file: File, frames: Iterable[int]) -> None:
    """RMPUPDATE to shared of what is assigned of some frames, block by block."""
    rmp = rmp_of(file)
    doomed = set(frames) & rmp.assigned
    for block in {frame // BLOCK_PAGES for frame in doomed}:
        mine = doomed & block_pages(block)
        if block in rmp.whole:
            rmp.whole.remove(block)
            file.note(counts.RMPUPDATE_SHARED_2M)
        else:
            file.note(counts.RMPUPDATE_SHARED_4K, len(mine))
            split_direct(file, block)
    rmp.assigned -= doomed
