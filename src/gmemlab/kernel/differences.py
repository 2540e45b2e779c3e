"""What differs between releases of Linux: one table, each row with the releases and the commit or experiment behind it."""

import errno
import re
from collections.abc import Mapping
from typing import Any, Final

Release = tuple[int, int]

# Name: values, each from a release on.
DIFFERENCES: Final[Mapping[str, tuple[tuple[Release, Any], ...]]] = {
    # A second memslot on the same range of a guest_memfd: EINVAL, then EEXIST (G29; L11 on 6.18.44, 7.3.4).
    "memslot_overlap": (((0, 0), errno.EINVAL), ((7, 3), errno.EEXIST)),
    # mmap with PROT_EXEC of a guest_memfd without the flag MMAP: ENODEV, then EPERM, as its file system is mounted noexec
    # (seen on 6.12.117 and 6.18.44).
    "exec_mapping": (((0, 0), errno.ENODEV), ((6, 18), errno.EPERM)),
    # Whether an ordinary VM (type 0) may have memslots with guest_memfd: EINVAL before (seen on 6.12.117 and 6.18.44).
    "ordinary_memslots": (((0, 0), False), ((6, 18), True)),
    # What a partial punch of a shmem folio leaves: base pages, then the pieces of two non-uniform splits (commit 7460b470a131,
    # "mm/truncate: use folio_split() in truncate operation"; seen on 6.12.95 and 6.18.44).
    "split": (((0, 0), "4k"), ((6, 15), "pieces")),
    # Folios that fallocate of shmem tries: 2M and 4K, then every order that fits (commit acd7ccb284b8, "mm: shmem: add large
    # folio support for tmpfs"; seen on 6.18.44).
    "shmem_ladder": (((0, 0), False), ((6, 14), True)),
    # Whether a CPU that frees gives back what its lists have too much batch by batch, of which a huge page uses up one ("mm/
    # page_alloc: batch page freeing in free_frozen_page_commit"; not in 6.18.35, not seen on 6.18.15, seen on 7.2 and 7.3.4).
    # That it begins with 6.19 is inferred: v5 was posted on 14 October 2025, when 6.18 took no more.
    "lists_in_batches": (((0, 0), False), ((6, 19), True)),
    # One MADV_DONTNEED on all of a 2M range frees its empty page table, so that a huge page can be had there again (commit
    # 6375e95f381e, "mm: pgtable: reclaim empty PTE page in madvise(MADV_DONTNEED)"; seen on 6.18.44).
    "reclaims_page_tables": (((0, 0), False), ((6, 14), True)),
}


def difference(name: str, release: str) -> Any:
    """The value that a release has.

    Args:
        name: in the table.
        release: as uname says it, such as ``6.18.44``.
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    running = (int(match[1]), int(match[2])) if match else (0, 0)
    return next(value for first, value in reversed(DIFFERENCES[name]) if running >= first)
