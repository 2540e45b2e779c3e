"""What can be read of a host."""

from typing import Any

import numpy as np

from gmemlab.core import measure
from gmemlab.core.audit import audit, describe
from gmemlab.core.layout import BLOCK_PAGES, CMA, PAGE_SIZE, ZONE_NORMAL
from gmemlab.core.sample import MEASURE_GUESTS
from gmemlab.core.state import State, written_bytes
from gmemlab.model import machine
from gmemlab.model.background import cached_pages, counters
from gmemlab.model.guests import Places, hazards_in, operations_in, places_in
from gmemlab.model.nodes import NodeUsage, usage_of_nodes
from gmemlab.model.room import BLOCK_SIZE


class Readings:
    """The readings of a host, all taken from its state.

    Attributes:
        state: the core's state.
    """

    state: State

    def measure(self) -> Any:
        """A sample: one MEASURE record."""
        return measure.measure(self.state)

    def measure_guests(self) -> Any:
        """A sample of the guests alone: one MEASURE_GUESTS record. What the host has left takes a look at all of its blocks."""
        out = np.zeros(1, MEASURE_GUESTS).view(np.recarray)
        measure.measure_guests(self.state, out)
        return out[0]

    def places(self) -> Places:
        """Where page states of SNP and TDX guests lie; walks every page of memory that is not contiguous."""
        return places_in(self.state)

    def operations(self) -> dict[str, dict[str, int]]:
        """What the hardware of all guests did so far: by operation (`model.guests.OPERATIONS`), then by phase."""
        return operations_in(self.state)

    def hazards(self) -> dict[str, dict[str, int]]:
        """What must not happen, and did: 4K pages by kind (`model.guests.HAZARDS`), then by the operation that led to it."""
        return hazards_in(self.state)

    def audit(self) -> None:
        """Check every invariant of the state. AssertionError with what is broken and where."""
        code, place = audit(self.state)
        if code:
            raise AssertionError(f"{describe(code)} (at {place})")

    @property
    def nr_nodes(self) -> int:
        """How many NUMA nodes the host has."""
        return int(self.state.host[0].nr_nodes)

    def nodes(self) -> list[NodeUsage]:
        """What each NUMA node has, and how many allocations got the node that they wanted (counted on several nodes only)."""
        return usage_of_nodes(self.state)

    @property
    def total_bytes(self) -> int:
        """Memory of the zones."""
        return sum(int(zone.end - zone.start) for zone in self.state.zones) * BLOCK_SIZE

    @property
    def has_watermarks(self) -> bool:
        """Whether a reserve stays free, and kswapd works."""
        return bool(self.state.host[0].watermarks)

    @property
    def is_normal(self) -> bool:
        """Whether all of its zones are Normal, as those of hosts that are given by their size."""
        return all(zone.kind == ZONE_NORMAL for zone in self.state.zones)

    @property
    def cma_bytes(self) -> int:
        """Memory that only movable memory may use."""
        return int((self.state.blocks.migratetype[: int(self.state.host[0].nr_blocks) + 1] == CMA).sum()) * BLOCK_SIZE

    @property
    def model_bytes(self) -> int:
        """Memory that the model itself takes for this host, about."""
        return written_bytes(self.state)

    @property
    def free_bytes(self) -> int:
        """Bytes on the free lists; those on the CPUs' own lists are not among them, as in MemFree."""
        return int(self.state.zones.free.sum()) * PAGE_SIZE

    @property
    def kept_bytes(self) -> int:
        """Bytes on the CPUs' own lists."""
        return int(self.state.pcps["count"].sum()) * PAGE_SIZE

    @property
    def usable_bytes(self) -> int:
        """Free bytes beyond the zones' reserves: what allocations can have."""
        return int(np.maximum(self.state.zones.free - self.state.zones.reserve, 0).sum()) * PAGE_SIZE

    @property
    def reclaimable_bytes(self) -> int:
        """Bytes of page cache, which reclaim can drop."""
        return cached_pages(self.state) * PAGE_SIZE

    @property
    def free_2m(self) -> int:
        """2M pages to be had from the free lists now."""
        return machine.free_in_blocks(self.state) // BLOCK_PAGES

    def unusable_index(self) -> float:
        """Share of free memory that lies outside free 2M blocks, 0 to 1 (0 for a host without free memory)."""
        free = int(self.state.zones.free.sum())
        return 1 - machine.free_in_blocks(self.state) / free if free else 0.0

    def vmstat(self) -> dict[str, int]:
        """What reclaim did, under the names of /proc/vmstat, and `nr_cache`, the 4K pages that it could drop now."""
        return counters(self.state)
