"""The kernel's counters: /proc/vmstat, and what two readings differ by."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel.features import read_required

VMSTAT: Final = "proc/vmstat"
_REFRESH: Final = "proc/sys/vm/stat_refresh"
_LIVE: Final = Path("/")


class Counters(Mapping[str, int]):
    """Counters by name, at one time, or the changes between two.

    Args:
        values: the counters.
    """

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Counters({ {name: value for name, value in self.items() if value} })"

    def difference(self, earlier: Mapping[str, int]) -> "Counters":
        """Return how much each counter that both readings have has grown since the earlier one; it may be negative."""
        return Counters({name: value - earlier[name] for name, value in self.items() if name in earlier})


def read_vmstat(root: Path = _LIVE) -> Counters:
    """Return the counters of /proc/vmstat.

    Events (``thp_split_page``, ``pgfault``) are exact. Amounts (``nr_free_pages``, in 4 KiB pages) lag by what each CPU has
    not handed in yet: see ``refresh``.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: the file cannot be read.
        UsageError: it is not of that form.
    """
    counters: dict[str, int] = {}
    for number, line in enumerate(read_required(root, VMSTAT).splitlines(), start=1):
        name, _, value = line.partition(" ")
        if not value.removeprefix("-").isdecimal():
            raise UsageError("unexpected line", file=f"/{VMSTAT}", line=number, value=line, allowed="a name and a number")
        counters[name] = int(value)
    return Counters(counters)


def refresh(root: Path = _LIVE) -> None:
    """Make all CPUs hand in their share of the amounts, so that the next reading is exact.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: not root.
    """
    try:
        (root / _REFRESH).write_text("1", encoding="ascii")
    except OSError as error:
        raise UnsupportedError(f"/{_REFRESH}", f"cannot be written: {error.strerror} (needs root)") from error


def read_count(root: Path, name: str) -> int:
    """Return the number that a file consists of.

    Args:
        root: the directory that stands for ``/``.
        name: the file's path below it, without a slash in front.

    Raises:
        UnsupportedError: the file cannot be read.
        UsageError: it is not a number.
    """
    text = read_required(root, name).strip()
    if not text.isdecimal():
        raise UsageError("not a number", file=f"/{name}", line=1, value=text)
    return int(text)
