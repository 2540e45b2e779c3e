"""Population and punch in the oracle: loops over pages and folios, with no fast path.

Functions return an errno, or (errno, pages done); the range has been checked by the caller.
"""

import errno
from collections import Counter
from collections.abc import Iterable

from gmemlab.core.hardware.counts import CLEAR_2M, CLEAR_4K, HOST_WRITE
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRESH,
    GIGA_ORDER,
    GUEST_PLAIN,
    GUEST_SNP,
    KIND_ANON,
    KIND_HUGETLB,
    PUNCH_DEFER,
    PUNCH_KEEP,
    PUNCH_REFUSE,
    PUNCH_ZERO,
    SPLIT_2M_FIRST,
    SPLIT_BUDDY,
    STALE,
    USED,
    ZEROED,
)
from oracle_effort import alloc
from oracle_files import File, Folio
from oracle_mapping import forget_inhibit, mend, unmap
from oracle_memory import Memory
from oracle_snp import give_up, make_shared


# -- population -------------------------------------------------------------------------------------------------------
def populate(memory: Memory, file: File, index: int, by_fallocate: bool = False) -> int:
    """Make one page present: the largest size that fits, never over a present page (G58, G71)."""
    if index in file.pages:
        return 0
    if file.from_pool():
        return populate_huge(memory, file, index)
    for order in (by_fallocate and file.policy.fallocate_sizes) or file.policy.sizes:
        base = index & ~((1 << order) - 1)
        pages = range(base, base + (1 << order))
        if base + (1 << order) > file.size or any(i in file.pages for i in pages):
            continue
        if order == BLOCK_ORDER and index // BLOCK_PAGES in file.tables:
            continue
        mixed = order > 0 and file.in_place() and any(i in file.shared for i in pages)
        if mixed and not file.in_units():
            continue
        pfn = alloc(memory, file, base, order, by_fallocate)
        if pfn is not None:
            if order < BLOCK_ORDER and file.policy.kind == KIND_ANON:
                file.tables.add(index // BLOCK_PAGES)
            elif order == BLOCK_ORDER and file.policy.kind == KIND_ANON:
                file.unseen.add(index // BLOCK_PAGES)
            folio = memory.insert(file, base, pfn, order)
            if order == BLOCK_ORDER and file.policy.kind == KIND_ANON:
                memory.shrinker.add(folio)
            if mixed:
                memory.cut(folio, [(page, 0) for page in pages])
            return 0
    return errno.ENOMEM


def populate_huge(memory: Memory, file: File, index: int) -> int:
    """A pool page; split to 4 KiB at once where a page of its range is shared (G71)."""
    huge = memory.take_huge(file, index)
    if huge is None:
        return errno.ENOSPC if file.policy.kind == KIND_HUGETLB else errno.ENOMEM
    base = index & ~((1 << huge.order) - 1)
    pages = range(base, base + (1 << huge.order))
    if not file.in_place() or not any(i in file.shared for i in pages):
        memory.insert(file, base, huge.pfn, huge.order, huge)
        return 0
    folio = memory.insert(file, base, huge.pfn, huge.order, huge)
    if not split_mixed(memory, file, folio):
        for page in pages:
            del memory.users[file.pages.pop(page).frame]
        memory.give_back(file, huge)
        return errno.ENOMEM
    return 0


def split_mixed(memory: Memory, file: File, folio: Folio) -> bool:
    """Split a new pool page so that every shared page of it is 4 KiB; False if page structs are short."""
    structs = structs_for_split(memory, file, folio)
    assert folio.huge is not None
    if not memory.restore_structs(folio.huge, structs):
        return False
    pages = range(folio.index, folio.index + (1 << folio.order))
    memory.cut(folio, split_into(file, folio, pages.start, pages.stop))
    for piece in file.folios(pages.start, pages.stop):
        if piece.order > 0 and piece.members & file.shared and not split_mixed(memory, file, piece):
            return False
    return True


def use(file: File, index: int, launched: bool = False) -> None:
    """First use clears the whole folio (G27); a page that was punched without being freed is used again alone.

    Anonymous memory was cleared when it was allocated: only the page itself is used. Base pages of a launch image are filled.
    """
    folio = file.pages[index].folio
    if not folio.cleared and file.policy.kind != KIND_ANON:
        if file.confidential() and not (launched and folio.order == 0):
            tell_cleared(file, [member for member in folio.members if file.pages[member].content == FRESH])
        for member in folio.members:
            if file.pages[member].content == FRESH:
                file.pages[member].content = USED
        folio.cleared = True
    file.pages[index].content = USED


def tell_cleared(file: File, pages: list[int]) -> None:
    """Fresh pages of a folio are cleared: whole 2 MiB as such."""
    for block, fresh in Counter(index // BLOCK_PAGES for index in pages).items():
        assert block >= 0
        file.note(CLEAR_2M if fresh == BLOCK_PAGES else CLEAR_4K, 1 if fresh == BLOCK_PAGES else fresh)


def note_zeroing(file: File, indexes: Iterable[int]) -> None:
    """The kernel writes zeros to private pages (K1, T9): of SNP to frames that the RMP gives to the guest."""
    present = {index for index in indexes if index in file.pages}
    if file.guest == GUEST_SNP:
        assert file.rmp is not None
        file.note(HOST_WRITE, len({file.pages[index].frame for index in present} & file.rmp.assigned))
    elif file.confidential() and file.guest != GUEST_PLAIN:
        file.note(HOST_WRITE, len(present - file.shared))


# -- splitting --------------------------------------------------------------------------------------------------------
def around(index: int, order: int, page: int) -> list[tuple[int, int]]:
    """Non-uniform split around a page: halves, and halves of the half that holds it, until it stands alone (L13)."""
    if order == 0 or not index <= page < index + (1 << order):
        return [(index, order)]
    half = 1 << (order - 1)
    return around(index, order - 1, page) + around(index + half, order - 1, page)


def pieces(index: int, order: int, a: int, b: int) -> list[tuple[int, int]]:
    """Split around the first page of [a, b), then the piece that holds the page after its last around that."""
    return [small for first, piece in around(index, order, a) for small in around(first, piece, b)]


def split_into(file: File, folio: Folio, a: int, b: int, leaving: bool = False) -> list[tuple[int, int]]:
    """The pieces that the policy's way of splitting makes of a folio, for [a, b): 4 KiB there, unless that is leaving."""
    if file.policy.split == SPLIT_BUDDY:
        a, b = max(a, folio.index), min(b, folio.index + (1 << folio.order))
        found: list[tuple[int, int]] = []
        for start, order in pieces(folio.index, folio.order, a, b):
            small = a <= start < b and not leaving
            found += [(start + step, 0) for step in range(1 << order)] if small else [(start, order)]
        return found
    if file.policy.split == SPLIT_2M_FIRST and folio.order == GIGA_ORDER:
        return [(folio.index + offset, BLOCK_ORDER) for offset in range(0, 1 << GIGA_ORDER, BLOCK_PAGES)]
    return [(folio.index + offset, 0) for offset in range(1 << folio.order)]


def structs_for_split(memory: Memory, file: File, folio: Folio) -> dict[int, int]:
    """Frames of page structs that must be restored before this folio can be split, by block (G74)."""
    if folio.huge is None or not memory.pools[folio.huge.order].hvo:
        return {}
    first, *others = range(folio.pfn, folio.pfn + (1 << folio.order), BLOCK_PAGES)
    if file.policy.split == SPLIT_2M_FIRST and folio.order == GIGA_ORDER:
        return dict.fromkeys(others, 1)
    if folio.order != (BLOCK_ORDER if file.policy.split == SPLIT_2M_FIRST else folio.huge.order):
        return {}
    return {first: 7} | dict.fromkeys(others, 8)


# -- punch ------------------------------------------------------------------------------------------------------------
def punch(memory: Memory, file: File, first: int, count: int) -> tuple[int, int]:
    """Punch [first, first + count), clipped to the file, 2 MiB by 2 MiB or pool page by pool page."""
    end = min(first + count, file.size)
    if file.policy.punch == PUNCH_REFUSE and not file.in_units():
        for folio in file.folios(first, end):
            if not all(first <= index < end for index in folio.members):
                return errno.EINVAL, 0
    unit = file.unit()
    for start, stop in in_turn(file, first, end):
        for base in range(start - start % unit, stop, unit):
            a, b = max(start, base), min(stop, base + unit)
            if not file.in_units():
                punch_block(memory, file, a, b)
            elif base in file.pages and not punch_huge(memory, file, base, a, b):
                return errno.EAGAIN, base - first
            forget_inhibit(file, a, b)
    return 0, count


def in_turn(file: File, first: int, end: int) -> list[tuple[int, int]]:
    """The folios that leave as a whole are the first; then the one at the start, then the one at the end."""
    begin, stop = first, end
    as_they_lie = file.in_units() or file.policy.punch == PUNCH_DEFER
    for folio in [] if as_they_lie else file.folios(first, end):
        if min(folio.members) < first:
            begin = max(folio.members) + 1
        if max(folio.members) >= end:
            stop = min(folio.members)
    runs = [(begin, stop), (first, begin), (stop, end)] if begin < stop else [(first, end)]
    return [(a, b) for a, b in runs if a < b]


def punch_huge(memory: Memory, file: File, base: int, a: int, b: int) -> bool:
    """Punch [a, b) of the pool page at `base`: as a whole, or without freeing anything (L18, G66, G69, G73).

    False: it was split and some of its pages are held, so nothing was done.
    """
    if (a, b) != (base, base + file.unit()):
        if file.policy.kind == KIND_HUGETLB or file.policy.punch == PUNCH_ZERO:
            if file.policy.kind != KIND_HUGETLB:
                unmap(file, range(a, b), "shattered_punch", memory.counters)
            note_zeroing(file, range(a, b))
            for index in range(a, b):
                file.pages[index].content = ZEROED
            for block in range(a // BLOCK_PAGES, (b - 1) // BLOCK_PAGES + 1):
                mend(file, block, memory.counters)
        return True
    folios = file.folios(a, b)
    huge = folios[0].huge
    split = 1 << folios[0].order < file.unit()
    file.unmap_host(range(a, b))
    if huge is not None and split and any(folio.busy() for folio in folios):
        return False
    unmap(file, range(a, b), "shattered_punch", memory.counters)
    file.promised.discard(base // file.unit())  # hugetlb: the promise goes with the page, that of an absent one stays (L19)
    if not split or huge is None:
        for folio in folios:
            memory.leave(folio)
        return True
    if file.rmp is not None:
        for base in range(a, b, BLOCK_PAGES):
            give_up(file, range(base, base + BLOCK_PAGES))
        make_shared(file, [file.pages[index].frame for index in range(a, b)])
    for index in range(a, b):
        del memory.users[file.pages.pop(index).frame]
    for folio in folios:
        folio.members = set()
    memory.give_back(file, huge)
    return True


def punch_block(memory: Memory, file: File, a: int, b: int) -> None:
    """Punch [a, b) inside one 2 MiB of a file from the buddy allocator."""
    if file.policy.punch == PUNCH_DEFER:
        defer_pages(memory, file, a, b)
        return
    folios = file.folios(a, b)
    whole = [folio for folio in folios if all(a <= index < b for index in folio.members)]
    if file.policy.punch == PUNCH_KEEP:
        unmap(file, {index for folio in whole for index in folio.members}, "shattered_punch", memory.counters)
    else:
        unmap(file, range(a, b), "shattered_punch", memory.counters)
    for folio in folios:
        if folio in whole:
            memory.leave(folio)
        else:
            punch_part(memory, file, folio, a, b)
    mend(file, a // BLOCK_PAGES, memory.counters)


def defer_pages(memory: Memory, file: File, a: int, b: int) -> None:
    """Unmap pages of anonymous memory one by one; a folio goes with the last of its pages (L16)."""
    if b - a == BLOCK_PAGES:
        file.tables.discard(a // BLOCK_PAGES)
    elif any(index in file.pages for index in range(a - a % BLOCK_PAGES, a - a % BLOCK_PAGES + BLOCK_PAGES)):
        file.tables.add(a // BLOCK_PAGES)
    for index in range(a, b):
        if index in file.pages:
            folio = file.pages[index].folio
            if len(folio.members) == 1:
                memory.leave(folio)
            else:
                del file.pages[index]
                folio.members.remove(index)
                memory.shrinker.add(folio)


def punch_part(memory: Memory, file: File, folio: Folio, a: int, b: int) -> None:
    """Punch the pages of [a, b) out of a folio that also has others."""
    inside = sorted(index for index in folio.members if a <= index < b)
    if file.policy.punch == PUNCH_KEEP:
        return
    if file.policy.punch == PUNCH_ZERO or file.policy.truncation:
        note_zeroing(file, inside)
    if file.policy.punch == PUNCH_ZERO:
        for index in inside:
            file.pages[index].content = ZEROED
        memory.shrinker.add_zeros(folio)
    elif folio.busy():
        punch_failed_split(memory, file, folio, inside)
    else:
        if folio.order >= BLOCK_ORDER:
            memory.counters["split_punch"] += 1
        memory.cut(folio, split_into(file, folio, a, b, leaving=True))
        for piece in file.folios(inside[0], inside[-1] + 1):
            memory.leave(piece)


def punch_failed_split(memory: Memory, file: File, folio: Folio, inside: list[int]) -> None:
    """The split fails on a hold: zeroed (L14), or stale if dirty, or the whole folio dropped if clean (K1, K2)."""
    memory.counters["split_failed"] += 1
    if not file.confidential() or file.policy.truncation:
        for index in inside:
            file.pages[index].content = ZEROED
        memory.shrinker.add_zeros(folio)
    elif folio.dirty():
        memory.counters["stale_pages"] += len(inside)
        for index in inside:
            file.pages[index].content = STALE
    else:
        memory.counters["lost_pages"] += len(folio.members) - len(inside)
        unmap(file, folio.members, "shattered_punch", memory.counters)
        memory.leave(folio)


def punch_is_aligned(file: File, first: int, count: int) -> bool:
    """May this range be punched? guest_memfd from a pool takes whole huge pages, unless it frees nothing (G66, G69)."""
    if not file.in_units() or not file.confidential() or file.policy.punch in (PUNCH_ZERO, PUNCH_KEEP):
        return True
    return first % file.unit() == 0 and count % file.unit() == 0
