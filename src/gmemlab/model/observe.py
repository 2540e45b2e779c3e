"""Reading the state page by page: for layouts, tests and explanations, not for speed."""

from typing import NamedTuple

import numpy as np

from gmemlab.core import measure
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, NR_MIGRATETYPES, NR_ORDERS
from gmemlab.core.state import State


class PageView(NamedTuple):
    """One page of a file. `order` is its folio's, -1 for a hole; `pfn` is then 0."""

    page: int
    pfn: int
    order: int
    shared: int
    content: int
    mapped: int


def file_pages(state: State, file: int, first: int = 0, count: int | None = None) -> list[PageView]:
    """The pages [first, first + count) of a file, by default all of them."""
    table = np.zeros((int(state.files[file].pages) - first if count is None else count, 5), dtype=np.int64)
    measure.list_pages(state, file, first, table)
    return [PageView(index, *row) for index, row in enumerate(table.tolist(), first)]


def free_list(state: State, zone: int, migratetype: int, order: int) -> list[int]:
    """First frames of the chunks on one free list, head first."""
    node = int(state.free_lists[(zone * NR_MIGRATETYPES + migratetype) * NR_ORDERS + order].head)
    found: list[int] = []
    while node:
        if order < BLOCK_ORDER:
            found.append(int(state.frame_slabs[node >> BLOCK_ORDER].block) * BLOCK_PAGES + node % BLOCK_PAGES)
            node = int(state.frames[node].next)
        else:
            found.append(node * BLOCK_PAGES)
            node = int(state.blocks[node].next)
    return found
