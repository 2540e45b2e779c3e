"""The host's own memory: what cannot wait, and page cache, with what reclaim did under the names of /proc/vmstat."""

from typing import Final

import numpy as np

from gmemlab.core import execute, layout
from gmemlab.core.layout import BLOCK_PAGES, PAGE_SIZE
from gmemlab.core.state import State
from gmemlab.errors import UsageError
from gmemlab.model.guest import GuestMemory
from gmemlab.model.room import BLOCK_SIZE
from gmemlab.policy import Policy
from gmemlab.presets import atomic
from gmemlab.units import parse_size

VMSTAT: Final = {
    "pgscan_kswapd": layout.TALLY_PGSCAN_KSWAPD,
    "pgsteal_kswapd": layout.TALLY_PGSTEAL_KSWAPD,
    "pgscan_direct": layout.TALLY_PGSCAN_DIRECT,
    "pgsteal_direct": layout.TALLY_PGSTEAL_DIRECT,
    "pageoutrun": layout.TALLY_PAGEOUTRUN,
    "allocstall": layout.TALLY_ALLOCSTALL,
    "slabs_scanned": layout.TALLY_SLABS_SCANNED,
    "compact_stall": layout.TALLY_COMPACTSTALL,
    "compact_fail": layout.TALLY_COMPACTFAIL,
    "compact_success": layout.TALLY_COMPACTSUCCESS,
}


def atomic_policy(piece: int | str, movable: bool) -> Policy:
    """How memory that is taken in pieces of this size, where nothing may wait, behaves. UsageError where there is none."""
    size = parse_size(piece)
    if movable or size & (size - 1) or not PAGE_SIZE <= size < BLOCK_SIZE:
        allowed = "4K, 8K, ... 1M, and movable=False"
        raise UsageError("not how the kernel takes memory that cannot wait", key="atomic", value=str(piece), allowed=allowed)
    return atomic(size)


def spread(state: State, memory: GuestMemory) -> GuestMemory:
    """The same memory, of tasks that run on all nodes: each 2M of it is local to the next node."""
    execute.bind_nodes(state, memory.file, layout.NODES_SPREAD, 0, 0)
    return memory


def cached_pages(state: State) -> int:
    """Pages of the host's page cache."""
    pages = 0
    file = int(state.daemons[0].lru_head)
    while file:
        record = state.files[file]
        blocks = -(-int(record.pages) // BLOCK_PAGES)
        pages += int(state.file_blocks.nr_present[int(record.first_block) :][:blocks].sum(dtype=np.int64))
        file = int(record.scan_next)
    return pages


def counters(state: State) -> dict[str, int]:
    """Each counter, and `nr_cache`: the pages that could be dropped now."""
    return {**{name: int(state.tally[index]) for name, index in VMSTAT.items()}, "nr_cache": cached_pages(state)}
