"""What reclaim did on a host, under the names of /proc/vmstat, and what it could still drop."""

from typing import Final

import numpy as np

from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.state import State

VMSTAT: Final = {
    "pgscan_kswapd": layout.TALLY_PGSCAN_KSWAPD,
    "pgsteal_kswapd": layout.TALLY_PGSTEAL_KSWAPD,
    "pgscan_direct": layout.TALLY_PGSCAN_DIRECT,
    "pgsteal_direct": layout.TALLY_PGSTEAL_DIRECT,
    "pageoutrun": layout.TALLY_PAGEOUTRUN,
    "allocstall": layout.TALLY_ALLOCSTALL,
}


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
