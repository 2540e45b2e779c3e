"""Constants of the compiled state, and the records of the event stream; `tables` has those of the state.

Every record is all-zero when unused and zero means *nil*: block 0, frame slot 0, slab 0 and file 0 are never handed out,
so memory that was never touched costs nothing. Fields are signed; code widens them on load (``int(record.field)``), so
that the interpreted pass computes in the same width as the compiled one. No field is named like an attribute of
``numpy.record``.
"""

from typing import Final

import numpy as np

# -- geometry (x86-64) ------------------------------------------------------------------------------------------------
PAGE_SIZE: Final = 4096
BLOCK_ORDER: Final = 9  # pageblock_order: one 2 MiB block, the unit of migratetypes
BLOCK_PAGES: Final = 512
MAX_PAGE_ORDER: Final = 10  # the largest buddy chunk, 4 MiB
NR_ORDERS: Final = 11
GIGA_ORDER: Final = 18  # a 1 GiB page
GIGA_BLOCKS: Final = 512
NR_FOLIO_ORDERS: Final = 19
STRUCT_FRAMES: Final = 8  # frames of the page structs of one block: 512 of 64 bytes (C23)

# -- migratetypes (include/linux/mmzone.h) ------------------------------------------------------------------------------
UNMOVABLE: Final = 0
MOVABLE: Final = 1
RECLAIMABLE: Final = 2
NR_PCPTYPES: Final = 3  # MIGRATE_PCPTYPES: these have lists of the CPUs, claim blocks of each other, and merge with each other
HIGHATOMIC: Final = 3  # kept for high-order allocations that cannot wait
CMA: Final = 4  # for movable memory only; never changes its type
ISOLATE: Final = 5  # nobody gets what is free here
NR_MIGRATETYPES: Final = 6

# -- per-CPU lists (include/linux/mmzone.h) ---------------------------------------------------------------------------------
COSTLY_ORDER: Final = 3  # PAGE_ALLOC_COSTLY_ORDER: chunks up to here have lists, one for each migratetype and order
NR_LOWORDER_PCP_LISTS: Final = NR_PCPTYPES * (COSTLY_ORDER + 1)
NR_PCP_LISTS: Final = NR_LOWORDER_PCP_LISTS + 2  # and chunks of order 9: one for movable memory, one for all other
PCP_BATCH_SCALE_MAX: Final = 5  # CONFIG_PCP_BATCH_SCALE_MAX
MAX_CPUS: Final = 512

# -- zones ------------------------------------------------------------------------------------------------------------------
ZONE_DMA: Final = 0
ZONE_DMA32: Final = 1
ZONE_NORMAL: Final = 2
ZONE_MOVABLE: Final = 3

# -- NUMA nodes: which of them a file's memory comes from (include/uapi/linux/mempolicy.h) ----------------------------------
MAX_NODES: Final = 32
NODES_LOCAL: Final = 0  # MPOL_DEFAULT, MPOL_LOCAL: that of the task that allocates first
NODES_BIND: Final = 1  # MPOL_BIND: no others than these
NODES_PREFERRED: Final = 2  # MPOL_PREFERRED: this one first
NODES_INTERLEAVE: Final = 3  # MPOL_INTERLEAVE: one after the other first
NODES_SPREAD: Final = 4  # not Linux's: local to the tasks of the host, the next node's for each 2 MiB of the file

MAX_SUBPOOLS: Final = 64

# -- host blocks: what the 512 frames of a 2 MiB block are --------------------------------------------------------------
HOLE: Final = 0  # not memory, or not managed by the host
FREE: Final = 1  # free as a whole: head of a free order-9 or order-10 chunk, or (order -1) the second half of an order-10
WHOLE: Final = 2  # one order-9 folio of one file
UNIFORM: Final = 3  # 512 base pages of one file, ascending
SPLIT: Final = 4  # frame details say
GIGA: Final = 5  # one 512th of a 1 GiB folio of one file
POOL: Final = 6  # (part of) an idle huge page of a hugetlb pool
RESERVED: Final = 7  # taken at boot: page structs, or memory outside the buddy allocator; or just now, by nobody yet
ORPHAN: Final = 8  # an order-9 or 1 GiB folio that left its file while pinned; free as soon as the last pin goes
PCP: Final = 9  # an order-9 chunk on a CPU's list

# -- frames of a split block ----------------------------------------------------------------------------------------------
FRAME_TAIL: Final = 0  # inside a chunk that starts at a lower frame: free, isolated, or on a CPU's list
FRAME_FREE: Final = 1  # head of a free chunk
FRAME_USED: Final = 2  # page of a file's folio
FRAME_ORPHAN: Final = 3  # left its file while pinned; free as soon as the last pin goes
FRAME_VMEMMAP: Final = 4  # holds page structs that HVO had given back
FRAME_RESERVED: Final = 5  # taken at boot
FRAME_DEFERRED: Final = 6  # unmapped part of an anonymous folio that is freed only as a whole (L16)
FRAME_ISOLATED: Final = 7  # head of a chunk that compaction took off the free lists, while it runs
FRAME_PCP: Final = 8  # head of a chunk on a CPU's list

# -- marks of a 2 MiB block of a file ---------------------------------------------------------------------------------------
HUGE_MAPPED: Final = 1  # the guest maps the block with one 2 MiB entry
HISTORY: Final = 2  # some page was mapped at 4 KiB, and the block never left the guest as a whole since (K6)
INHIBIT: Final = 4  # a 4 KiB accept forbade 2 MiB here for good (G79)
SHATTERED: Final = 8  # was mapped at 2 MiB once, then lost it
PROMISED: Final = 16  # hugetlb memory: the huge page that starts here is in the file's reservation map (L19)
PAGE_TABLE: Final = 32  # anonymous memory: a table of 4 KiB entries maps the block, so that no huge page can (L16)
UNSEEN: Final = 64  # anonymous memory: the shrinker has not yet looked how much of the huge page is zeros (L17)
GONE_WITH_PAGES: Final = INHIBIT | UNSEEN  # a block without pages has these no more

# -- content of a file's page -----------------------------------------------------------------------------------------------
FRESH: Final = 0  # absent; or never used: neither zeroed nor up to date, and of anonymous memory zeroed, never written
USED: Final = 1  # zeroed at first use, then written
ZEROED: Final = 2  # punched without being freed, or a hole that a collapse filled: reads zero, still charged
STALE: Final = 3  # punched without being freed: still holds the old contents
UNSPECIFIED: Final = 4  # used, then converted under hardware that keeps nothing (G50)

# -- policy choices (policy.py gives them their names) -----------------------------------------------------------------------
EFFORT_NONE: Final = 0
EFFORT_LIGHT: Final = 1
EFFORT_ONCE: Final = 2
EFFORT_RETRY: Final = 3
EFFORT_ATOMIC: Final = 4
# What an allocation may do besides looking at the free lists (gfp_t): bits.
GFP_KSWAPD: Final = 1  # __GFP_KSWAPD_RECLAIM: have memory freed and compacted in the background
GFP_DIRECT: Final = 2  # __GFP_DIRECT_RECLAIM: do so itself, and wait
GFP_RETRY_MAYFAIL: Final = 8  # as long as that promises something, for orders above 3, too
GFP_HIGH: Final = 16  # take of the reserves
GFP_THISNODE: Final = 32  # compaction once, and no reclaim, which would hit one node alone
SOURCE_BUDDY: Final = 0
SOURCE_POOL: Final = 1
PUNCH_SPLIT: Final = 0
PUNCH_ZERO: Final = 1
PUNCH_REFUSE: Final = 2
PUNCH_KEEP: Final = 3
PUNCH_DEFER: Final = 4
CONVERT_NONE: Final = 0
CONVERT_TWO_SOURCES: Final = 1
CONVERT_IN_PLACE: Final = 2
SPLIT_UNIFORM: Final = 0
SPLIT_BUDDY: Final = 1
SPLIT_2M_FIRST: Final = 2
TRUNCATION_INACCESSIBLE: Final = 0
TRUNCATION_ZEROES: Final = 1
ACCEPT_MARK_ONE_WAY: Final = 0  # a 4 KiB accept forbids 2 MiB there, for as long as the guest lives (G79)
ACCEPT_MARK_NONE: Final = 1
MERGE_NEVER: Final = 0
MERGE_EAGER: Final = 1
MERGE_LAZY: Final = 2
VMM_PUNCHES_SHARED: Final = 1  # bit: discards the shared side of a range that becomes private
VMM_PUNCHES_PRIVATE: Final = 2  # bit: discards the private side of a range that becomes shared
REPAIR_COLLAPSE: Final = 1  # bit: khugepaged scans the policy's memory
KIND_GUEST_MEMFD: Final = 0
KIND_SHMEM: Final = 1
KIND_ANON: Final = 2
KIND_HUGETLB: Final = 3
KIND_HOST: Final = 4  # the host's own memory: kernel, other processes
KIND_CACHE: Final = 5  # clean page cache of the host's, which reclaim may drop

# -- access kinds and accept sizes ----------------------------------------------------------------------------------------
PRIVATE: Final = 0
SHARED: Final = 1
HOST: Final = 2
TOUCH: Final = 0  # an access to memory the guest may have accepted before
ACCEPT_4K: Final = 1
ACCEPT_2M: Final = 2
ACCEPT_LAUNCH: Final = 3  # put there and accepted before the guest runs: SNP_LAUNCH_UPDATE, TDH.MEM.PAGE.ADD
ACCEPT_IN_PLACE: Final = 4  # the same, of pages that the VMM wrote before they became private (a NULL source, G52)

# -- what a guest is, and what state a 2 MiB of it is in under SNP or TDX (`hardware`) ------------------------------------
GUEST_GENERIC: Final = 0  # confidential, of no particular hardware: K6 and G79 hold; no operation of hardware is counted
GUEST_PLAIN: Final = 1  # not confidential: huge mappings come back
GUEST_SW_PROTECTED: Final = 2  # like a plain one; contents stay over conversions (G50)
GUEST_PKVM: Final = 3  # the same
GUEST_SNP: Final = 4
GUEST_TDX: Final = 5
PHASE_BOOT: Final = 0
PHASE_RUNNING: Final = 1
PHASE_TEAR_DOWN: Final = 2
NR_PHASES: Final = 3
DIRECT_2M: Final = 1  # the kernel maps these 2 MiB at 4 KiB
DIRECT_1G: Final = 2  # on the last block of a 1 GiB: the kernel maps it in smaller pages
RMP_WHOLE: Final = 1  # one 2 MiB entry of the RMP
ONE_WAY: Final = 2  # TDX: a 4 KiB accept forbade 2 MiB here, for as long as the guest lives (G79)
ZAPPED: Final = 4  # a 2 MiB mapping was taken away for the sake of a part of it: what was in use faults back (`mend`)

# -- why the guest's second-stage table maps a page as it does: the terms of K8, in the order in which they are asked ------
TERM_NONE: Final = 0  # nothing in the way: 2 MiB
TERM_ABSENT: Final = 1  # no backing at all
TERM_FOLIO: Final = 2  # folio smaller than 2 MiB
TERM_SLOT: Final = 3  # the aligned 2 MiB range leaves the memslot
TERM_CONGRUENCE: Final = 4  # guest address and file offset differ modulo 2 MiB
TERM_ATTRIBUTES: Final = 5  # private and shared pages in the range
TERM_INHIBIT: Final = 6  # one-way mark left by a 4 KiB accept (G79)
TERM_HISTORY: Final = 7  # mapped at 4 KiB before, and never left the guest as a whole since (K6)
TERM_ACCEPT: Final = 8  # the guest accepts in 4 KiB
TERM_SHARED: Final = 9  # the page is shared

# -- operations of the event stream ---------------------------------------------------------------------------------------
OP_CREATE: Final = 1  # vm; the guests table says how large, and which policy
OP_READY: Final = 2  # vm is up: from here an allocation that fails is a run-time failure
OP_DESTROY: Final = 3
OP_ALLOCATE: Final = 4  # fallocate of private memory
OP_ACCESS: Final = 5  # arg = access kind + 4 * accept size
OP_PUNCH: Final = 6
OP_TO_SHARED: Final = 7
OP_TO_PRIVATE: Final = 8
OP_PIN: Final = 9  # arg = PIN_SHORT, or 0: for long
OP_UNPIN: Final = 10
OP_REFERENCE: Final = 11  # transient reference on a private folio (K3)
OP_UNREFERENCE: Final = 12
OP_HOST_ALLOCATE: Final = 13  # vm = HOST_UNMOVABLE or HOST_MOVABLE; first, count in pages of the background file
OP_HOST_FREE: Final = 14
OP_SAMPLE: Final = 15
OP_COLLAPSE: Final = 17  # MADV_COLLAPSE (L15)
OP_FREE_LAZILY: Final = 18  # MADV_FREE (L16)
OP_SPLIT_DEFERRED: Final = 19  # the deferred-split shrinker, on one file (L16); arg = max_ptes_none (L17)
OP_RESERVE: Final = 16  # hugetlb memory: what a shared mmap does (L19)
OP_COMPACT: Final = 20  # a write to /proc/sys/vm/compact_memory; of no file
OP_KHUGEPAGED: Final = 21  # `count` milliseconds pass for khugepaged; of no file
OP_KCOMPACTD: Final = 22  # the same for kcompactd
OP_DRAIN: Final = 23  # all CPUs give back what is on their lists; of no file
OP_DECAY: Final = 24  # `count` milliseconds pass for the vmstat worker, which sees to the CPUs' lists; of no file
NR_OPS: Final = 32
HOST_UNMOVABLE: Final = -1
HOST_MOVABLE: Final = -2

# The event stream: one record per event, in order of time. `first` and `count` are in 4 KiB pages of the guest's file.
EVENT: Final = np.dtype(
    [("time", "i8"), ("vm", "i4"), ("op", "i2"), ("arg", "i2"), ("first", "i8"), ("count", "i8")], align=True
)
MAX_SLOTS: Final = 4  # memslots of one guest
# The guests that a stream speaks of: event.vm indexes this table. Memslots are in pages; unused ones have count 0.
GUEST: Final = np.dtype(
    [
        ("pages", "i8"),
        ("slot_gfn", "i8", MAX_SLOTS),
        ("slot_count", "i8", MAX_SLOTS),
        ("slot_offset", "i8", MAX_SLOTS),
    ],
    align=True,
)

# -- kinds of holds ---------------------------------------------------------------------------------------------------------
PIN: Final = 0
REFERENCE: Final = 1
PIN_SHORT: Final = 1  # a pin for the time of one I/O: without FOLL_LONGTERM

# -- what must not happen, by the operation that led to it ---------------------------------------------------------------
HAZARD_HOST_WRITE: Final = 0  # private pages that the kernel zeroed (K1, T9)
HAZARD_UNACCEPTED: Final = 1  # pages that the guest touched without accepting them
HAZARD_STALE: Final = 2  # punched pages that kept their contents (K2)
HAZARD_LOST: Final = 3  # pages dropped though nobody punched them (K2)
NR_HAZARDS: Final = 4

# -- counters: indices into state.tally -----------------------------------------------------------------------------------
CAUSE_PUNCH: Final = 0
CAUSE_CONVERT: Final = 1
CAUSE_ACCEPT: Final = 2
CAUSE_POPULATE: Final = 3
NR_CAUSES: Final = 4
TALLY_SHATTERED: Final = 0  # + cause: 2 MiB mappings of guests that fell to 4 KiB
TALLY_HEALED_MAPPING: Final = 5  # + cause: blocks mapped at 2 MiB again
TALLY_SPLIT_2M: Final = 10  # + cause: order-9 folios split
TALLY_SPLIT_1G: Final = 15  # + cause
TALLY_HEALED_BACKING: Final = 20  # + cause: folios merged again
TALLY_SPLIT_FAILED: Final = 25  # + cause
TALLY_STALE_PAGES: Final = 30  # punched pages that kept their contents (K2)
TALLY_LOST_PAGES: Final = 31  # pages dropped though nobody punched them (K2)
TALLY_ORPHANED_PAGES: Final = 32
TALLY_EAGAIN: Final = 33  # conversions refused
TALLY_VMM_PUNCH_FAILED: Final = 34
TALLY_MAPPED_2M: Final = 35  # second-stage entries made
TALLY_MAPPED_4K: Final = 36
TALLY_UNMAPPED_2M: Final = 37
TALLY_UNMAPPED_4K: Final = 38
TALLY_MEMORY_EXITS: Final = 39  # accesses that contradicted the attribute (G39)
TALLY_VMEMMAP_TAKEN: Final = 40  # frames taken to restore page structs (K5)
TALLY_VMEMMAP_RETURNED: Final = 41
TALLY_BLOCKS_STOLEN: Final = 42  # pageblocks that changed their migratetype
TALLY_HUGE_FALLBACK: Final = 43  # populations that wanted a larger folio and got a smaller one
TALLY_CONVERTED: Final = 44  # conversions that changed something
TALLY_HOST_FAILED: Final = 45  # allocations of the host's own background that failed
TALLY_LAUNCHED: Final = 46  # guests that the event stream started
TALLY_LAUNCH_FAILED: Final = 47  # guests that could not be created, or ran out of memory before they were ready
TALLY_RUNTIME_FAILED: Final = 48  # operations of running guests that found no memory
TALLY_PUNCH_REFUSED: Final = 49  # punches refused by the policy (EINVAL)
TALLY_LAUNCHED_PAGES: Final = 50
TALLY_DEFERRED: Final = 51  # unmapped pages of anonymous folios that are still charged, now (L16)
TALLY_COLLAPSED: Final = 52  # blocks that MADV_COLLAPSE or khugepaged made one folio
TALLY_UNDERUSED: Final = 53  # huge pages split because they were mostly zeros (L17)
TALLY_HOST_ALLOCATED: Final = 54  # pages that the host's own files were given by the event stream
TALLY_HOST_RELEASED: Final = 55
TALLY_COMPACT_RUNS: Final = 56  # direct compactions of a zone
TALLY_COMPACT_MIGRATE_SCANNED: Final = 57  # frames
TALLY_COMPACT_FREE_SCANNED: Final = 58
TALLY_COMPACT_MOVED: Final = 59  # pages
TALLY_FIRMWARE_COPIES: Final = 60  # private pages of guests that were moved or collapsed: no kernel does it (K16)
TALLY_PRESENT: Final = 61  # + order: pages of files in folios of this order, now
TALLY_ALLOCATED: Final = TALLY_PRESENT + NR_FOLIO_ORDERS  # + order: folios of this order that files were given
TALLY_RELEASED: Final = TALLY_ALLOCATED + NR_FOLIO_ORDERS  # + order: folios of this order that left their file
TALLY_SCAN: Final = TALLY_RELEASED + NR_FOLIO_ORDERS  # + SCAN_* (`daemons.khugepaged`): 2 MiB that khugepaged looked at
NR_SCAN_RESULTS: Final = 7
TALLY_COLLAPSE_COPIED: Final = TALLY_SCAN + NR_SCAN_RESULTS  # pages that a collapse copied
TALLY_KCOMPACTD_RUNS: Final = TALLY_COLLAPSE_COPIED + 1  # zones that kcompactd compacted
TALLY_FULL_SCANS: Final = TALLY_COLLAPSE_COPIED + 2  # khugepaged came to the end of its list
TALLY_NUMA_HIT: Final = TALLY_COLLAPSE_COPIED + 3  # allocations that got their node; on hosts of several nodes
TALLY_NUMA_MISS: Final = TALLY_COLLAPSE_COPIED + 4  # that got another one
TALLY_NUMA_MISS_PAGES: Final = TALLY_COLLAPSE_COPIED + 5
TALLY_PGSCAN_KSWAPD: Final = TALLY_NUMA_MISS_PAGES + 1  # pages of the page cache that kswapd looked at
TALLY_PGSTEAL_KSWAPD: Final = TALLY_NUMA_MISS_PAGES + 2  # and dropped
TALLY_PGSCAN_DIRECT: Final = TALLY_NUMA_MISS_PAGES + 3  # the same of allocations
TALLY_PGSTEAL_DIRECT: Final = TALLY_NUMA_MISS_PAGES + 4
TALLY_PAGEOUTRUN: Final = TALLY_NUMA_MISS_PAGES + 5  # turns of kswapd
TALLY_ALLOCSTALL: Final = TALLY_NUMA_MISS_PAGES + 6  # allocations that reclaimed, each time
TALLY_SLABS_SCANNED: Final = TALLY_ALLOCSTALL + 1  # folios that reclaim had the deferred-split shrinker look at (L16, L17)
TALLY_DEFERRED_SPLIT: Final = TALLY_ALLOCSTALL + 2  # and that it split
TALLY_DEFERRED_FREED: Final = TALLY_ALLOCSTALL + 3  # pages that were freed so
TALLY_COMPACT_FAILED: Final = TALLY_DEFERRED_FREED + 1  # pages that compaction isolated and did not move: held, or no target
TALLY_COMPACTSTALL: Final = TALLY_DEFERRED_FREED + 2  # allocations that compacted, each time, also where that was deferred
TALLY_COMPACTFAIL: Final = TALLY_DEFERRED_FREED + 3  # of these, in vain
TALLY_COMPACTSUCCESS: Final = TALLY_DEFERRED_FREED + 4  # and not
TALLY_HARDWARE: Final = TALLY_COMPACTSUCCESS + 1  # + operation (`hardware`) * NR_PHASES + phase
NR_HARDWARE: Final = 44
TALLY_HAZARD: Final = TALLY_HARDWARE + NR_HARDWARE * NR_PHASES  # + HAZARD_* * NR_OPS + OP_*: pages
NR_TALLIES: Final = TALLY_HAZARD + NR_HAZARDS * NR_OPS

# -- the event runner -------------------------------------------------------------------------------------------------------
VM_NONE: Final = 0
VM_LAUNCHING: Final = 1
VM_READY: Final = 2
VM_FAILED: Final = 3
VM_GONE: Final = 4
VM: Final = np.dtype([("file", "i4"), ("status", "i4")], align=True)
ASKED_TOGETHER: Final = 8  # events whose memory is asked for together (`read_ahead`)
ROWS_KEPT: Final = 8 * ASKED_TOGETHER  # a power of two, and room for five groups
# The next event and the pages of it that are done; up to which event `read_ahead` had its turns, and the rows in `file_blocks`
# of the events behind it, by the event's number modulo ROWS_KEPT.
CURSOR: Final = np.dtype([("event", "i8"), ("done", "i8"), ("asked", "i8"), ("rows", "i8", ROWS_KEPT)], align=True)
