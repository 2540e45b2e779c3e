"""What the daemons are told, and where khugepaged stands: one record of the state.

What belongs to the kcompactd and the kswapd of a node is in the node's record (`tables`).

Settings have the names and defaults of /sys/kernel/mm/transparent_hugepage/khugepaged and /proc/sys/vm in 6.18. There is no
max_ptes_swap and no max_ptes_shared: nothing is swapped out here, and no page is mapped by two processes, so that neither
could ever be exceeded.
"""

from typing import Final

import numpy as np

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
        ("lru_head", "i4"),  # files of page cache (`scan_next`, `scan_prev`), by time of creation
        ("lru_tail", "i4"),
    ],
    align=True,
)
DEFAULTS: Final[dict[str, int]] = {
    "pages_to_scan": 4096,
    "scan_sleep": 10_000,
    "alloc_sleep": 60_000,
    "max_ptes_none": 511,
    "proactiveness": 20,
}
