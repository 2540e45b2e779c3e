"""The headline figures of one run, each a plain number.

A figure whose denominator is zero (the share mapped at 2M where nothing is mapped) is None.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.daemons import khugepaged
from gmemlab.core.layout import BLOCK_ORDER, GIGA_ORDER, NR_CAUSES, NR_FOLIO_ORDERS, PAGE_SIZE, TALLY_PRESENT
from gmemlab.core.state import Records
from gmemlab.lab.simulate import Run
from gmemlab.model.background import VMSTAT

COLLAPSE_FAILURES: Final = {
    "collapse_failed_holes": layout.TALLY_SCAN + khugepaged.SCAN_EXCEED_NONE_PTE,
    "collapse_failed_held": layout.TALLY_SCAN + khugepaged.SCAN_PAGE_COUNT,
    "collapse_failed_memory": layout.TALLY_SCAN + khugepaged.SCAN_ALLOC_HUGE_PAGE_FAIL,
    "collapse_failed_shared": layout.TALLY_SCAN + khugepaged.SCAN_SHARED,
}
Tally = NDArray[np.int64]
Figures = dict[str, float | None]


class Figure(NamedTuple):
    """What a figure means, and its unit: ``share`` (0 to 1), ``ratio``, ``bytes`` or ``count``."""

    unit: str
    meaning: str


FIGURES: Final[Mapping[str, Figure]] = {
    "mapped_2m_ready": Figure("share", "private memory mapped at 2M / mapped, when a guest became ready (all guests)"),
    "mapped_2m_mean": Figure("share", "the same at the periodic samples, weighted by time"),
    "mapped_2m_end": Figure("share", "the same at the end of the scenario"),
    "huge_backed_end": Figure("share", "guests' frames, both sides, in folios of 2M and more, at the end"),
    "shattered": Figure("count", "2M mappings of guests that fell to 4K (K6)"),
    "shattered_by_punch": Figure("count", "of these, by a punch"),
    "shattered_by_conversion": Figure("count", "of these, by a conversion"),
    "shattered_by_accept": Figure("count", "of these, by a 4K accept"),
    "mappings_healed": Figure("count", "2M of guest memory mapped at 2M again after that"),
    "split_2m": Figure("count", "2M folios split"),
    "split_1g": Figure("count", "1G folios split"),
    "split_by_punch": Figure("count", "folios of 2M and 1G split by a punch"),
    "split_by_conversion": Figure("count", "folios of 2M and 1G split by a conversion"),
    "split_failed": Figure("count", "folios that could not be split: pinned, referenced, or no page structs (K3 to K5)"),
    "backing_healed": Figure("count", "folios merged again (K6: that heals no mapping)"),
    "peak_host_per_guest": Figure("ratio", "the host's bytes for guests at the peak / peak of the guests' sizes"),
    "peak_host": Figure(
        "bytes", "when guests use most: frames of both sides, page structs of splits, page tables, and what is idle in pools"
    ),
    "peak_guest": Figure("bytes", "largest sum of live guests' sizes at a sample"),
    "peak_mapped": Figure("bytes", "of the peak: mapped by guests as private"),
    "peak_unmapped": Figure("bytes", "of the peak: guest_memfd not mapped as private, and not stranded: shared or spare"),
    "peak_stranded": Figure("bytes", "of the peak: punched, but still charged"),
    "peak_shared_side": Figure(
        "bytes", "of the peak: ordinary memory beside two-source guests, also what deferred frees keep (L16)"
    ),
    "peak_pool_idle": Figure("bytes", "of the peak: idle in pools"),
    "peak_structs": Figure("bytes", "of the peak: page structs restored for splits (K5), since the pool was filled"),
    "peak_tables": Figure("bytes", "of the peak: page tables of 4K entries"),
    "peak_backed_twice": Figure("bytes", "guest memory that had frames on both sides at the peak; contained in the above"),
    "free_2m_start": Figure("count", "2M pages to be had by movable requesters at the start, before any pool is filled"),
    "free_2m_end": Figure("count", "the same at the end"),
    "free_2m_after": Figure("count", "the same after all guests have left"),
    "free_2m_unmovable_start": Figure("count", "2M pages to be had by unmovable requesters (not in ZONE_MOVABLE), start"),
    "free_2m_unmovable_end": Figure("count", "the same at the end"),
    "free_2m_unmovable_after": Figure("count", "the same after all guests have left"),
    "free_1g_start": Figure("count", "1G pages to be had at the start: aligned runs of free 2M blocks, outside ZONE_MOVABLE"),
    "free_1g_end": Figure("count", "the same at the end"),
    "free_1g_after": Figure("count", "the same after all guests have left"),
    "clean_2m_start": Figure("count", "2M blocks without an unmovable page: what compaction could free at most, start"),
    "clean_2m_end": Figure("count", "the same at the end"),
    "clean_2m_after": Figure("count", "the same after all guests have left"),
    "regions": Figure("count", "1G of the host, also in part"),
    "snp_free_end": Figure("share", "1G regions without a page of an SNP guest / all, at the end (Q14)"),
    "rmp": Figure("bytes", "the RMP, for all of the host, whatever it is used for (C18); of no other figure"),
    "rmpopt_rebuilds": Figure("count", "how often RMPOPT looked at all of the host anew: 10s after SNP guests left (C20)"),
    "pamt": Figure("bytes", "the PAMT, where it is static: for all of the host (C21); of no other figure"),
    "dynamic_pamt_end": Figure(
        "bytes", "a dynamic PAMT at the end: what is static, and 8K for each 2M that a TD maps at 4K (C22); of no other figure"
    ),
    "snp_regions_end": Figure(
        "count", "of these, with a page that the RMP gives to a guest, at the end: RMPOPT is off there (G84)"
    ),
    "tdx_small_2m_end": Figure(
        "count", "2M of the host with a page that a TD maps at 4K, at the end: they need 4K entries of a dynamic PAMT (C22)"
    ),
    "pool_idle_after": Figure("bytes", "idle in pools after all guests have left: for pool guests only"),
    "pool_wanted": Figure("bytes", "what the policy's pool was to get from the host's free memory"),
    "pool_missing": Figure("bytes", "of this, what it did not get"),
    "launches": Figure("count", "guests that were started"),
    "launches_failed": Figure("count", "guests that found no memory before they were ready"),
    "runtime_failures": Figure("count", "operations of running guests that found no memory"),
    "conversions": Figure("count", "conversions that changed something, or tried to"),
    "conversions_refused": Figure("count", "conversions refused with EAGAIN: pins, references"),
    "punches_refused": Figure("count", "punches refused by the policy (EINVAL)"),
    "vmm_punches_failed": Figure("count", "punches by the VMM on conversion that failed"),
    "memory_faults": Figure("count", "accesses that contradicted the page's attribute (G39)"),
    "host_failures": Figure("count", "allocations of the host's own that found no memory"),
    "allocated_4k": Figure("count", "4K pages that guests' files were given, both sides"),
    "allocated_2m": Figure("count", "2M pages that guests' files were given"),
    "allocated_1g": Figure("count", "1G pages that guests' files were given"),
    "allocated_other": Figure("bytes", "what guests' files were given in folios of other sizes"),
    "released_4k": Figure("count", "4K pages that left guests' files: punched, converted away, guests gone"),
    "released_2m": Figure("count", "2M pages that left guests' files"),
    "released_1g": Figure("count", "1G pages that left guests' files"),
    "released_other": Figure("bytes", "what left guests' files in folios of other sizes"),
    "entries_2m": Figure("count", "second-stage entries of 2M made: stands for page-state operations on 2M"),
    "entries_4k": Figure("count", "second-stage entries of 4K made: stands for page-state operations on 4K"),
    "fallbacks": Figure("count", "populations that wanted a larger folio and got a smaller one"),
    "stale": Figure("bytes", "punched, but kept its contents after a failed split (K2)"),
    "lost": Figure("bytes", "live guest memory dropped after a failed split (K2)"),
    "compactions": Figure("count", "direct compactions of a zone, for huge pages that were not free (K14)"),
    "compact_scanned": Figure("count", "4K pages that their scanners looked at"),
    "compact_moved": Figure("count", "4K pages that they moved"),
    "compact_failed": Figure("count", "4K pages that they isolated and did not move: held, or without a target"),
    "compact_stall": Figure("count", "times that an allocation compacted, or would have but that it failed lately"),
    "compact_fail": Figure("count", "of these, without a chunk"),
    "compact_success": Figure("count", "of these, with one"),
    "kcompactd_runs": Figure("count", "zones that kcompactd compacted by itself"),
    "khugepaged_scanned": Figure("count", "2M of guest memory that khugepaged looked at (repair=collapse)"),
    "collapsed": Figure("count", "of these, made one folio, holes filled (L15; K6: that heals no mapping)"),
    "collapse_failed": Figure("count", "of these, left as they were, for one of the next four reasons"),
    "collapse_failed_holes": Figure("count", "more holes than max_ptes_none"),
    "collapse_failed_held": Figure("count", "a page was pinned or referenced"),
    "collapse_failed_memory": Figure("count", "no 2M page could be had, also by compaction"),
    "collapse_failed_shared": Figure("count", "pages that are shared in place (G90)"),
    "collapse_copied": Figure("count", "4K pages that were copied for that"),
    "firmware_copies": Figure(
        "count", "guests' private 4K pages that were moved or collapsed, which no kernel does: an upper bound (K16)"
    ),
    "remote_end": Figure("bytes", "guests' memory on other NUMA nodes than the guest's home, at the end"),
    "numa_misses": Figure("count", "allocations, the host's too, that did not get the NUMA node that they wanted (NUMA_MISS)"),
    "numa_missed": Figure("bytes", "what they got"),
    "blocks_stolen": Figure("count", "page blocks of the host that changed their migratetype"),
    "pgscan_kswapd": Figure("count", "4K pages of the host's page cache that kswapd looked at (names of /proc/vmstat)"),
    "pgsteal_kswapd": Figure("count", "of these, dropped"),
    "pgscan_direct": Figure("count", "the same by allocations that found no memory"),
    "pgsteal_direct": Figure("count", "of these, dropped"),
    "pageoutrun": Figure("count", "times that kswapd worked"),
    "allocstall": Figure("count", "times that an allocation reclaimed by itself"),
    "slabs_scanned": Figure("count", "folios that both had the deferred-split shrinker look at (L16, L17)"),
    "deferred_split": Figure("count", "of these, split: unmapped in part, or mostly zeros"),
    "deferred_freed": Figure("count", "4K pages that were freed so"),
}


def share_2m(samples: Records) -> NDArray[np.float64]:
    """Return the share of the mapped private memory that is mapped at 2M, for each sample; NaN where none is mapped."""
    huge = np.asarray(samples.private_mapped_2m, dtype=np.float64)
    mapped = huge + np.asarray(samples.private_mapped_4k)
    shares: NDArray[np.float64] = np.divide(huge, mapped, out=np.full(len(huge), np.nan), where=mapped > 0)
    return shares


def figures_of(run: Run, before: Tally) -> Figures:
    """Return the figures of one run, by the keys of ``FIGURES``.

    Args:
        run: what the simulation gave.
        before: the host's counters before it, since fragmenting a host also counts.
    """
    tally = run.tally - before
    found = {
        **_mapping(run, tally), **_changes(tally), **_memory(run), **_free(run), **_operations(tally),
        **_traffic("allocated", tally[layout.TALLY_ALLOCATED :], int(tally[layout.TALLY_HOST_ALLOCATED])),
        **_traffic("released", tally[layout.TALLY_RELEASED :], int(tally[layout.TALLY_HOST_RELEASED])),
    }  # fmt: skip
    return {key: found[key] for key in FIGURES}


def _mapping(run: Run, tally: Tally) -> Figures:
    shares = share_2m(run.samples)
    lasted = np.diff(run.times, prepend=0).astype(np.float64)
    known = ~np.isnan(shares)
    last = run.samples[-1]
    huge = int(tally[TALLY_PRESENT + BLOCK_ORDER : TALLY_PRESENT + NR_FOLIO_ORDERS].sum())
    return {
        "mapped_2m_ready": _ratio(
            run.ready.private_mapped_2m.sum(), (run.ready.private_mapped_2m + run.ready.private_mapped_4k).sum()
        ),
        "mapped_2m_mean": _ratio((shares * lasted)[known].sum(), lasted[known].sum()),
        "mapped_2m_end": None if np.isnan(shares[-1]) else float(shares[-1]),
        "huge_backed_end": _ratio(huge, last.charged + last.charged_shared_side),
    }


def _changes(tally: Tally) -> Figures:
    def causes(base: int) -> int:
        """A counter summed over what caused it."""
        return int(tally[base : base + NR_CAUSES].sum())

    def split_by(cause: int) -> int:
        """Folios of 2M and 1G that one cause split."""
        return int(tally[layout.TALLY_SPLIT_2M + cause] + tally[layout.TALLY_SPLIT_1G + cause])

    return {
        "shattered": causes(layout.TALLY_SHATTERED),
        "shattered_by_punch": int(tally[layout.TALLY_SHATTERED + layout.CAUSE_PUNCH]),
        "shattered_by_conversion": int(tally[layout.TALLY_SHATTERED + layout.CAUSE_CONVERT]),
        "shattered_by_accept": int(tally[layout.TALLY_SHATTERED + layout.CAUSE_ACCEPT]),
        "mappings_healed": causes(layout.TALLY_HEALED_MAPPING),
        "split_2m": causes(layout.TALLY_SPLIT_2M),
        "split_1g": causes(layout.TALLY_SPLIT_1G),
        "split_by_punch": split_by(layout.CAUSE_PUNCH),
        "split_by_conversion": split_by(layout.CAUSE_CONVERT),
        "split_failed": causes(layout.TALLY_SPLIT_FAILED),
        "backing_healed": causes(layout.TALLY_HEALED_BACKING),
    }


def host_pages(samples: Records, filled: Any) -> NDArray[np.int64]:
    """Return the host's pages that guests cost, for each sample: the sum of the components that ``_memory`` lists."""
    pages: NDArray[np.int64] = (
        samples.charged
        + samples.charged_shared_side
        + samples.deferred
        + samples.pool_idle
        + (samples.structs_taken - filled.structs_taken)
        + samples.table_blocks
    )
    return pages


def _memory(run: Run) -> Figures:
    names = list(run.ready.dtype.names or ())
    samples = np.concatenate([run.samples[names], run.ready]).view(np.recarray)
    pages = host_pages(samples, run.filled)
    # A pool makes the sum nearly the same at all times: the moment that can be compared is when guests use most of it.
    moment = int((pages - samples.pool_idle).argmax())
    peak = samples[moment]
    mapped = peak.private_mapped_2m + peak.private_mapped_4k
    components = {
        "peak_mapped": mapped,
        "peak_unmapped": peak.charged - mapped - peak.stranded,
        "peak_stranded": peak.stranded,
        "peak_shared_side": peak.charged_shared_side + peak.deferred,
        "peak_pool_idle": peak.pool_idle,
        "peak_structs": peak.structs_taken - run.filled.structs_taken,
        "peak_tables": peak.table_blocks,
        "peak_backed_twice": peak.backed_twice,
    }
    guests = samples.guest_pages.max()
    return {
        "peak_host_per_guest": _ratio(pages[moment], guests),
        "peak_host": int(pages[moment]) * PAGE_SIZE,
        "peak_guest": int(guests) * PAGE_SIZE,
        **{name: int(value) * PAGE_SIZE for name, value in components.items()},
    }


def _free(run: Run) -> Figures:
    moments = {"start": run.start, "end": run.samples[-1], "after": run.after}
    figures: Figures = {}
    for moment, sample in moments.items():
        figures[f"free_2m_{moment}"] = int(sample.free_2m)
        figures[f"free_2m_unmovable_{moment}"] = int(sample.free_2m - sample.free_2m_movable_zone)
        figures[f"free_1g_{moment}"] = int(sample.free_1g)
        figures[f"clean_2m_{moment}"] = int(sample.clean_2m)
    figures["remote_end"] = int(run.samples[-1].remote) * PAGE_SIZE
    figures.update(_places(run))
    figures["pool_idle_after"] = int(run.after.pool_idle) * PAGE_SIZE
    figures["pool_wanted"] = run.pool_wanted_bytes
    figures["pool_missing"] = run.pool_wanted_bytes - run.pool_bytes
    return figures


def _places(run: Run) -> Figures:
    """Where page states lie, and the bytes of the hardware's tables, for guests that have such hardware."""
    places, snp, tdx = run.places, run.hardware == "snp", run.hardware == "tdx"
    return {
        "regions": places.regions,
        "snp_regions_end": places.snp_regions,
        "snp_free_end": places.snp_free_share if snp else None,
        "rmp": places.rmp_bytes if snp else None,
        "rmpopt_rebuilds": run.rmpopt_rebuilds,
        "tdx_small_2m_end": places.tdx_small_2m,
        "pamt": places.pamt_bytes if tdx else None,
        "dynamic_pamt_end": places.dynamic_pamt_bytes if tdx else None,
    }


def _operations(tally: Tally) -> Figures:
    counts = {
        "launches": layout.TALLY_LAUNCHED,
        "launches_failed": layout.TALLY_LAUNCH_FAILED,
        "runtime_failures": layout.TALLY_RUNTIME_FAILED,
        "conversions": layout.TALLY_CONVERTED,
        "conversions_refused": layout.TALLY_EAGAIN,
        "punches_refused": layout.TALLY_PUNCH_REFUSED,
        "vmm_punches_failed": layout.TALLY_VMM_PUNCH_FAILED,
        "memory_faults": layout.TALLY_MEMORY_EXITS,
        "host_failures": layout.TALLY_HOST_FAILED,
        "entries_2m": layout.TALLY_MAPPED_2M,
        "entries_4k": layout.TALLY_MAPPED_4K,
        "fallbacks": layout.TALLY_HUGE_FALLBACK,
        "blocks_stolen": layout.TALLY_BLOCKS_STOLEN,
        "numa_misses": layout.TALLY_NUMA_MISS,
        "compactions": layout.TALLY_COMPACT_RUNS,
        "compact_moved": layout.TALLY_COMPACT_MOVED,
        "compact_failed": layout.TALLY_COMPACT_FAILED,
        "deferred_split": layout.TALLY_DEFERRED_SPLIT,
        "deferred_freed": layout.TALLY_DEFERRED_FREED,
        "firmware_copies": layout.TALLY_FIRMWARE_COPIES,
        "kcompactd_runs": layout.TALLY_KCOMPACTD_RUNS,
        "collapsed": layout.TALLY_SCAN + khugepaged.SCAN_SUCCEED,
        "collapse_copied": layout.TALLY_COLLAPSE_COPIED,
        **VMSTAT,
        **COLLAPSE_FAILURES,
    }
    figures: Figures = {name: int(tally[index]) for name, index in counts.items()}
    figures["compact_scanned"] = int(tally[layout.TALLY_COMPACT_MIGRATE_SCANNED] + tally[layout.TALLY_COMPACT_FREE_SCANNED])
    figures["khugepaged_scanned"] = int(tally[layout.TALLY_SCAN : layout.TALLY_SCAN + layout.NR_SCAN_RESULTS].sum())
    figures["collapse_failed"] = sum(int(tally[index]) for index in COLLAPSE_FAILURES.values())
    figures["numa_missed"] = int(tally[layout.TALLY_NUMA_MISS_PAGES]) * PAGE_SIZE
    figures["stale"] = int(tally[layout.TALLY_STALE_PAGES]) * PAGE_SIZE
    figures["lost"] = int(tally[layout.TALLY_LOST_PAGES]) * PAGE_SIZE
    return figures


def _traffic(name: str, by_order: Tally, of_host: int) -> Figures:
    """Return how many folios came or went, by size, without the base pages of the host's own memory."""
    others = sum(int(by_order[order]) << order for order in range(1, GIGA_ORDER) if order != BLOCK_ORDER)
    return {
        f"{name}_4k": int(by_order[0]) - of_host,
        f"{name}_2m": int(by_order[BLOCK_ORDER]),
        f"{name}_1g": int(by_order[GIGA_ORDER]),
        f"{name}_other": others * PAGE_SIZE,
    }


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
