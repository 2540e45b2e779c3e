"""What the daemons are told, and where they stand: one record of the state, for the host as one node.

Settings have the names and defaults of /sys/kernel/mm/transparent_hugepage/khugepaged and /proc/sys/vm in 6.18. There is no
max_ptes_swap and no max_ptes_shared: nothing is swapped out here, and no page is mapped by two processes, so that neither
could ever be exceeded.
"""

from typing import Final

import numpy as np

from gmemlab.core.layout import ZONE_MOVABLE

KCOMPACTD_INTERVAL: Final = 500  # HPAGE_FRAG_CHECK_INTERVAL_MSEC
DAEMONS: Final = np.dtype(
    [
        ("pages_to_scan", "i8"),  # of khugepaged, each time that it wakes
        ("scan_sleep", "i8"),  # ms
        ("alloc_sleep", "i8"),  # ms, the first time in one scan that it finds no huge page
        ("max_ptes_none", "i8"),
        ("proactiveness", "i8"),  # vm.compaction_proactiveness
        ("head", "i4"),  # the list of files that khugepaged scans (`khugepaged_scan.mm_head`), by time of creation
        ("tail", "i4"),
        ("file", "i4"),  # where its cursor stands; 0: before the head
        ("result", "i4"),  # of the last 2 MiB (SCAN_*)
        ("page", "i8"),
        ("progress", "i8"),  # of this scan, against pages_to_scan
        ("passed", "i4"),  # times that this scan stood before the head
        ("waited", "i4"),  # this scan has slept for a huge page already
        ("khugepaged_sleep", "i8"),  # ms until it wakes
        ("nr_compacted", "i8"),  # files that kcompactd works for
        ("max_order", "i8"),  # `kcompactd_max_order`: what failed allocations ask of it
        ("highest_zone", "i8"),  # `kcompactd_highest_zoneidx`: kind of the last zone that helps all of them
        ("kcompactd_sleep", "i8"),  # ms until it looks by itself
        ("lru_head", "i4"),  # files of page cache (`scan_next`, `scan_prev`), by time of creation
        ("lru_tail", "i4"),
        ("lru_file", "i4"),  # where the hand of reclaim stands; 0: before the head
        ("lru_dry", "i4"),  # it went round and met nothing, and nothing came since
        ("lru_page", "i8"),
        ("kswapd_order", "i8"),  # what kswapd was woken for since its last turn
        ("kswapd_zone", "i8"),  # `kswapd_highest_zoneidx`: kind of the last zone that helps all of them
        ("kswapd_woken", "i8"),
    ],
    align=True,
)
DEFAULTS: Final[dict[str, int]] = {
    "pages_to_scan": 4096,
    "scan_sleep": 10_000,
    "alloc_sleep": 60_000,
    "max_ptes_none": 511,
    "proactiveness": 20,
    "highest_zone": ZONE_MOVABLE,
    "kcompactd_sleep": KCOMPACTD_INTERVAL,
}
