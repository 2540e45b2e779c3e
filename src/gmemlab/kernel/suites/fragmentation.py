"""The suite `fragmentation`: what unmovable and movable pages leave behind when every other one is given back (L22 to L24).

A file is filled with 4K pages and punched at every other page; then the kernel is asked to compact. Pages of guest_memfd
are unmovable, so that no huge page comes back; those of shmem are movable. Memory is compacted before, too, so that what
is won afterwards was the file's.

A file whose holes are large enough to live on also shows what others get: a hugetlb pool that grows as far as memory goes
(K22), which leaves nothing but the holes, and huge page faults after that.

What compaction gets of movable memory depends on two things that no snapshot tells, so that both are seen to. One is whether
the holes lie in even or in odd frames: `isolate_freepages` looks at every 32nd frame of a block if it is asynchronous, else at
every frame, and at every second to 32nd after blocks that had nothing. From the block's first frame on, none of these is
odd. The kernel hands frames out in order, so that this changes a few times in a file, where somebody else took a page;
pagemap shows it, and the model's file is laid likewise. The other is how many attempts earlier failures still defer
(`defer_compaction`): they end where compaction wins a huge page.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import abi
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.calls import fallocate
from gmemlab.kernel.files import LiveFile, ShmemMemory
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.observe.free_memory import as_counters, free_by_order, read_files, unmovable_blocks
from gmemlab.kernel.observe.pages import frames, frames_of_file
from gmemlab.kernel.observe.pools import read_pool
from gmemlab.kernel.observe.vmstat import read_vmstat
from gmemlab.kernel.quiet import on_one_cpu
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites import anon, hugetlb, thp
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.protocol import GuestMemory

BLOCK_ORDER: Final = 9
BLOCK: Final = PAGE << BLOCK_ORDER
LEAST_HOLES: Final = 4 << 30  # bytes for the rest of the machine to live on while the pool has all else
FAULTS: Final = 64  # in huge pages, once the pool has all else
TRIES: Final = 512  # huge faults at most until compaction wins one; it is deferred 64 times at most (COMPACT_MAX_DEFER_SHIFT)
KEPT: Final = 8  # of so many pages one stays, where compaction shall be easy
NORMAL_PFN: Final = 1 << 20  # MAX_DMA32_PFN (arch/x86/include/asm/dma.h): where zone Normal starts, whose deferral matters
ODD_FRAMES: Final = "odd frames"  # a text beside those of /proc: "1" for each 2M of the file whose first frame is odd, else "0"
KINDS: Final = ("guest_memfd", "shmem")
DEFRAG: Final = f"{anon.THP}/defrag"
_COMPACT: Final = Path("/proc/sys/vm/compact_memory")
_PUNCH: Final = abi.KEEP_SIZE | abi.PUNCH_HOLE


def plan(random: Random, count: int) -> Iterator[Step]:
    """Both kinds of memory, in a random order, each in a file of which `count` pages are punched."""
    size = max(1, round(2 * count * PAGE / BLOCK)) * BLOCK
    for kind in random.sample(KINDS, len(KINDS)):
        yield Step(kind, 0, 0, size)


def alternate(size: int) -> Iterator[int]:
    """Offsets of every other page."""
    return iter(range(PAGE, size, 2 * PAGE))


def exhausts(step: Step) -> bool:
    """Whether a step also has a pool take all memory but the holes."""
    return step.size // 2 >= LEAST_HOLES


class Machine(Protocol):
    """What the experiment needs of the running kernel, or of the model. Bytes throughout."""

    def open(self, step: Step) -> GuestMemory:
        """An empty file of the step's kind and size."""

    def fill(self, memory: GuestMemory, size: int) -> None:
        """Back all of a file."""

    def punch(self, memory: GuestMemory, offsets: Iterator[int]) -> None:
        """Give single pages back."""

    def free_by_order(self) -> tuple[int, ...]:
        """Free memory in chunks of each order."""

    def unmovable(self) -> int:
        """Page blocks that are unmovable."""

    def compact(self) -> None:
        """Compact all zones, as far as it gets."""

    def fill_pool(self) -> int:
        """Grow the hugetlb pool as far as memory goes. Returns by how much."""

    def empty_pool(self) -> None:
        """Give back what the pool got."""

    def huge_faults(self, count: int) -> int:
        """Touch so many 2M of anonymous memory, for which direct compaction is allowed. Returns what came in huge pages."""


def experiment(machine: Machine, step: Step) -> dict[str, int]:
    """Fill, punch, exhaust and compact.

    Args:
        machine: of either world.
        step: says of which kind the memory is, and how much.

    Returns:
        Bytes, by name.
    """
    counts = as_counters("before", machine.free_by_order())
    typed = machine.unmovable()
    memory = machine.open(step)
    machine.fill(memory, step.size)
    counts["turned"] = machine.unmovable() - typed
    full = machine.free_by_order()
    machine.punch(memory, alternate(step.size))
    punched = machine.free_by_order()
    counts |= as_counters("punched", punched)
    counts["freed"] = sum(punched) - sum(full)
    counts["huge"] = in_blocks(punched) - in_blocks(full)
    if exhausts(step):
        counts["pool"] = machine.fill_pool()
        counts["faults"] = machine.huge_faults(FAULTS)
        machine.empty_pool()
    loose = in_blocks(machine.free_by_order())
    machine.compact()
    counts["compacted"] = in_blocks(machine.free_by_order()) - loose
    if exhausts(step):
        counts["pool_compacted"] = machine.fill_pool()
        machine.empty_pool()
    memory.close()
    return counts


def in_blocks(by_order: Sequence[int]) -> int:
    """Of free memory by order, what lies in chunks of 2 MiB and more."""
    return sum(by_order[BLOCK_ORDER:])


class LiveMachine:
    """The running kernel. Satisfies `Machine`.

    Args:
        settings: that are put back.
    """

    def __init__(self, settings: Settings) -> None:
        self.host = LiveHost()
        self.settings = settings
        self.pages = read_pool(BLOCK).whole.total
        self.odd_frames = ""  # of the movable file that was filled last

    def end_deferral(self, size: int) -> None:
        """Have compaction win a huge page of zone Normal, which ends what is deferred there (`compaction_defer_reset`).

        A pool has what is free in 2M chunks meanwhile, so that there are only a file's holes to win it from.

        Raises:
            UnsupportedError: it wins none.
        """
        with self.host.shmem(size) as memory:
            memory.allocate(0, size)
            for offset in range(0, size, KEPT * PAGE):
                memory.punch_hole(offset + PAGE, (KEPT - 1) * PAGE)
            self.settings.set(hugetlb.SETTING, self.pages + in_blocks(free_by_order()) // BLOCK)
            try:
                with self.host.anonymous(TRIES * BLOCK) as faulting:
                    if not any(self._wins(faulting, offset) for offset in range(0, TRIES * BLOCK, BLOCK)):
                        raise UnsupportedError(
                            "compaction", f"wins no huge page of zone Normal in {TRIES} faults, all else being taken"
                        )
            finally:
                self.empty_pool()

    def _wins(self, memory: AnonymousMemory, offset: int) -> bool:
        """Whether a huge fault had compaction win its page, in zone Normal."""
        before = read_vmstat()["compact_success"]
        memory.access(offset, PAGE, by="host")
        (frame,) = frames(memory.address + offset, PAGE)
        return read_vmstat()["compact_success"] > before and frame is not None and frame >= NORMAL_PFN

    def open(self, step: Step) -> LiveFile:
        """An empty file."""
        return self.host.guest_memfd(step.size) if step.op == "guest_memfd" else self.host.shmem(step.size)

    def fill(self, memory: GuestMemory, size: int) -> None:
        """Back all of a file, and see where movable memory lies."""
        memory.allocate(0, size)
        self.odd_frames = ""
        if isinstance(memory, ShmemMemory):
            found = frames_of_file(memory.fd, range(0, size, BLOCK))
            self.odd_frames = "".join("1" if frame and frame % 2 else "0" for frame in found)

    def punch(self, memory: GuestMemory, offsets: Iterator[int]) -> None:
        """Give single pages back, without looking at each: nobody else holds them."""
        assert isinstance(memory, LiveFile)
        for offset in offsets:
            fallocate(memory.fd, _PUNCH, offset, PAGE)

    def free_by_order(self) -> tuple[int, ...]:
        """Free memory in chunks of each order."""
        return free_by_order()

    def unmovable(self) -> int:
        """Page blocks that are unmovable."""
        return unmovable_blocks() * BLOCK

    def compact(self) -> None:
        """Compact all zones."""
        _COMPACT.write_text("1")

    def fill_pool(self) -> int:
        """Grow the pool by more than there can be."""
        wanted = self.pages + sum(free_by_order()) // BLOCK
        return (int(self.settings.set(hugetlb.SETTING, wanted)) - self.pages) * BLOCK

    def empty_pool(self) -> None:
        """Give the pool its old size."""
        self.settings.set(hugetlb.SETTING, self.pages)

    def huge_faults(self, count: int) -> int:
        """Touch the first page of each 2M."""
        with self.host.anonymous(count * BLOCK) as memory:
            return count_huge_faults(memory, count)


def count_huge_faults(memory: GuestMemory, count: int) -> int:
    """Touch the first page of each 2M of anonymous memory, and see from its charge how many came in huge pages; bytes."""
    for offset in range(0, count * BLOCK, BLOCK):
        memory.access(offset, PAGE, by="host")
    return (memory.usage().charged - count * PAGE) // (BLOCK - PAGE) * BLOCK


class LiveFragmentation:
    """The experiment on the running kernel, on one CPU. Satisfies `steps.World` and `steps.ReadsFiles`.

    Args:
        settings: that are put back.
    """

    def __init__(self, settings: Settings) -> None:
        self.machine = LiveMachine(settings)
        self.counts: dict[str, int] = {}
        self.texts: Mapping[str, str] = {}

    def apply(self, step: Step) -> tuple[int, int]:
        """Fill, punch, exhaust and compact."""
        if exhausts(step):
            self.machine.end_deferral(step.size)
        self.machine.compact()
        with on_one_cpu():
            texts = read_files()
            self.counts = experiment(self.machine, step)
        self.texts = {**texts, **({ODD_FRAMES: self.machine.odd_frames} if self.machine.odd_frames else {})}
        return 0, step.size // (2 * PAGE)

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What came of the last step, in bytes."""
        return {}, self.counts

    def close(self) -> None:
        """Free everything."""
        self.machine.empty_pool()
        self.machine.host.close()


def live(settings: Settings) -> tuple[LiveFragmentation, dict[str, Any]]:
    """The running kernel's world; shmem in 4K pages, like guest_memfd."""
    if not _COMPACT.exists():
        raise UnsupportedError(str(_COMPACT), "does not exist: a kernel without CONFIG_COMPACTION")
    hugetlb.refuse_used_pool()
    settings.set(thp.SETTING, "never")
    settings.set(anon.SETTING, "madvise")
    settings.set(DEFRAG, "madvise")
    return LiveFragmentation(settings), {}
