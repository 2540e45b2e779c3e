"""What can be seen of a host in the core, as the oracle tells it (`oracle_observe`)."""

import numpy as np
from numpy.typing import NDArray

from core_page_states import count_kept_entries, observe_entries, observe_hazards, observe_operations
from gmemlab.core import layout, measure
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_ACCEPT,
    CAUSE_CONVERT,
    CAUSE_PUNCH,
    FRAME_DEFERRED,
    FRAME_ORPHAN,
    GIGA_ORDER,
    HISTORY,
    HUGE_MAPPED,
    INHIBIT,
    NR_CAUSES,
    NR_MIGRATETYPES,
    NR_ORDERS,
    ORPHAN,
    PROMISED,
    SPLIT,
    WHOLE,
)
from gmemlab.core.split_queue import ENDS, SHIFT
from gmemlab.core.state import State
from gmemlab.model.observe import free_list, kept_list
from oracle_files import SCAN_RESULTS, Observation

SCANNERS = (
    "compact_migrate",
    "compact_migrate_sync",
    "compact_free",
    "compact_init_free",
    "compact_considered",
    "compact_defer_shift",
    "compact_order_failed",
    "blockskip_flush",
)


class CoreView:
    """A host in the core, to look at."""

    state: State
    zones: list[tuple[int, int, int, int]]
    nr_blocks: int
    files: dict[int, int]
    distances: list[list[int]]

    def observe(self) -> Observation:
        pages = {name: self.pages_of(file) for name, file in self.files.items()}
        deferred = self.observe_deferred(pages)
        assert self.state.tally[layout.TALLY_DEFERRED] == len(deferred)
        return {
            "free": self.observe_free(),
            "kept": self.observe_kept(),
            "blocktypes": self.state.blocks.migratetype[: self.nr_blocks + 1].tolist(),
            "files": {name: self.observe_file(table) for name, table in pages.items()},
            "blocks": {name: self.observe_marks(file) for name, file in self.files.items()},
            "pools": {order: self.observe_pool(order) for order in (BLOCK_ORDER, GIGA_ORDER)},
            "promised": {name: self.observe_promised(file) for name, file in self.files.items()},
            "orphans": self.observe_orphans(),
            "deferred": deferred,
            "queues": [self.observe_queue(node) for node in range(len(self.distances))],
            "scanners": [tuple(int(record[name]) for name in SCANNERS) for record in self.state.zones],
            "skipped": np.flatnonzero(self.state.skip[: self.nr_blocks + 1]).tolist(),
            "counters": self.observe_counters(),
            "boosts": [int(boost) for boost in self.state.zones.boost],
            "nodes": [(int(node.hit), int(node.miss), int(node.foreign)) for node in self.state.nodes[: len(self.distances)]],
            "mounts": [(int(row.used_hpages), int(row.rsv_hpages)) for row in self.state.subpools if row.alive],
            "page_states": {name: self.observe_states(table) for name, table in pages.items()},
            "entries": {name: observe_entries(self.state, file) for name, file in self.files.items()},
            "kept_entries": count_kept_entries(self.state),
            "operations": observe_operations(self.state),
            "host_mapped": {name: np.flatnonzero(table[:, 7]).tolist() for name, table in pages.items()},
            "hazards": observe_hazards(self.state),
            "direct": np.flatnonzero(self.state.blocks.direct[: self.nr_blocks + 1] & layout.DIRECT_2M).tolist(),
        }

    def observe_free(self) -> dict[tuple[int, int, int], list[int]]:
        lists = {
            (zone, kind, order): free_list(self.state, zone, kind, order)
            for zone in range(len(self.zones))
            for kind in range(NR_MIGRATETYPES)
            for order in range(NR_ORDERS)
        }
        return {key: pfns for key, pfns in lists.items() if pfns}

    def observe_kept(self) -> dict[tuple[int, int, int], list[int]]:
        lists = {
            (zone, cpu, index): kept_list(self.state, zone, cpu, index)
            for zone in range(len(self.zones))
            for cpu in range(int(self.state.host[0].nr_cpus))
            for index in range(layout.NR_PCP_LISTS)
        }
        return {key: pfns for key, pfns in lists.items() if pfns}

    def observe_file(self, table: NDArray[np.int64]) -> dict[int, tuple[int, int, int, int, int]]:
        seen = table[:, 0] | table[:, 2] | table[:, 4]
        indexes = np.flatnonzero(seen)
        return dict(zip(indexes.tolist(), map(tuple, table[indexes, :5].tolist()), strict=True))

    def pages_of(self, file: int) -> NDArray[np.int64]:
        table = measure.new_listing(int(self.state.files[file].pages))
        measure.list_pages(self.state, file, 0, table)
        return table

    def marks_of(self, file: int) -> list[int]:
        record = self.state.files[file]
        marks = self.state.file_blocks.marks[int(record.first_block) :][: -(-int(record.pages) // BLOCK_PAGES)]
        return [int(mark) for mark in marks]

    def observe_marks(self, file: int) -> dict[int, tuple[int, int, int]]:
        found = {}
        for block, marks in enumerate(self.marks_of(file)):
            if marks & (HUGE_MAPPED | HISTORY | INHIBIT):
                found[block] = (int(marks & HUGE_MAPPED > 0), int(marks & HISTORY > 0), int(marks & INHIBIT > 0))
        return found

    def observe_states(self, table: NDArray[np.int64]) -> dict[int, tuple[int, int]]:
        indexes = np.flatnonzero(table[:, 5] | table[:, 6])
        return dict(zip(indexes.tolist(), map(tuple, table[indexes, 5:7].tolist()), strict=True))

    def observe_pool(self, order: int) -> tuple[int, int, int, list[int], list[tuple[int, int]]]:
        number = 1 if order == GIGA_ORDER else 0
        pool = self.state.pools[number]
        parts = self.state.node_pools[number * layout.MAX_NODES :][: len(self.distances)]
        idle = []
        for part in parts:
            block = int(part.head)
            while block:
                idle.append(block * BLOCK_PAGES)
                block = int(self.state.blocks[block].next)
        of_nodes = [(int(part.nr), int(part.surplus)) for part in parts]
        return int(pool.nr), int(pool.free), int(pool.reserved), idle, of_nodes

    def observe_promised(self, file: int) -> list[int]:
        record = self.state.files[file]
        blocks = max(1, (1 << int(self.state.policies[record.policy].unit)) // BLOCK_PAGES)  # of one huge page
        return [block // blocks for block, marks in enumerate(self.marks_of(file)) if marks & PROMISED]

    def blocks_of_kind(self, kind: int) -> list[int]:
        return np.flatnonzero(self.state.blocks.kind[: self.nr_blocks + 1] == kind).tolist()

    def frames_of_kind(self, kind: int) -> list[int]:
        found = []
        kinds = self.state.frames.kind
        for block in self.blocks_of_kind(SPLIT):
            base = int(self.state.blocks[block].detail) * BLOCK_PAGES
            found += (block * BLOCK_PAGES + np.flatnonzero(kinds[base : base + BLOCK_PAGES] == kind)).tolist()
        return found

    def observe_orphans(self) -> list[int]:
        large = [block * BLOCK_PAGES + offset for block in self.blocks_of_kind(ORPHAN) for offset in range(BLOCK_PAGES)]
        return sorted(large + self.frames_of_kind(FRAME_ORPHAN))

    def observe_queue(self, node: int) -> tuple[int, list[int]]:
        record = self.state.nodes[node]
        found = []
        entry = int(record.split_head) or ENDS
        while entry != ENDS:
            pfn = entry << SHIFT
            found.append(pfn)
            block = self.state.blocks[pfn >> BLOCK_ORDER]
            links = block if block.kind == WHOLE else self.state.frames[int(block.detail) * BLOCK_PAGES + pfn % BLOCK_PAGES + 1]
            entry = int(links.next)
        return int(record.nr_deferred), found

    def observe_deferred(self, pages: dict[int, NDArray[np.int64]]) -> list[int]:
        partly = [b for b in self.blocks_of_kind(WHOLE) if self.state.blocks[b].deferred]
        if not partly:
            return self.frames_of_kind(FRAME_DEFERRED)
        used = {pfn for table in pages.values() for pfn in table[:, 0].tolist()}
        large = [b * BLOCK_PAGES + o for b in partly for o in range(BLOCK_PAGES) if b * BLOCK_PAGES + o not in used]
        return sorted(large + self.frames_of_kind(FRAME_DEFERRED))

    def observe_counters(self) -> dict[str, int]:
        tally = [int(count) for count in self.state.tally]
        split = [
            sum(tally[first + cause] for first in (layout.TALLY_SPLIT_2M, layout.TALLY_SPLIT_1G))
            for cause in (CAUSE_PUNCH, CAUSE_CONVERT)
        ]
        return {
            "split_punch": split[0],
            "split_convert": split[1],
            "split_failed": tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH],
            "stale_pages": tally[layout.TALLY_STALE_PAGES],
            "lost_pages": tally[layout.TALLY_LOST_PAGES],
            "shattered_punch": tally[layout.TALLY_SHATTERED + CAUSE_PUNCH],
            "shattered_convert": tally[layout.TALLY_SHATTERED + CAUSE_CONVERT],
            "shattered_accept": tally[layout.TALLY_SHATTERED + CAUSE_ACCEPT],
            "shattered_move": tally[layout.TALLY_SHATTERED + layout.CAUSE_POPULATE],
            "healed_mapping": sum(tally[layout.TALLY_HEALED_MAPPING + cause] for cause in range(NR_CAUSES)),
            "healed_backing": sum(tally[layout.TALLY_HEALED_BACKING + cause] for cause in range(NR_CAUSES)),
            "eagain": tally[layout.TALLY_EAGAIN],
            "orphaned_pages": tally[layout.TALLY_ORPHANED_PAGES],
            "vmm_punch_failed": tally[layout.TALLY_VMM_PUNCH_FAILED],
            "underused": tally[layout.TALLY_UNDERUSED],
            "moved": tally[layout.TALLY_COMPACT_MOVED],
            "compactions": tally[layout.TALLY_COMPACT_RUNS],
            "kcompactd": tally[layout.TALLY_KCOMPACTD_RUNS],
            "copied": tally[layout.TALLY_COLLAPSE_COPIED],
            "firmware_copies": tally[layout.TALLY_FIRMWARE_COPIES],
            "pgscan_kswapd": tally[layout.TALLY_PGSCAN_KSWAPD],
            "pgsteal_kswapd": tally[layout.TALLY_PGSTEAL_KSWAPD],
            "pgscan_direct": tally[layout.TALLY_PGSCAN_DIRECT],
            "pgsteal_direct": tally[layout.TALLY_PGSTEAL_DIRECT],
            "missed_pages": tally[layout.TALLY_NUMA_MISS_PAGES],
            "slabs_scanned": tally[layout.TALLY_SLABS_SCANNED],
            "deferred_split": tally[layout.TALLY_DEFERRED_SPLIT],
            "deferred_freed": tally[layout.TALLY_DEFERRED_FREED],
            "compact_failed": tally[layout.TALLY_COMPACT_FAILED],
            "compact_stall": tally[layout.TALLY_COMPACTSTALL],
            "compact_fail": tally[layout.TALLY_COMPACTFAIL],
            "compact_success": tally[layout.TALLY_COMPACTSUCCESS],
            **{f"scan_{result}": tally[layout.TALLY_SCAN + number] for number, result in enumerate(SCAN_RESULTS)},
        }
