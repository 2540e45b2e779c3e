"""What samples measure: records that `core.measure` fills. Pages, unless a name says otherwise."""

from typing import Final

import numpy as np

_GUESTS: Final = (
    "guests",  # live guests
    "guest_pages",  # their memory
    "private_mapped_2m",
    "private_mapped_4k",
    "private_pages",  # pages with the attribute private
    "shared_pages",  # pages with the attribute shared
    "charged",  # frames of guest_memfd files
    "charged_shared_side",  # frames of the ordinary memory beside two-source guests
    "deferred",  # frames of anonymous folios that are unmapped, and freed only with their folio (L16)
    "backed_twice",  # guest pages with a frame on both sides
    "stranded",  # charged though punched
    "table_blocks",  # 2 MiB of guest memory that need a page table of 4 KiB entries
    "remote",  # frames of guest_memfd files on other nodes than their guest's home
    "pool_idle",  # frames idle in pools
    "structs_taken",  # frames taken to restore page structs, less those given back
)
_HOST: Final = (
    "free",  # on free lists and on the CPUs' own
    "free_2m",  # 2 MiB blocks to be had from the free lists now; neither isolated ones nor HIGHATOMIC
    "free_2m_movable_zone",  # of these, in ZONE_MOVABLE or CMA, where unmovable requesters cannot go
    "free_1g",  # aligned 1 GiB runs of free blocks, outside ZONE_MOVABLE
    "clean_2m",  # blocks without an unmovable frame: an upper bound for what compaction could free
)
MEASURE_GUESTS: Final = np.dtype([(name, "i8") for name in _GUESTS])  # guests, and what they cost
MEASURE_HOST: Final = np.dtype([(name, "i8") for name in _HOST])  # what the host has left
MEASURE: Final = np.dtype([(name, "i8") for name in _GUESTS + _HOST])  # one behind the other
