"""The CPUs of a modelled host: how many pages each keeps on its lists (mm/page_alloc.c, 6.18)."""

from collections.abc import Sequence
from math import isqrt
from typing import Final

from gmemlab.core import execute, layout
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.state import State
from gmemlab.errors import UsageError

MOST_AT_ONCE: Final = 64  # pages: 256 KiB
LEAST_HIGH: Final = 4  # batches
HIGH_FRACTION: Final = 8  # MIN_PERCPU_PAGELIST_HIGH_FRACTION: of a zone, shared by its CPUs


def check_cpus(cpus: int) -> None:
    """See that it is a number of CPUs.

    Raises:
        UsageError: it is none of 0 to 512.
    """
    if not isinstance(cpus, int) or isinstance(cpus, bool) or not 0 <= cpus <= layout.MAX_CPUS:
        raise UsageError("not a number of CPUs", key="cpus", value=cpus, allowed=f"0 (no lists) to {layout.MAX_CPUS}")


class Cpus:
    """The CPUs of a host, where it has any that keep lists of their own.

    Attributes:
        state: the core's state.
    """

    state: State

    def run_on(self, cpu: int) -> None:
        """Let what follows be done by this CPU, as sched_setaffinity does.

        Raises:
            UsageError: the host has no such CPU.
        """
        cpus = int(self.state.host[0].nr_cpus)
        if not isinstance(cpu, int) or not 0 <= cpu < cpus:
            raise UsageError("not a CPU of this host", key="cpu", value=cpu, allowed=f"0 to {cpus - 1}" if cpus else "none")
        self.state.host[0].cpu = cpu

    def drain_cpus(self) -> None:
        """Have all CPUs give back the pages on their lists, as the kernel does before it takes a range (`drain_all_pages`)."""
        execute.execute(self.state, layout.OP_DRAIN, 0, 0, 0, 0)

    def limit_cpu_lists(self, fraction: int) -> None:
        """Let the CPUs keep so small a part of a zone together, as vm.percpu_pagelist_high_fraction does.

        What is on longer lists already goes batch by batch, each time that the CPU frees something.

        Args:
            fraction: what the zone's size is divided by; 0, as at first, for limits that Linux chooses and adapts.

        Raises:
            UsageError: the host's CPUs have no lists, or the fraction is neither 0 nor 8 or more.
        """
        cpus = int(self.state.host[0].nr_cpus)
        if not isinstance(fraction, int) or isinstance(fraction, bool) or (fraction != 0 and fraction < HIGH_FRACTION):
            raise UsageError("not a fraction", key="fraction", value=fraction, allowed=f"0, or {HIGH_FRACTION} and more")
        if not cpus:
            raise UsageError("no lists to be limited", key="cpus", value=cpus, allowed=f"1 to {layout.MAX_CPUS}")
        set_limits(self.state, fraction)


def batch_size(managed: int) -> int:
    """Pages that a CPU takes or gives back at once (`zone_batchsize`): 63, less in zones below 256 MiB."""
    batch = min(managed >> 12, MOST_AT_ONCE)
    return 1 if batch <= 1 else (1 << (batch + batch // 2).bit_length() - 1) - 1


def watermarks(managed: Sequence[int]) -> list[tuple[int, int, int]]:
    """Min, low and high of each Normal zone of a machine that has no others, in pages (6.18).

    `init_per_zone_wmark_min`, raised by `set_recommended_min_free_kbytes` with huge pages on: at least two free blocks of each
    type in each zone; then `__setup_per_zone_wmarks`.
    """
    total = sum(managed)
    least = min(max(isqrt(total * 4 * 16), 128), 262144) // 4
    recommended = min(BLOCK_PAGES * (2 + 9) * len(managed), total // 20)
    lowest = [max(least, recommended) * pages // total for pages in managed]
    steps = [max(pages // 4, size // 1000) for pages, size in zip(lowest, managed, strict=True)]
    return [(pages, pages + step, pages + 2 * step) for pages, step in zip(lowest, steps, strict=True)]


def _managed(state: State) -> list[int]:
    """Pages of each zone."""
    return [int(zone.end - zone.start) * BLOCK_PAGES for zone in state.zones]


def give_watermarks(state: State) -> None:
    """Give a machine of Normal zones that has none the watermarks that Linux would compute."""
    for record, (least, low, high) in zip(state.zones, watermarks(_managed(state)), strict=True):
        record.wmark_min = record.reserve = least
        record.low, record.high = low - least, high - least
    state.host[0].watermarks = 1


def give_cpus(state: State, cpus: int) -> None:
    """Have so many CPUs keep lists of their own from here on, on a host in which nothing is on such lists yet; 0: none."""
    state.host[0].nr_cpus = cpus
    set_limits(state, 0)


def set_limits(state: State, fraction: int) -> None:
    """Say how many pages each CPU keeps of each zone (`zone_set_pageset_high_and_batch`).

    Args:
        state: of a host with its watermarks; where a zone has none, those are taken that Linux would compute.
        fraction: of a zone that its CPUs keep together; 0: from what the low watermark is up to an eighth.
    """
    cpus = int(state.host[0].nr_cpus)
    computed = watermarks(_managed(state))
    for zone, managed in enumerate(_managed(state)):
        record = state.zones[zone]
        batch = batch_size(managed)
        sharing = int(state.nodes[int(record.node)].nr_cpus) or cpus  # `zone_highsize`: the node's CPUs, else all
        low = int(record.wmark_min + record.low) or computed[zone][1]
        least, most = (managed // fraction,) * 2 if fraction else (low, managed // HIGH_FRACTION)
        for cpu in range(cpus):
            pcp = state.pcps[zone * layout.MAX_CPUS + cpu]
            pcp.batch = batch
            pcp.high_min = max(least // sharing, LEAST_HIGH * batch)
            pcp.high_max = max(most // sharing, LEAST_HIGH * batch)
