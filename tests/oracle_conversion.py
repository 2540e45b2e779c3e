"""Conversion in the oracle: attributes, and what they make of folios (G43 to G48, G72, K4, K12)."""

import errno

from gmemlab.core.hardware.counts import CONVERT, CONVERT_PAGE, MAP_GPA
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    GIGA_ORDER,
    GUEST_SNP,
    GUEST_TDX,
    MERGE_EAGER,
    SPLIT_2M_FIRST,
    UNSPECIFIED,
    USED,
    VMM_PUNCHES_PRIVATE,
    VMM_PUNCHES_SHARED,
)
from oracle_files import File, Folio
from oracle_mapping import block_pages, mend, unmap
from oracle_memory import Memory
from oracle_operations import punch, punch_is_aligned, split_into, structs_for_split
from oracle_snp import give_up, make_shared, request, rescind


def convert(memory: Memory, file: File, first: int, count: int, to_shared: bool) -> tuple[int, int]:
    """Change the attribute of a range (G43 to G48, G72)."""
    if all((index in file.shared) == to_shared for index in range(first, first + count)):
        return 0, count
    ask(file, first, count)
    if file.two_sources():
        return convert_two_sources(memory, file, first, count, to_shared)
    if to_shared:
        return share_in_place(memory, file, first, count)
    return privatise_in_place(memory, file, first, count)


def convert_two_sources(memory: Memory, file: File, first: int, count: int, to_shared: bool) -> tuple[int, int]:
    """The attributes, then what the VMM discards (K12); errors of its punches are only counted."""
    change_attributes(memory, file, first, first + count, to_shared)
    assert file.other is not None
    target = None
    if to_shared and file.policy.vmm_punch & VMM_PUNCHES_PRIVATE:
        target = file
    elif not to_shared and file.policy.vmm_punch & VMM_PUNCHES_SHARED:
        target = file.other
    if target is not None:
        error = errno.EINVAL
        if punch_is_aligned(target, first, count):
            error, _ = punch(memory, target, first, count)
        if error:
            memory.counters["vmm_punch_failed"] += 1
    return 0, count


def change_attributes(memory: Memory, file: File, first: int, end: int, to_shared: bool) -> None:
    """Unmap the pages whose attribute changes (the old kind only: G47), then change it."""
    changed = {index for index in range(first, end) if (index in file.shared) != to_shared}
    blocks = sorted({index // BLOCK_PAGES for index in changed})
    for block in blocks:
        pages = changed & block_pages(block)
        if to_shared and file.guest == GUEST_SNP:
            rescind(file, pages, memory.counters)
        unmap(file, pages, "shattered_convert", memory.counters)
        if to_shared and file.guest == GUEST_SNP and file.in_place():
            give_up(file, pages)
            make_shared(file, [file.pages[index].frame for index in pages & set(file.pages)])
    if to_shared:
        file.shared |= changed
    else:
        file.shared -= changed
    for index in range(first, end) if file.guest in (GUEST_SNP, GUEST_TDX) else ():
        if index in file.pages and file.pages[index].content == USED:
            file.pages[index].content = UNSPECIFIED
    for block in blocks:
        mend(file, block, memory.counters)


def ask(file: File, first: int, count: int) -> None:
    """The guest asks for a conversion, and its VMM asks KVM."""
    file.note(CONVERT)
    if not file.in_place():
        file.note(CONVERT_PAGE, count)
    if file.guest == GUEST_SNP:
        request(file, first, first + count, True)
    elif file.guest == GUEST_TDX:
        file.note(MAP_GPA)


def share_in_place(memory: Memory, file: File, first: int, count: int) -> tuple[int, int]:
    """To shared: split what is large, folio by folio; then unmap and mark what was reached (K4, G72)."""
    error = 0
    index = first
    while index < first + count and not error:
        error = split_to_share(memory, file, index, first, first + count)
        if not error:
            index += 1
    change_attributes(memory, file, first, index, True)
    if error == errno.EAGAIN:
        memory.counters["eagain"] += 1
    return error, index - first


def split_to_share(memory: Memory, file: File, index: int, a: int, b: int) -> int:
    """Make the page at `index` a 4 KiB folio, if it is present."""
    while index in file.pages and file.pages[index].folio.order > 0:
        folio = file.pages[index].folio
        if folio.busy():
            return errno.EAGAIN
        structs = structs_for_split(memory, file, folio)
        if structs:
            assert folio.huge is not None
            if not memory.restore_structs(folio.huge, structs):
                return errno.ENOMEM
        if folio.order >= BLOCK_ORDER:
            memory.counters["split_convert"] += 1
        memory.cut(folio, split_into(file, folio, a, b))
    return 0


def privatise_in_place(memory: Memory, file: File, first: int, count: int) -> tuple[int, int]:
    """To private: the range at once, or pool page by pool page; a held page of it stops it (G45, G46, G72)."""
    end = first + count
    ranges = [(first, end)]
    if file.from_pool():
        unit = file.unit()
        ranges = [(max(first, base), min(end, base + unit)) for base in range(first - first % unit, end, unit)]
    for a, b in ranges:
        file.unmap_host(range(a, b))
        for index in range(a, b):
            if index in file.pages and file.pages[index].folio.busy():
                memory.counters["eagain"] += 1
                return errno.EAGAIN, index - first
        change_attributes(memory, file, a, b, False)
        if file.policy.merge == MERGE_EAGER:
            merge_range(memory, file, a, b)
    return 0, count


def merge_range(memory: Memory, file: File, a: int, b: int) -> None:
    """Merge what became wholly private; 1 GiB pages that are split to 2 MiB first are merged to 2 MiB first."""
    orders = [file.policy.sizes[0]]
    if file.policy.split == SPLIT_2M_FIRST and orders[0] == GIGA_ORDER:
        orders = [BLOCK_ORDER, GIGA_ORDER]
    for order in orders:
        if order >= BLOCK_ORDER:
            for base in range(a - a % (1 << order), b, 1 << order):
                merge(memory, file, base, order)


def merge(memory: Memory, file: File, base: int, order: int) -> None:
    """Make one folio of a huge range again if all of it is present, private, contiguous and held by nobody."""
    indexes = range(base, base + (1 << order))
    if any(index not in file.pages or index in file.shared for index in indexes):
        return
    pfn = file.pages[base].frame
    if pfn % (1 << order) != 0:
        return
    for index in indexes:
        page = file.pages[index]
        if page.frame != pfn + index - base or page.folio.order >= order or page.folio.busy():
            return
    huge = file.pages[base].folio.huge
    folio = Folio(file, base, pfn, order, huge, set(indexes))
    for index in indexes:
        file.pages[index].folio = folio
        memory.users[file.pages[index].frame] = folio
    if huge is not None and order == huge.order:
        memory.forget_structs(huge)
    elif huge is not None and memory.pools[huge.order].hvo:
        huge.chains[pfn], freed = huge.chains[pfn][:-7], huge.chains[pfn][-7:]
        for frame in freed:
            memory.buddy.free(frame, 0)
    memory.counters["healed_backing"] += 1
