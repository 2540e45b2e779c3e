"""What differs between releases of Linux, each with the release or commit that changed it."""

import errno
import re
from typing import Final

Release = tuple[int, int]

# A second memslot on the same range of a guest_memfd: the errno, and since which release (G29; L11 on 6.18, 7.3).
MEMSLOT_OVERLAP: Final[tuple[tuple[Release, int], ...]] = (((0, 0), errno.EINVAL), ((7, 3), errno.EEXIST))


def memslot_overlap(release: str) -> int:
    """The errno of a memslot that overlaps another one on the same file.

    Args:
        release: as uname says it, such as ``6.18.44``.
    """
    return _since(MEMSLOT_OVERLAP, release)


def _since(table: tuple[tuple[Release, int], ...], release: str) -> int:
    match = re.match(r"(\d+)\.(\d+)", release)
    running = (int(match[1]), int(match[2])) if match else (0, 0)
    return next(value for first, value in reversed(table) if running >= first)
