"""Measuring the state: what a sample reports. Reads only; the cost is per 2 MiB, and per page where that was split."""

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.buddy import free_blocks_of
from gmemlab.core.contig import run_is_free
from gmemlab.core.frames import folio_order
from gmemlab.core.guestmap import limiting_term, limiting_term_of_shared
from gmemlab.core.jit import entry, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FREE,
    GIGA_BLOCKS,
    HUGE_MAPPED,
    KIND_GUEST_MEMFD,
    NR_PCPTYPES,
    PCP,
    SPLIT,
    UNIFORM,
    WHOLE,
    ZONE_MOVABLE,
)
from gmemlab.core.mapping import block_row, frame_of, is_shared
from gmemlab.core.nodes import node_of
from gmemlab.core.page_details import ACCEPTED, ASSIGNED, HOST_MAPPED, MAPPED, content_at, has_mark
from gmemlab.core.pcp import kept_in_block, pcp_row
from gmemlab.core.sample import MEASURE, MEASURE_GUESTS, MEASURE_HOST
from gmemlab.core.state import Records, State

NR_LISTED: Final = 8
Listing: TypeAlias = NDArray[np.int64]  # pages x NR_LISTED


@jit
def count_twice(state: State, row: int, shared_row: int) -> int:
    """Pages of one 2 MiB of guest memory that have a frame in both of its files."""
    block = state.file_blocks[row]
    other = state.file_blocks[shared_row]
    if block.nr_present == 0 or other.nr_present == 0:
        return 0
    if block.nr_present == BLOCK_PAGES or other.nr_present == BLOCK_PAGES:
        return int(min(block.nr_present, other.nr_present))
    twice = 0
    for offset in range(BLOCK_PAGES):
        if frame_of(state, row, offset) and frame_of(state, shared_row, offset):
            twice += 1
    return twice


@jit
def count_remote(state: State, row: int, home: int) -> int:
    """Frames behind 2 MiB of guest memory that are on other nodes than `home`."""
    block = state.file_blocks[row]
    if block.nr_present == 0:
        return 0
    if block.block:
        return 0 if node_of(state, int(block.block)) == home else int(block.nr_present)
    remote = 0
    for offset in range(BLOCK_PAGES):
        pfn = frame_of(state, row, offset)
        if pfn and node_of(state, pfn >> BLOCK_ORDER) != home:
            remote += 1
    return remote


@jit
def measure_guest(state: State, file: int, out: Records) -> None:
    """Add one confidential guest to a sample."""
    record = state.files[file]
    row = int(record.first_block)
    shared_row = int(state.files[record.shared_file].first_block) if record.shared_file else 0
    several = state.host[0].nr_nodes > 1
    huge, small, tables, shared, charged, stranded = 0, 0, 0, 0, 0, 0  # in registers: `out` may be anywhere for the compiler
    for step in range((int(record.pages) + BLOCK_PAGES - 1) >> BLOCK_ORDER):
        block = state.file_blocks[row + step]
        is_huge = int(block.marks) & HUGE_MAPPED  # bit 0: 0 or 1, so that nothing has to be foreseen
        mapped = int(block.nr_mapped) * (1 - is_huge)
        huge += is_huge
        small += mapped
        tables += 1 if mapped else 0
        shared += int(block.nr_shared)
        charged += int(block.nr_present)
        stranded += int(block.nr_stranded)
        if several:
            out.remote += count_remote(state, row + step, int(record.home))
        if shared_row:
            out.charged_shared_side += state.file_blocks[shared_row + step].nr_present
            out.backed_twice += count_twice(state, row + step, shared_row + step)
    out.guests += 1
    out.guest_pages += record.pages
    out.private_mapped_2m += huge * BLOCK_PAGES
    out.private_mapped_4k += small
    out.table_blocks += tables
    out.shared_pages += shared
    out.private_pages += int(record.pages) - shared
    out.charged += charged
    out.stranded += stranded


@jit
def is_clean(state: State, block: int) -> bool:
    """Whether a block holds only free and movable frames."""
    record = state.blocks[block]
    if record.kind == FREE or record.kind == PCP:
        return True
    if record.kind == SPLIT:
        clean = int(record.nr_free) + int(record.nr_movable)
        if clean < BLOCK_PAGES and state.host[0].nr_cpus:
            clean += kept_in_block(state, block)
        return clean == BLOCK_PAGES
    if record.kind == WHOLE or record.kind == UNIFORM:
        return bool(state.policies[state.files[record.owner].policy].movable)
    return False


@entry
def measure_host(state: State, free: Records) -> None:
    """Fill one MEASURE_HOST record (zeroed by the caller). Looks at all blocks of the host."""
    out = free[0]
    for zone in range(int(state.host[0].nr_zones)):
        record = state.zones[zone]
        out.free += record.free
        for cpu in range(int(state.host[0].nr_cpus)):
            out.free += state.pcps[pcp_row(state, zone, cpu)].count
        cma = free_blocks_of(state, zone, CMA)
        blocks = cma
        for migratetype in range(NR_PCPTYPES):
            blocks += free_blocks_of(state, zone, migratetype)
        out.free_2m += blocks
        out.free_2m_movable_zone += blocks if record.kind == ZONE_MOVABLE else cma
        first = (int(record.start) + GIGA_BLOCKS - 1) & ~(GIGA_BLOCKS - 1)
        while first + GIGA_BLOCKS <= record.end and record.kind != ZONE_MOVABLE:
            out.free_1g += 1 if run_is_free(state, first) else 0
            first += GIGA_BLOCKS
        clean = 0
        for block in range(int(record.start), int(record.end)):
            clean += 1 if is_clean(state, block) else 0
        out.clean_2m += clean


@entry
def measure_guests(state: State, out: Records) -> None:
    """Fill one MEASURE_GUESTS record (zeroed by the caller)."""
    for file in range(1, int(state.host[0].next_file)):
        if state.files[file].alive and state.files[file].kind == KIND_GUEST_MEMFD:
            measure_guest(state, file, out[0])
    for k in range(2):
        order = BLOCK_ORDER if k == 0 else layout.GIGA_ORDER
        out[0].pool_idle += state.pools[k].free << order
    out[0].deferred = state.tally[layout.TALLY_DEFERRED]
    out[0].structs_taken = state.tally[layout.TALLY_VMEMMAP_TAKEN] - state.tally[layout.TALLY_VMEMMAP_RETURNED]


def measure(state: State) -> Any:
    """Return one MEASURE record of the state."""
    out = np.zeros(1, MEASURE)
    words = out.view(np.int64)
    guests = MEASURE_GUESTS.itemsize // words.itemsize
    measure_guests(state, words[:guests].view(MEASURE_GUESTS).view(np.recarray))
    measure_host(state, words[guests:].view(MEASURE_HOST).view(np.recarray))
    return out.view(np.recarray)[0]


@entry
def measure_one(state: State, file: int, out: Records) -> None:
    """Fill one MEASURE_GUESTS record (zeroed by the caller) with one confidential guest alone."""
    measure_guest(state, file, out[0])


@entry
def limit(state: State, file: int, index: int) -> int:
    """`limiting_term` of one page for an ordinary access, for callers in Python."""
    return limiting_term(state, file, index, layout.TOUCH)


@entry
def limit_of_shared(state: State, file: int, index: int) -> int:
    """`limiting_term_of_shared`, for callers in Python."""
    return limiting_term_of_shared(state, file, index)


def new_listing(count: int) -> Listing:
    """Rows for `list_pages`, which writes all of its columns whatever room there is."""
    return np.zeros((count, NR_LISTED), dtype=np.int64)


@entry
def list_pages(state: State, file: int, first: int, out: Listing) -> None:
    """Fill rows for the pages of a file from `first` on.

    Columns: frame or 0, order of its folio or -1, shared, content, mapped, assigned by the RMP, accepted, mapped by the VMM.
    """
    for place in range(len(out)):
        index = first + place
        row = block_row(state, file, index)
        block = state.file_blocks[row]
        pfn = frame_of(state, row, index)
        out[place, 0] = pfn
        out[place, 1] = folio_order(state, pfn) if pfn else -1
        out[place, 2] = 1 if is_shared(state, row, index) else 0
        out[place, 3] = 0
        out[place, 4] = 1 if block.nr_mapped else 0
        out[place, 5] = 1 if state.hardware[row].nr_assigned else 0
        out[place, 6] = 1 if state.hardware[row].nr_accepted else 0
        out[place, 7] = 1 if block.nr_host_mapped else 0
        if block.detail:
            slot = int(block.detail) * BLOCK_PAGES + (index & (BLOCK_PAGES - 1))
            out[place, 3] = content_at(state, slot)
            out[place, 4] = has_mark(state, slot, MAPPED)
            out[place, 5] = has_mark(state, slot, ASSIGNED)
            out[place, 6] = has_mark(state, slot, ACCEPTED)
            out[place, 7] = has_mark(state, slot, HOST_MAPPED)
        elif pfn:
            out[place, 3] = block.content
