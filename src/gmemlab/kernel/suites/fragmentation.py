"""The suite `fragmentation`: what unmovable and movable pages leave behind when every other one is given back (L22, L23).

A file is filled with 4K pages and punched at every other page; then the kernel is asked to compact. Pages of guest_memfd
are unmovable, so that no huge page comes back; those of shmem are movable. Memory is compacted before, too, so that what
is won afterwards was the file's.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from gmemlab.kernel.features import read_required
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.procfs import parse_buddyinfo, parse_pagetypeinfo
from gmemlab.kernel.quiet import hidden_pages
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step

SIZE: Final = 2 << 30
BLOCK_ORDER: Final = 9
CYCLES: Final = 4
KINDS: Final = ("guest_memfd", "shmem")
SETTING: Final = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
_ROOT: Final = Path("/")
_COMPACT: Final = Path("/proc/sys/vm/compact_memory")


def plan(random: Random, count: int) -> Iterator[Step]:
    """Both kinds of memory, `count` times, in a random order."""
    for _ in range(count):
        for kind in random.sample(KINDS, len(KINDS)):
            yield Step(kind, 0, 0, SIZE)


def alternate(size: int) -> Iterator[int]:
    """Offsets of every other page."""
    return iter(range(PAGE, size, 2 * PAGE))


class LiveFragmentation:
    """The running kernel. Satisfies `steps.World`."""

    def __init__(self) -> None:
        self.host = LiveHost()
        self.counts: dict[str, int] = {}

    def apply(self, step: Step) -> tuple[int, int]:
        """Fill, punch and compact; movable memory again while compaction ended early, which depends on where the file lies."""
        for _ in range(CYCLES):
            self.cycle(step)
            if step.op == "guest_memfd" or self.counts["compacted"] >= self.counts["freed"] // 2:
                break
        return 0, step.size // PAGE

    def cycle(self, step: Step) -> None:
        """Fill, punch, compact; bytes throughout."""
        compact()
        memory = self.host.guest_memfd(step.size) if step.op == "guest_memfd" else self.host.shmem(step.size)
        before = unmovable_blocks()
        memory.allocate()
        now = unmovable_blocks()
        free, huge = free_memory()
        for offset in alternate(step.size):
            memory.punch_hole(offset, PAGE)
        freed, huge_freed = (now - then for now, then in zip(free_memory(), (free, huge), strict=True))
        compact()
        compacted = free_memory()[1] - huge
        memory.close()
        block = PAGE << BLOCK_ORDER
        self.counts = {
            "unmovable": now * block, "turned": (now - before) * block, "freed": freed, "huge": huge_freed,
            "compacted": compacted,
        }  # fmt: skip

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What came of the last step, in bytes."""
        return {}, self.counts

    def close(self) -> None:
        """Free everything."""
        self.host.close()


def unmovable_blocks() -> int:
    """Page blocks of 2 MiB that are unmovable."""
    info = parse_pagetypeinfo(read_required(_ROOT, "proc/pagetypeinfo"))
    return sum(zone.blocks.get("Unmovable", 0) for zone in info.blocks)


def compact() -> None:
    """Compact all zones, as far as the kernel gets."""
    _COMPACT.write_text("1")


def free_memory() -> tuple[int, int]:
    """Bytes that are free: all, those on per-CPU lists too, and those in chunks of 2 MiB or more."""
    zones = parse_buddyinfo(read_required(_ROOT, "proc/buddyinfo"))
    sizes = [sum(count * (PAGE << order) for order, count in enumerate(zone.counts)) for zone in zones]
    huge = [sum(count * (PAGE << order) for order, count in enumerate(zone.counts) if order >= BLOCK_ORDER) for zone in zones]
    return sum(sizes) + hidden_pages() * PAGE, sum(huge)


def live(settings: Settings) -> tuple[LiveFragmentation, dict[str, Any]]:
    """The running kernel's world; shmem in 4K pages, like guest_memfd."""
    settings.set(SETTING, "never")
    return LiveFragmentation(), {}
