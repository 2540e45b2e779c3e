"""The live world of the suites on files: steps on memory objects of the running kernel, and what can be seen of them."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.pages import folios
from gmemlab.kernel.observe.pools import read_pool
from gmemlab.kernel.observe.thp_stats import thp_sizes
from gmemlab.kernel.observe.vmstat import VMSTAT
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Runs, Step, attempt, runs_of

POOL_PAGE: Final = 2 << 20
THP: Final = "/sys/kernel/mm/transparent_hugepage"
SINCE_START: Final = ("split", "split_failed", "underused")  # counters that never fall
Action = Callable[[LiveMemory, Step], None]


class LiveFiles:
    """Files of one kind. Satisfies `steps.World`; subclasses add operations and what else can be seen.

    Args:
        kind: the method of `LiveHost` that makes them.
        counters: what is counted beside the files; by default nothing.
    """

    def __init__(self, kind: str, counters: Callable[[], dict[str, int]] = dict) -> None:
        self.host = LiveHost()
        self.kind = kind
        self.files: dict[int, LiveMemory] = {}
        self.actions: dict[str, Action] = {
            "allocate": lambda file, step: file.allocate(step.offset, step.size),
            "punch": lambda file, step: file.punch_hole(step.offset, step.size),
            "pin": lambda file, step: file.pin(step.offset, step.size),
            "unpin": lambda file, step: file.unpin(step.offset, step.size),
            "write": lambda file, step: file.write(step.offset, step.size, bytes((step.arg,))),
            "reserve": lambda file, step: file.reserve(step.offset, step.size),  # type: ignore[attr-defined]  # hugetlb only
            "collapse": lambda file, step: file.collapse(step.offset, step.size),  # type: ignore[attr-defined]  # not hugetlb
        }
        self._count = counters
        self._before = {name: count for name, count in counters().items() if name in SINCE_START}

    def open(self, step: Step) -> LiveMemory:
        """The memory that a step `create` asks for."""
        memory: LiveMemory = getattr(self.host, self.kind)(step.size)
        return memory

    def seen(self, memory: LiveMemory) -> FileSeen:
        """What can be seen of one file."""
        if self.kind == "hugetlb":
            return FileSeen(tags=os.pread(memory.fd, memory.size, 0)[::PAGE])  # holes read zero and stay holes
        present = memory.present()
        memory.map_present()
        found = tuple(
            (folio.offset // PAGE, folio.size // PAGE, folio.first, folio.pages)
            for folio in folios(memory.address, memory.size)
        )
        return FileSeen(present=runs_of(present), tags=tags_of(memory, runs_of(present)), folios=found)

    def apply(self, step: Step) -> tuple[int, int]:
        """Carry out a step."""
        return attempt(lambda: self._apply(step))

    def _apply(self, step: Step) -> int:
        if step.op in ("create", "close"):
            if step.file in self.files:
                self.files.pop(step.file).close()
            if step.op == "create":
                self.files[step.file] = self.open(step)
            return 0
        if step.file not in self.files:
            return 0
        self.actions[step.op](self.files[step.file], step)
        return max(0, step.size // PAGE)

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What can be seen of some files, by default all."""
        numbers = [number for number in (sorted(self.files) if files is None else files) if number in self.files]
        seen = {number: self.seen(self.files[number]) for number in numbers}
        counts = self._count()
        return seen, {name: count - self._before.get(name, 0) for name, count in counts.items()}

    def close(self) -> None:
        """Close all files."""
        self.files.clear()
        self.host.close()
        if isinstance(self._count, SplitCounters):
            self._count.close()


def tags_of(memory: LiveMemory, present: Runs) -> bytes:
    """The first byte of every page; 0 for pages that are not there, which are not touched."""
    tags = bytearray(memory.size // PAGE)
    for first, count in present:
        tags[first : first + count] = memory.read(first * PAGE, count * PAGE)[::PAGE]
    return bytes(tags)


class SplitCounters:
    """Of the whole machine: splits of 2 MiB folios, of these because they were mostly zeros (6.12), and failures at any size.

    Read after every step, so the files stay open.

    Raises:
        UnsupportedError: the kernel has no huge pages, or keeps no counters for each size (6.9).
    """

    def __init__(self) -> None:
        sizes = thp_sizes()
        if not sizes:
            raise UnsupportedError("/sys/kernel/mm/transparent_hugepage/hugepages-*/stats", "this kernel lacks it (6.9)")
        paths = [f"{THP}/hugepages-{size >> 10}kB/stats/split_failed" for size in sizes]
        self._failed = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        self._vmstat = os.open(f"/{VMSTAT}", os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> dict[str, int]:
        """All counts so far."""
        text = os.pread(self._vmstat, 1 << 16, 0)
        failed = sum(int(os.pread(file, 32, 0)) for file in self._failed)
        underused = count_in(text, b"thp_underused_split_page")
        return {"split": count_in(text, b"thp_split_page"), "split_failed": failed, "underused": underused}

    def close(self) -> None:
        """Close the files."""
        for file in (self._vmstat, *self._failed):
            os.close(file)


def count_in(text: bytes, name: bytes) -> int:
    """A counter out of the text of /proc/vmstat; 0 if the kernel has none of this name."""
    _, found, rest = text.partition(b"\n" + name + b" ")
    return int(rest[: rest.index(b"\n")]) if found else 0


def pool_counters() -> dict[str, int]:
    """The pool of 2 MiB pages: all, free, reserved, surplus."""
    pool = read_pool(POOL_PAGE).whole
    return {"total": pool.total, "free": pool.free, "reserved": pool.reserved, "surplus": pool.surplus}
