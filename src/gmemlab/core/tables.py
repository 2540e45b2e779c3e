"""The records of the state's tables, one for each kind of thing. `layout` says how they are to be read.

Every record is all-zero when unused, and zero means *nil*.
"""

from typing import Final

import numpy as np

ZONE: Final = np.dtype(
    [
        ("start", "i8"),
        ("end", "i8"),
        ("free", "i8"),  # but for what is isolated (NR_FREE_PAGES)
        ("reserve", "i8"),  # the min watermark, and what is protected from those who prefer another zone
        ("kind", "i8"),
        ("compact_migrate", "i8"),  # frames where the next compaction's scanners start; 0: not yet used. If it is asynchronous
        ("compact_migrate_sync", "i8"),  # if not
        ("compact_free", "i8"),
        ("compact_init_free", "i8"),  # `compact_init_free_pfn`: from here up a search for targets looks further
        ("blockskip_flush", "i8"),  # `compact_blockskip_flush`: kswapd clears the hints (`skip`) of the blocks when it sleeps
        ("compact_considered", "i4"),  # attempts that were passed over
        ("compact_defer_shift", "i4"),
        ("compact_order_failed", "i8"),
        ("low", "i8"),  # how far the low and the high watermark lie above `reserve`
        ("high", "i8"),
        ("below_high", "i8"),  # ZONE_BELOW_HIGH: an allocation found it so, and no free since found it otherwise
        ("node", "i8"),
        ("wmark_min", "i8"),  # the min watermark, of which `reserve` is made
        ("boost", "i8"),  # `watermark_boost`: how much higher all watermarks lie for now
        ("reclaiming", "i8"),  # ZONE_RECLAIM_ACTIVE: kswapd works on it
        ("boosted", "i8"),  # ZONE_BOOSTED_WATERMARK: and kswapd has not been told
        ("held", "i8"),  # `boost` and `free_highatomic`, together: what an allocation must leave beyond `reserve`
        ("held_fixed", "i8"),  # the same of one that is not movable: and `free_cma`
        ("free_cma", "i8"),  # of `free`
        ("free_highatomic", "i8"),  # of `free`
        ("free_isolated", "i8"),  # not of `free`
        ("reserved_highatomic", "i8"),  # `nr_reserved_highatomic`: pages of blocks of that type
    ],
    align=True,
)
NODE: Final = np.dtype(
    [
        ("struct_frame", "i8"),  # page structs of its block b, at boot: 8 frames from this one + 8 * b on; 0: not modelled
        ("first_cpu", "i8"),
        ("nr_cpus", "i8"),
        ("has_dma32", "i8"),
        ("hit", "i8"),  # NUMA_HIT: allocations here that wanted this node
        ("miss", "i8"),  # NUMA_MISS: here, though another was wanted
        ("foreign", "i8"),  # NUMA_FOREIGN: elsewhere, though this one was wanted
        ("max_order", "i8"),  # `kcompactd_max_order`: what failed allocations ask of its kcompactd
        ("highest_zone", "i8"),  # `kcompactd_highest_zoneidx`: kind of the last zone that helps all of them
        ("kcompactd_sleep", "i8"),  # ms until its kcompactd looks by itself
        ("kswapd_order", "i8"),  # what its kswapd was woken for since its last turn
        ("kswapd_zone", "i8"),  # `kswapd_highest_zoneidx`: kind of the last zone that helps all of them
        ("kswapd_woken", "i8"),
        ("kswapd_failures", "i8"),  # turns of its kswapd in which nothing was dropped, since something was
        ("lru_page", "i8"),  # where the hand of reclaim stands in `lru_file`
        ("lru_file", "i4"),  # 0: before the head of the list
        ("lru_dry", "i4"),  # it went round and met nothing of this node, and nothing came since
        ("split_head", "i4"),  # the queue of what the deferred-split shrinker will look at (`split_queue`)
        ("split_tail", "i4"),
        ("split_queue_len", "i8"),
        ("nr_deferred", "i8"),  # of that, what looks so far left undone
    ],
    align=True,
)
FREE_LIST: Final = np.dtype([("head", "i4"), ("tail", "i4"), ("count", "i8")], align=True)

# One CPU's pages of one zone (struct per_cpu_pages). `count` and limits in pages.
PCP_RECORD: Final = np.dtype(
    [
        ("count", "i8"),
        ("high", "i8"),
        ("high_min", "i8"),
        ("high_max", "i8"),
        ("batch", "i8"),
        ("free_count", "i8"),  # pages freed in a row; an allocation halves it
        ("alloc_factor", "i4"),  # each refill of base pages doubles the next one; a free halves it
        ("freed_high", "i4"),  # PCPF_PREV_FREE_HIGH_ORDER: the last chunk freed was of order 1 to 3
        ("touched", "i4"),  # the CPU changed counters of the zone since the vmstat worker last looked (`vm_stat_diff`)
        ("expire", "i4"),  # seconds until a batch of another node's zone goes
    ],
    align=True,
)

# 32 bytes for every 2 MiB of host. `prev` serves free and idle blocks, and with `next` huge pages on the queue of the
# deferred-split shrinker; `nr_free` and `nr_movable` serve split blocks, `busy` (pins and references) whole folios. `deferred`
# counts unmapped pages of anonymous folios, `assigned` the frames of orphans that the RMP still gives to a guest (-1: by one
# 2 MiB entry). `direct` outlives them all: DIRECT_* says how the kernel's own mapping was split. `origin` is the type that an
# isolated block had, and will have again.
BLOCK: Final = np.dtype(
    {
        "names": [
            "next",
            "prev",
            "owner",
            "detail",
            "index",
            "nr_free",
            "nr_movable",
            "busy",
            "kind",
            "migratetype",
            "order",
            "zone",
            "deferred",
            "assigned",
            "direct",
            "origin",
        ],
        "formats": ["i4", "i4", "i4", "i4", "i4", "i2", "i2", "i4", "i1", "i1", "i1", "i1", "i2", "i2", "i1", "i1"],
        "offsets": [0, 4, 8, 12, 16, 20, 22, 20, 24, 25, 26, 27, 28, 28, 30, 31],
        "itemsize": 32,
    }
)
# 16 bytes for every frame of a split block. Links are frame slots (slab * 512 + offset). `next` and `prev` serve free
# chunks, `index` used ones: the page in the owner's file, or the block that a frame of page structs is for.
FRAME: Final = np.dtype(
    {
        "names": ["next", "prev", "index", "owner", "order", "kind", "busy"],
        "formats": ["i4", "i4", "i8", "i4", "i1", "i1", "i2"],
        "offsets": [0, 4, 0, 8, 12, 13, 14],
        "itemsize": 16,
    }
)
SLAB: Final = np.dtype([("block", "i4"), ("next", "i4")], align=True)

FILE: Final = np.dtype(
    [
        ("pages", "i8"),
        ("first_block", "i8"),  # into file_blocks
        ("reserved", "i8"),  # huge pages of its pool that are promised to it and not yet used
        ("kind", "i4"),  # 0 is KIND_GUEST_MEMFD: `alive` tells an unused record
        ("policy", "i4"),
        ("shared_file", "i4"),
        ("pins", "i4"),
        ("next", "i4"),
        ("extent", "i2"),  # log2 of its room in file_blocks
        ("alive", "i2"),
        ("scan_next", "i4"),  # in the list of what khugepaged scans
        ("scan_prev", "i4"),
        ("node_mode", "i2"),  # NODES_*
        ("home", "i2"),  # the node on which its tasks run, where CPUs are not modelled
        ("il_prev", "i2"),  # the node that a task interleaved to last (`current->il_prev`)
        ("subpool", "i2"),  # of its mount; 0: none
        ("allowed", "i8"),  # the nodes of its policy, as bits
        ("guest", "i2"),  # GUEST_*
        ("phase", "i2"),  # PHASE_*
    ],
    align=True,
)
# 20 bytes for every 2 MiB of a file. `block`: the pages lie in this host block, in order. `detail`: page details say.
FILE_BLOCK: Final = np.dtype(
    [
        ("block", "i4"),
        ("detail", "i4"),
        ("nr_present", "i2"),
        ("nr_shared", "i2"),
        ("nr_mapped", "i2"),
        ("nr_stranded", "i2"),
        ("marks", "i1"),
        ("content", "i1"),  # of all pages; beside details anything but FRESH says that no present page is fresh
        ("nr_host_mapped", "i2"),
    ],
    align=True,
)
# 6 bytes beside each row of file_blocks, written for guests with such hardware only.
HARDWARE: Final = np.dtype([("nr_assigned", "i2"), ("nr_accepted", "i2"), ("marks", "i2")], align=True)
SLOT: Final = np.dtype([("gfn", "i8"), ("count", "i8"), ("offset", "i8")], align=True)
POLICY: Final = np.dtype(
    [
        ("sizes", "i4"),  # bit o: folios of order o are tried
        ("unit", "i4"),  # the smallest of them
        ("fallocate_sizes", "i4"),  # the same for fallocate, where it differs (L12)
        ("source", "i2"),
        ("effort", "i2"),
        ("movable", "i2"),
        ("punch", "i2"),
        ("conversion", "i2"),
        ("split", "i2"),
        ("merge", "i2"),
        ("vmm_punch", "i2"),
        ("shared_policy", "i4"),  # of the ordinary memory beside a two-source guest
        ("repair", "i2"),  # REPAIR_*: which daemons work for it
        ("truncation", "i2"),
        ("accept_mark", "i2"),
        ("zero_scan", "i2"),  # the shrinker looks for zeros in shmem, too (T4)
    ],
    align=True,
)
POOL_RECORD: Final = np.dtype(
    [
        ("nr", "i8"),  # with surplus pages
        ("free", "i8"),
        ("reserved", "i8"),
        ("surplus", "i8"),  # pages beyond the size that the pool was given, freed as soon as they are given back (L19)
        ("overcommit", "i8"),  # how many of them there may be
        ("hvo", "i4"),
        ("next_to_alloc", "i2"),  # the node that it grows on next (`next_nid_to_alloc`)
        ("next_to_free", "i2"),  # the node that gives a page back next (`next_nid_to_free`)
    ],
    align=True,
)
# A node's part of a pool. Reservations belong to no node.
NODE_POOL: Final = np.dtype([("nr", "i8"), ("free", "i8"), ("surplus", "i8"), ("head", "i8")], align=True)
# What one mount of hugetlbfs may use of a pool, or keeps of it (struct hugepage_subpool). Huge pages; -1: no such limit.
SUBPOOL: Final = np.dtype(
    [
        ("max_hpages", "i8"),
        ("min_hpages", "i8"),
        ("used_hpages", "i8"),  # against the limit; not counted without one
        ("rsv_hpages", "i8"),  # of the pages that are kept, how many no file has
        ("order", "i4"),
        ("alive", "i2"),
        ("files", "i2"),
    ],
    align=True,
)
PIN_RECORD: Final = np.dtype(
    [
        ("first", "i8"),  # the call's range, by which it is undone
        ("count", "i8"),
        ("frame", "i8"),  # a run of frames that this record holds
        ("frames", "i8"),
        ("serial", "i8"),
        ("next", "i4"),
        ("kind", "i4"),
    ],
    align=True,
)
# One record: the run of compaction that goes on (`struct compact_control`). Frames, unless it says otherwise.
COMPACT_CONTROL: Final = np.dtype(
    [
        ("order", "i8"),  # that is wanted; WHOLE_ZONE, PROACTIVE
        ("migratetype", "i8"),
        ("mode", "i8"),  # ASYNC, SYNC_LIGHT, SYNC
        ("direct", "i8"),  # for an allocation that waits
        ("ignore_skip_hint", "i8"),
        ("finish_pageblock", "i8"),  # no clusters: all of the block at once
        ("migrate", "i8"),  # where the scanners stand
        ("free", "i8"),
        ("nr_folios", "i8"),  # rows of `migratepages` in use
        ("nr_migrate", "i8"),  # their pages, as far as they were given no target
        ("nr_free", "i8"),  # isolated, and not yet used
        ("fast_start", "i8"),  # the lowest source that a search of the free lists found; -1: none is looked for any more
        ("fast_search_fail", "i8"),  # searches that found nothing, in a row
        ("search_order", "i8"),  # of the list that the next search starts with
    ],
    align=True,
)
# One record: what the host as a whole needs to remember.
HOST_RECORD: Final = np.dtype(
    [
        ("nr_blocks", "i8"),
        ("nr_zones", "i8"),
        ("nr_nodes", "i8"),
        ("free_frame_slab", "i8"),
        ("next_frame_slab", "i8"),
        ("free_page_slab", "i8"),
        ("next_page_slab", "i8"),
        ("free_file", "i8"),
        ("next_file", "i8"),
        ("free_pin", "i8"),
        ("next_pin", "i8"),
        ("next_extent", "i8"),
        ("pin_serial", "i8"),
        *((f"max_{name}", "i8") for name in ("frame_slabs", "page_slabs", "files", "pins", "file_blocks")),  # rows of tables
        ("exhausted", "i8"),  # a table of the model (not memory of the host) ran out
        ("guest_nodes", "i8"),  # NODES_* of the guests that the event stream starts; bound ones to their home node
        ("nr_cpus", "i8"),  # CPUs that keep lists of their own; 0: none does
        ("cpu", "i8"),  # the one that works now
        ("in_batches", "i8"),  # a list that became too long is shortened batch by batch (6.19)
        ("decayed", "i8"),  # until when (ns of the event stream) the vmstat worker has seen to the CPUs' lists
        ("undecayed", "i8"),  # milliseconds that passed since, where time passes without events
        ("nofragment", "i8"),  # zone DMA32 comes before a small chunk of another type in zone Normal (ALLOC_NOFRAGMENT)
        ("kept_entries", "i8"),  # frames of orphans that the RMP gives to a guest
        ("operation", "i8"),  # OP_* that is carried out, to say what led to a hazard
        ("watermarks", "i8"),  # some zone has a low watermark above its reserve
        ("boost_factor", "i8"),  # vm.watermark_boost_factor
        ("calls_kswapd", "i8"),  # an allocation has something to tell kswapd
        ("pinning", "i8"),  # PF_MEMALLOC_PIN: a long-term pin is under way, and what it allocates is not movable
    ],
    align=True,
)
