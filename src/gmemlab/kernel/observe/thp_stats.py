"""Counters of transparent huge pages by size: allocated, fallen back, split, split in vain (since 6.9 to 6.12)."""

from pathlib import Path
from typing import Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.observe.vmstat import Counters, read_count
from gmemlab.units import KIB

_LIVE: Final = Path("/")
_FOLDER: Final = "sys/kernel/mm/transparent_hugepage"


def thp_sizes(root: Path = _LIVE) -> tuple[int, ...]:
    """Return the folio sizes, in bytes and ascending, that have counters; none if the kernel keeps none.

    Args:
        root: the directory that stands for ``/``.
    """
    names = [folder.parent.name for folder in (root / _FOLDER).glob("hugepages-*kB/stats")]
    return tuple(sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) * KIB for name in names))


def read_thp_stats(size: int, root: Path = _LIVE) -> Counters:
    """Return the counters of one size.

    ``split`` and ``split_failed`` count folios of this size, ``split_deferred`` those queued, ``anon_fault_alloc`` and
    ``shmem_alloc`` those allocated, ``..._fallback`` those for which smaller ones were taken.

    Args:
        size: of a folio, in bytes.
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: the kernel keeps no counters for the size.
        UsageError: a file is not a number.
    """
    folder = f"{_FOLDER}/hugepages-{size // KIB}kB/stats"
    if not (root / folder).is_dir():
        raise UnsupportedError(f"/{folder}", "this kernel lacks it")
    return Counters({file.name: read_count(root, f"{folder}/{file.name}") for file in sorted((root / folder).iterdir())})
