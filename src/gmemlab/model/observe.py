"""Reading the state page by page: for layouts, tests and explanations, not for speed."""

from typing import NamedTuple

from gmemlab.core import measure
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    MAX_CPUS,
    NR_LOWORDER_PCP_LISTS,
    NR_MIGRATETYPES,
    NR_ORDERS,
    NR_PCP_LISTS,
)
from gmemlab.core.state import State, nr_free_lists


class PageView(NamedTuple):
    """One page of a file. `order` is its folio's, -1 for a hole; `pfn` is then 0.

    `assigned`: by the RMP to its guest (SNP). `accepted`: validated (SNP), or accepted and mapped (TDX).
    `host_mapped`: by the VMM.
    """

    page: int
    pfn: int
    order: int
    shared: int
    content: int
    mapped: int
    assigned: int
    accepted: int
    host_mapped: int


def file_pages(state: State, file: int, first: int = 0, count: int | None = None) -> list[PageView]:
    """The pages [first, first + count) of a file, by default all of them."""
    table = measure.new_listing(int(state.files[file].pages) - first if count is None else count)
    measure.list_pages(state, file, first, table)
    return [PageView(index, *row) for index, row in enumerate(table.tolist(), first)]


def free_list(state: State, zone: int, migratetype: int, order: int) -> list[int]:
    """First frames of the chunks on one free list, head first."""
    return _chunks(state, (zone * NR_MIGRATETYPES + migratetype) * NR_ORDERS + order, order < BLOCK_ORDER)


def kept_list(state: State, zone: int, cpu: int, index: int) -> list[int]:
    """First frames of the chunks on one list of a CPU, head first."""
    row = nr_free_lists(int(state.host[0].nr_zones)) + (zone * MAX_CPUS + cpu) * NR_PCP_LISTS + index
    return _chunks(state, row, index < NR_LOWORDER_PCP_LISTS)


def _chunks(state: State, row: int, in_frames: bool) -> list[int]:
    """First frames of a list's chunks, which are linked through frame details or through block records."""
    node = int(state.free_lists[row].head)
    found: list[int] = []
    while node:
        if in_frames:
            found.append(int(state.frame_slabs[node >> BLOCK_ORDER].block) * BLOCK_PAGES + node % BLOCK_PAGES)
            node = int(state.frames[node].next)
        else:
            found.append(node * BLOCK_PAGES)
            node = int(state.blocks[node].next)
    return found
