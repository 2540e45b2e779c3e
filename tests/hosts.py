"""Copies of machines' /proc and /sys files, for tests.

``LAZY`` is a 24 GiB machine whose kernel initialises memory on demand: most free memory is on no free list yet.
``TWO_NODES`` was written by hand: two NUMA nodes, ZONE_MOVABLE, CMA, counts that the kernel cut off, no THP.
"""

import shutil
from pathlib import Path
from typing import Final

HOSTS: Final = Path(__file__).parent / "data" / "hosts"
LAZY: Final = HOSTS / "lazy-24g"
TWO_NODES: Final = HOSTS / "two-nodes"


def changed(source: Path, target: Path, **changes: tuple[str, str] | None) -> Path:
    """Copy a machine's files to ``target``, with texts replaced (old, new) in files of its /proc, or files left out."""
    shutil.copytree(source, target)
    for name, change in changes.items():
        path = target / "proc" / name
        if change is None:
            path.unlink()
            continue
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(change[0], change[1], 1))
    return target
