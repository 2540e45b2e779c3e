"""The invariants: every frame has one owner, counters equal recounts, no list is broken.

`audit` returns the number of the first broken rule (a key of `RULES`) and where, or (0, 0). It reads only.
"""

from typing import Final

from gmemlab.core import layout
from gmemlab.core.audit_files import audit_cache, audit_daemons, audit_files, audit_promises
from gmemlab.core.audit_nodes import audit_nodes, audit_pool
from gmemlab.core.audit_pcp import audit_cpus
from gmemlab.core.audit_queue import audit_queues, index_in_file
from gmemlab.core.audit_structs import audit_structs
from gmemlab.core.audit_types import audit_types
from gmemlab.core.frames import folio_busy, folio_head, folio_order
from gmemlab.core.jit import entry, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_FREE,
    FRAME_ISOLATED,
    FRAME_PCP,
    FRAME_TAIL,
    FRAME_USED,
    FREE,
    GIGA,
    HIGHATOMIC,
    ISOLATE,
    MAX_PAGE_ORDER,
    NR_MIGRATETYPES,
    NR_ORDERS,
    NR_PCPTYPES,
    ORPHAN,
    SPLIT,
    UNIFORM,
    WHOLE,
)
from gmemlab.core.lists import list_index, pfn_of
from gmemlab.core.mapping import frame_of
from gmemlab.core.pcp import is_kept_chunk
from gmemlab.core.state import Records, State
from gmemlab.core.subpools import audit_subpools

RULES: Final = {
    1: "a free list's links, tail or count are broken",
    2: "a chunk on a free list is not free, or of another order, type or zone",
    3: "a zone's free pages differ from its free lists",
    4: "a split block's count of free frames differs from its frames",
    5: "two free buddies were not merged",
    6: "a free frame is on no list",
    7: "a split block's count of movable frames differs from its frames",
    8: "a folio's frames do not agree about order, owner or index",
    9: "a used frame is not where its file says",
    10: "a pin count is negative, or on a frame that is no head",
    11: "a whole or uniform block is not where its file says",
    12: "a pool's stacks, counts or pages are broken, or those of its nodes do not add up",
    13: "pins and references differ from what their calls hold",
    14: "an orphan that nobody holds was not freed",
    15: "what a pool has promised differs from what files have of it, or is more than it has",
    16: "a per-CPU list's links or count are broken, or a chunk on it is of another kind, order or zone",
    17: "what lies on per-CPU lists differs from their counts, or from the blocks",
    18: "free CMA, HIGHATOMIC or isolated pages differ from a zone's lists, or what it reserved or holds back from them",
    19: "a CMA block holds unmovable memory, or a block that is not isolated remembers another type",
    20: "a file block's counts differ from its pages, or an absent page has contents",
    21: "a page's frame belongs to somebody else",
    22: "a shared page is mapped as private, or a mapped page is absent",
    23: "a 2 MiB mapping of a block that is not wholly private and present, or not in one host block in order",
    24: "the counters of present pages differ from the files",
    25: "a file block beyond its file's end is in use",
    26: "a file's folio reaches into another folio's place",
    27: "what files were given, less what left them, differs from what they hold",
    28: "khugepaged's list differs from the files, or a kcompactd is asked for an order that is none, or sleeps too long",
    29: "a zone is of no node, a node's list of zones is none, or does not start with its own",
    30: "allocations that missed their node are not as many as were wanted elsewhere, or as the counters say",
    31: "a file's policy names no node, or one that the host has not",
    32: "what a mount of hugetlbfs uses or keeps differs from its files, or exceeds its limits",
    33: "page states contradict who owns a page, how the guest maps it, or each other",
    34: "the list of page cache differs from the files, or a hand of reclaim stands beside it, or what one calls dry is not",
    35: "a VMM maps a page that is private or absent, or of a file that it cannot map, or how many differs from the pages",
    36: "the queue of the deferred-split shrinker is broken, or what is on it is not what is to be split",
    37: "the page structs of a free block or an idle huge page are not what HVO leaves, or a block names others than its own",
}


def describe(code: int) -> str:
    """What a rule says, as broken."""
    return RULES[code]


@jit
def audit_list(state: State, zone: int, migratetype: int, order: int) -> tuple[int, int]:
    """Walk one free list. Returns (rule, node) where broken, else (0, chunks)."""
    free_list = state.free_lists[list_index(zone, migratetype, order)]
    before = 0
    node = int(free_list.head)
    chunks = 0
    while node:
        block = node if order >= BLOCK_ORDER else pfn_of(state, node) >> BLOCK_ORDER
        record = state.blocks[block]
        if record.zone != zone or record.migratetype != migratetype:
            return 2, block
        if order >= BLOCK_ORDER:
            if record.kind != FREE or record.order != order or record.prev != before:
                return 2, block
            after = int(record.next)
        else:
            frame = state.frames[node]
            if record.kind != SPLIT or frame.kind != FRAME_FREE or frame.order != order or frame.prev != before:
                return 2, block
            after = int(frame.next)
        before = node
        node = after
        chunks += 1
        if chunks > free_list.count:
            return 1, block
    if chunks != free_list.count or before != free_list.tail:
        return 1, before
    return 0, chunks


@jit
def special_pages(record: Records, migratetype: int) -> int:
    """How many pages of a type that is not everybody's a zone counts as free."""
    if migratetype == CMA:
        return int(record.free_cma)
    return int(record.free_highatomic if migratetype == HIGHATOMIC else record.free_isolated)


@jit
def audit_zone(state: State, zone: int) -> tuple[int, int]:
    """Walk all lists of a zone, and hold them against the blocks."""
    listed = 0
    record = state.zones[zone]
    for migratetype in range(NR_MIGRATETYPES):
        pages = 0
        for order in range(NR_ORDERS):
            code, found = audit_list(state, zone, migratetype, order)
            if code:
                return code, found
            pages += found << order
        listed += pages
        if migratetype >= NR_PCPTYPES and pages != special_pages(record, migratetype):
            return 18, zone
    if listed != record.free + record.free_isolated:
        return 3, zone
    held = record.boost + record.free_highatomic
    if record.held != held or record.held_fixed != held + record.free_cma:
        return 18, zone
    counted = 0
    for block in range(int(record.start), int(record.end)):
        if state.blocks[block].kind == FREE:
            counted += BLOCK_PAGES
        elif state.blocks[block].kind == SPLIT:
            counted += int(state.blocks[block].nr_free)
    return (6, zone) if counted != listed else (0, 0)


@jit
def audit_free_chunk(state: State, block: int, offset: int) -> int:
    """Check one free chunk of a split block: aligned, its other frames tails, its buddy not free alike."""
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    order = int(state.frames[base + offset].order)
    if order >= BLOCK_ORDER or offset & ((1 << order) - 1):
        return 8
    for tail in range(offset + 1, offset + (1 << order)):
        if state.frames[base + tail].kind != FRAME_TAIL:
            return 8
    buddy = state.frames[base + (offset ^ (1 << order))]
    if buddy.kind == FRAME_FREE and buddy.order == order:
        return 5
    return 0


@jit
def audit_folio(state: State, block: int, offset: int) -> int:
    """Check one used folio of a split block: its frames agree, and a file's frames are where the file says."""
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    head = state.frames[base + offset]
    order = int(head.order)
    if offset & ((1 << order) - 1) or head.busy < 0:
        return 8 if head.busy >= 0 else 10
    for step in range(1 << order):
        frame = state.frames[base + offset + step]
        if frame.order != order or (step and frame.busy):
            return 10 if frame.order == order else 8
        if frame.kind == FRAME_USED:
            if frame.owner != head.owner or index_in_file(state, (block << BLOCK_ORDER) + offset + step) != head.index + step:
                return 8
            owner = state.files[frame.owner]
            if owner.alive == 0:
                return 9
            index = int(head.index) + step
            row = int(owner.first_block) + (index >> BLOCK_ORDER)
            if frame_of(state, row, index) != (block << BLOCK_ORDER) + offset + step:
                return 9
    if head.kind == layout.FRAME_ORPHAN and head.busy == 0:
        return 14
    return 0


@jit
def is_movable_frame(state: State, slot: int) -> bool:
    """Whether a frame is a file's, and the file's memory movable."""
    frame = state.frames[slot]
    if frame.kind != FRAME_USED and frame.kind != layout.FRAME_DEFERRED:
        return False
    return bool(state.policies[state.files[frame.owner].policy].movable)


@jit
def audit_split_block(state: State, block: int) -> int:
    """Check a split block frame by frame."""
    record = state.blocks[block]
    base = int(record.detail) * BLOCK_PAGES
    free = 0
    movable = 0
    offset = 0
    while offset < BLOCK_PAGES:
        frame = state.frames[base + offset]
        pages = 1 << int(frame.order)
        if frame.kind == FRAME_FREE:
            code = audit_free_chunk(state, block, offset)
            free += pages
        elif frame.kind == FRAME_TAIL or frame.kind == FRAME_ISOLATED:  # nothing is isolated while nobody compacts
            code = 8
        elif frame.kind == FRAME_PCP:
            code = 0 if is_kept_chunk(state, (block << BLOCK_ORDER) + offset, int(frame.order)) else 16
        else:
            code = audit_folio(state, block, offset)
            for slot in range(base + offset, base + offset + pages):
                movable += 1 if is_movable_frame(state, slot) else 0
        if code:
            return code
        offset += pages
    if free != record.nr_free:
        return 4
    return 7 if movable != record.nr_movable else 0


@jit
def audit_whole_block(state: State, block: int) -> int:
    """Check a block that one file owns: the file has it, in order, unless parts of an anonymous folio were unmapped."""
    record = state.blocks[block]
    if record.kind != UNIFORM and record.busy < 0:
        return 10
    owner = state.files[record.owner]
    if owner.alive == 0 or record.deferred >= BLOCK_PAGES:
        return 11
    if record.deferred:
        return 0
    row = int(owner.first_block) + int(record.index)
    for offset in range(0, BLOCK_PAGES, BLOCK_PAGES - 1):
        if frame_of(state, row, offset) != (block << BLOCK_ORDER) + offset:
            return 11
    return 0


@jit
def may_merge(record: Records, other: Records) -> bool:
    """Whether two free blocks should have merged. Isolated ones, moved to their list one by one, need not."""
    if record.migratetype == other.migratetype:
        return bool(record.migratetype != ISOLATE)
    return bool(record.migratetype < NR_PCPTYPES and other.migratetype < NR_PCPTYPES)


@jit
def audit_blocks(state: State) -> tuple[int, int]:
    """Check every block by its kind."""
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        record = state.blocks[block]
        code = 0
        if record.kind == SPLIT:
            code = audit_split_block(state, block)
        elif record.kind == WHOLE or record.kind == UNIFORM or record.kind == GIGA:
            code = audit_whole_block(state, block)
        elif record.kind == ORPHAN:
            code = 14 if folio_busy(state, block << BLOCK_ORDER) <= 0 else 0
        elif record.kind == FREE and record.order == BLOCK_ORDER and block & 1 == 0:
            other = state.blocks[min(block + 1, int(state.host[0].nr_blocks))]
            if block < state.host[0].nr_blocks and other.kind == FREE and other.order == BLOCK_ORDER:
                code = 5 if other.zone == record.zone and may_merge(record, other) else 0
        elif record.kind == FREE and record.order == MAX_PAGE_ORDER:
            code = 2 if state.blocks[block + 1].kind != FREE else 0
        if code:
            return code, block
    return 0, 0


@jit
def audit_holds(state: State) -> tuple[int, int]:
    """Hold the pin counts of all folios against the records of who holds them."""
    held = 0
    for file in range(1, int(state.host[0].next_file)):
        row = int(state.files[file].pins) if state.files[file].alive else 0
        while row:
            record = state.pins[row]
            for pfn in range(int(record.frame), int(record.frame + record.frames)):
                if folio_busy(state, pfn) <= 0:
                    return 13, pfn
            held += int(record.frames)
            row = int(record.next)
    counted = 0
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        record = state.blocks[block]
        if record.kind == SPLIT:
            base = int(record.detail) * BLOCK_PAGES
            for slot in range(base, base + BLOCK_PAGES):
                counted += int(state.frames[slot].busy)
        elif record.kind == WHOLE or record.kind == ORPHAN or record.kind == GIGA:
            pfn = block << BLOCK_ORDER
            if folio_head(pfn, folio_order(state, pfn)) == pfn:
                counted += int(record.busy)
    return (13, 0) if counted != held else (0, 0)


@entry
def audit(state: State) -> tuple[int, int]:
    """Check every invariant. Returns (0, 0), or the first broken rule and the block, frame or file where it is."""
    for zone in range(int(state.host[0].nr_zones)):
        code, place = audit_zone(state, zone)
        if code:
            return code, place
    code, place = audit_blocks(state)
    if code == 0:
        code, place = audit_cpus(state)
    if code == 0:
        code, place = audit_nodes(state)
    if code == 0:
        code, place = audit_pool(state, BLOCK_ORDER)
    if code == 0:
        code, place = audit_pool(state, layout.GIGA_ORDER)
    if code == 0:
        code, place = audit_promises(state, BLOCK_ORDER)
    if code == 0:
        code, place = audit_promises(state, layout.GIGA_ORDER)
    if code == 0:
        code, place = audit_subpools(state)
    if code == 0:
        code, place = audit_types(state)
    if code == 0:
        code, place = audit_structs(state)
    if code == 0:
        code, place = audit_holds(state)
    if code == 0:
        code, place = audit_files(state)
    if code == 0:
        code, place = audit_daemons(state)
    if code == 0:
        code, place = audit_cache(state)
    if code == 0:
        code, place = audit_queues(state)
    return code, place
