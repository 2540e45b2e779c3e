"""The suite `mix`: what a random mix of guest_memfd, shmem and hugetlb leaves of free memory, by order (L21 to L24).

Twelve files are filled, a piece of each in turn, then random ranges of them are punched and allocated. The same sequence is
carried out several times on the running kernel: how far its runs lie apart is the measure of how far the model may lie.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from gmemlab.errors import OperationError
from gmemlab.kernel.differences import difference
from gmemlab.kernel.features import read_release
from gmemlab.kernel.files import LiveFile
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.observe.free_memory import as_counters, free_by_order, read_files
from gmemlab.kernel.quiet import on_one_cpu
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites import fragmentation, hugetlb, thp
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.protocol import GuestMemory

RUNS: Final = 5
KINDS: Final = ("guest_memfd",) * 4 + ("shmem",) * 6 + ("hugetlb",) * 2  # of the files
HUGE: Final = 2 << 20
PIECE: Final = 16 << 20  # of a file, while all are filled in turn
LARGEST: Final = 4 << 20  # bytes of one operation
PUNCHES: Final = 0.55  # of the operations
MOST: Final = 6 << 30  # bytes of all files
EACH: Final = MOST // 10_000  # bytes for each operation, below that
MOMENTS: Final = ("start", "filled", "25%", "50%", "75%", "end")


class Operation(NamedTuple):
    """One operation: allocate a range of a file, or punch it."""

    punch: bool
    file: int
    offset: int
    size: int


def plan(random: Random, count: int) -> Iterator[Step]:
    """Runs of one sequence: `size` is that of each file, `offset` the number of operations, `arg` where they are drawn from."""
    size = max(1, min(MOST, count * EACH) // len(KINDS) // HUGE) * HUGE
    seed = random.randrange(1 << 30)
    for run in range(RUNS):
        yield Step("mix", run, count, size, seed)


def fill(size: int) -> Iterator[Operation]:
    """Allocate all files of a size, a piece of each in turn."""
    for offset in range(0, size, PIECE):
        for file in range(len(KINDS)):
            yield Operation(False, file, offset, min(PIECE, size - offset))


def churn(step: Step) -> Iterator[Operation]:
    """The random operations of a run."""
    random = Random(step.arg)
    for _ in range(step.offset):
        file = random.randrange(len(KINDS))
        unit = HUGE if KINDS[file] == "hugetlb" else PAGE
        most = min(LARGEST, step.size) // unit
        pages = random.randint(1, min(most, 1 << random.randrange(most.bit_length())))
        offset = random.randrange(step.size // unit - pages + 1)
        yield Operation(random.random() < PUNCHES, file, offset * unit, pages * unit)


def play(step: Step, files: Sequence[GuestMemory], free: Callable[[], Sequence[int]]) -> tuple[int, dict[str, int]]:
    """Carry out a run.

    Args:
        step: which run.
        files: of either world, empty.
        free: tells free memory by order.

    Returns:
        How many operations found no memory, and free memory by moment and order, in bytes.
    """
    counts = as_counters(MOMENTS[0], free())
    failed = sum(_fails(files, operation) for operation in fill(step.size))
    counts |= as_counters(MOMENTS[1], free())
    due = {step.offset * part // 4: moment for part, moment in enumerate(MOMENTS[2:], start=1)}
    for number, operation in enumerate(churn(step), start=1):
        failed += _fails(files, operation)
        if number in due:
            counts |= as_counters(due[number], free())
    return failed, counts


def _fails(files: Sequence[GuestMemory], operation: Operation) -> bool:
    memory = files[operation.file]
    try:
        (memory.punch_hole if operation.punch else memory.allocate)(operation.offset, operation.size)
    except OperationError:
        return True
    return False


class LiveMix:
    """Runs on the running kernel, on one CPU. Satisfies `steps.World` and `steps.ReadsFiles`.

    Args:
        settings: that are put back.
    """

    def __init__(self, settings: Settings) -> None:
        self.host = LiveHost()
        self.settings = settings
        self.counts: dict[str, int] = {}
        self.texts: Mapping[str, str] = {}

    def apply(self, step: Step) -> tuple[int, int]:
        """One run; its huge pages are surplus pages, which come from free memory and go back there."""
        self.settings.set(hugetlb.OVERCOMMIT, step.size // HUGE * KINDS.count("hugetlb"))
        with on_one_cpu():
            self.texts = read_files()
            files = [self.open(kind, step.size) for kind in KINDS]
            try:
                failed, self.counts = play(step, files, free_by_order)
            finally:
                for file in files:
                    file.close()
        self.counts["failed"] = failed
        return 0, step.offset

    def open(self, kind: str, size: int) -> LiveFile:
        """An empty file."""
        opened: dict[str, Callable[[int], LiveFile]] = {
            "guest_memfd": self.host.guest_memfd, "shmem": self.host.shmem, "hugetlb": self.host.hugetlb
        }  # fmt: skip
        return opened[kind](size)

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """Free memory in the course of the last run, in bytes."""
        return {}, self.counts

    def close(self) -> None:
        """Free everything."""
        self.host.close()


def live(settings: Settings) -> tuple[LiveMix, dict[str, Any]]:
    """The running kernel's world; shmem has huge folios where they are free without compaction."""
    hugetlb.refuse_used_pool()
    settings.set(hugetlb.SETTING, 0)
    settings.set(thp.SETTING, "within_size")
    settings.set(fragmentation.DEFRAG, "never")
    return LiveMix(settings), {name: difference(name, read_release()) for name in ("split", "shmem_ladder")}
