"""The model's world for the suite `fragmentation` (L22 to L24, K22): figures beside those of a null model.

Movable memory lies in odd and even frames as the kernel's did. What compaction wins of it before a pool has all, and what the
first pool wins, also depends on what lies between its blocks, which is not recorded: there are bounds for both (L23).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gmemlab.core import measure
from gmemlab.errors import UsageError
from gmemlab.kernel.observe.free_memory import from_counters
from gmemlab.kernel.suites.fragmentation import BLOCK, FAULTS, ODD_FRAMES, count_huge_faults, exhausts, experiment, in_blocks
from gmemlab.kernel.suites.steps import PAGE, Seen, Step
from gmemlab.lab.conform.live_host import free_by_order, host_of, unmovable
from gmemlab.lab.conform.measured import Compared, Comparison, beats_null, distance, shares
from gmemlab.model.guest import GuestMemory as ModelMemory
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.protocol import GuestMemory
from gmemlab.units import MIB, signed_size

# Of shmem, how far what a pool has at last may lie from the model's, by the file's size: eleven runs of 8 and 12 GiB (6.18.44,
# November 2026) were off by 0.01 to 0.11, where the null model was off by 0.01 (holes in odd frames) to 0.74 (in even ones).
# How much of that the first pool has, and compaction of everything then, depends on where the scanners stood and on which
# blocks lie between the file's: with 4,092 of 4,096 blocks' holes in even frames the kernel's first pool got 0.2 of 4 GiB of
# holes, the model's 2 GiB; over all runs it was up to 0.22 of the file off.
LAST_POOL_SHARE: Final = 0.125
TAKEN: Final = 4  # pages that others take at most until the next frame is odd, or even
SLACK_SHARE: Final = 0.05  # of the file's size
SLACK: Final = 128 * MIB  # other processes allocate and free meanwhile
SMALL_SHMEM: Final = find("shmem-thp").with_choices({"sizes": "4K", "fallocate_sizes": "4K"})
# Of guest_memfd the kernel's huge faults got 0 to 6 of 128 MiB (five runs of 2 and 8 GiB, 6.18.15 and 6.18.44, November 2026),
# the model's 0 to 2; and 40 and 12 where others had given 0.3 GiB back meanwhile, which is what the slack is for.
FAULTS_SLACK: Final = FAULTS * BLOCK // 4
# Of shmem they got 38 to 118 MiB where at least 0.79 of the holes lay in even frames, and 2 and 4 where next to none did. The
# model's got all 128 there, and 12 here; why is not known. Between the two nothing was seen.
LEAST_FAULTS: Final = FAULTS * BLOCK // 8
MOSTLY_EVEN: Final = 0.75  # of the holes
# Compaction won more of shmem than of guest_memfd by 0.62 of the holes in even frames and upwards (nineteen runs of 0.5 to
# 8 GiB; 6.18.15 and 6.18.44, November 2026); it stops early at times (L23), and where next to no holes lay in even frames it
# won 2 MiB more of 1 GiB once. What others free or take meanwhile counts as won, too: -40 to 32 MiB, once 388 MiB over 8 GiB.
# Beside a busy test run it won 0.27 of 0.5 GiB, and of a quarter as little as of guest_memfd.
LEAST_WON: Final = 0.25
OTHERS_SHARE: Final = 1 / 8  # of the holes
LEAST_TO_TELL: Final = 1 << 30  # bytes of a file; others' share of a smaller one is larger
NULL_MODEL: Final = (
    "pages do not move and blocks have no history: all that is filled turns unmovable, every other page is free, nothing"
    " merges, compaction wins nothing, and pools and huge faults get what was free in 2M chunks before"
)
TITLES: Final = {
    "turned": "turned unmovable",
    "freed": "freed by punches",
    "huge": "of it in 2M chunks",
    "pool": "pool gets",
    "faults": "huge faults get",
    "compacted": "compaction wins",
    "pool_compacted": "pool gets after it",
}
Bounds = tuple[float | None, float | None]


class ModelMachine:
    """A modelled host. Satisfies `kernel.suites.fragmentation.Machine`."""

    def __init__(self, host: Host, odd_frames: str = "") -> None:
        self.host = host
        self.odd_frames = odd_frames  # how the kernel's file lay, where that matters
        self.others = 0  # bytes that compaction would have won without holes

    def open(self, step: Step) -> GuestMemory:
        """An empty file in 4K pages."""
        if step.op == "guest_memfd":
            return self.host.guest_memfd(step.size, "4k-inplace", flags=3)
        return self.host.memory(step.size, SMALL_SHMEM)

    def fill(self, memory: GuestMemory, size: int) -> None:
        """Back all of a file, in odd or even frames as the kernel's lay: where need be, somebody else takes a page first."""
        assert isinstance(memory, ModelMemory)
        others = self.host.memory((TAKEN * len(self.odd_frames) + 1) * PAGE, SMALL_SHMEM)
        for number, odd in enumerate(self.odd_frames):
            memory.allocate(number * BLOCK, PAGE)
            for taken in range(TAKEN * number, TAKEN * (number + 1)):
                if lies_odd(self.host, memory, number * BLOCK) == (odd == "1"):
                    break
                memory.punch_hole(number * BLOCK, PAGE)
                others.allocate(taken * PAGE, PAGE)
                memory.allocate(number * BLOCK, PAGE)
            memory.allocate(number * BLOCK, BLOCK)
        memory.allocate(0, size)

    def punch(self, memory: GuestMemory, offsets: Iterator[int]) -> None:
        """Give single pages back; before, see what compaction would win of the machine as it is."""
        filled = self.host.copy()
        loose = in_blocks(free_by_order(filled))
        filled.compact()
        self.others = in_blocks(free_by_order(filled)) - loose
        for offset in offsets:
            memory.punch_hole(offset, PAGE)

    def free_by_order(self) -> tuple[int, ...]:
        """Free memory in chunks of each order."""
        return free_by_order(self.host)

    def unmovable(self) -> int:
        """Page blocks that are unmovable."""
        return unmovable(self.host)

    def compact(self) -> None:
        """Compact all zones."""
        self.host.compact()

    def fill_pool(self) -> int:
        """Grow the pool by more than there can be."""
        self.host.set_pool("2M", self.host.free_bytes // BLOCK)
        return int(self.host.state.pools[0].nr) * BLOCK

    def empty_pool(self) -> None:
        """Give all of the pool back."""
        self.host.set_pool("2M", 0)

    def huge_faults(self, count: int) -> int:
        """Touch the first page of each 2M."""
        with self.host.memory(count * BLOCK, "anon-thp") as memory:
            return count_huge_faults(memory, count)


def lies_odd(host: Host, memory: ModelMemory, offset: int) -> bool:
    """Whether a page of a file lies in a frame with an odd number."""
    rows = measure.new_listing(1)
    measure.list_pages(host.state, memory.file, offset // PAGE, rows)
    return bool(rows[0, 0] % 2)


class ModelFragmentation:
    """The experiment on modelled hosts. Satisfies `measured.MeasuredWorld`."""

    null_model = NULL_MODEL

    def take(self, step: Step, texts: Mapping[str, str]) -> Seen:
        """Fill, punch, exhaust and compact.

        What compaction would have won of others' memory, unless a pool had it first, is left out: the kernel had compacted all
        that it could move just before, and a snapshot does not say what it could not.
        """
        if step.op == "shmem" and exhausts(step) and ODD_FRAMES not in texts:
            raise UsageError("the recording does not say where the file lay", key=ODD_FRAMES, allowed="one of this version")
        machine = ModelMachine(host_of(texts), texts.get(ODD_FRAMES, ""))
        counts = experiment(machine, step)
        counts["compacted"] -= 0 if exhausts(step) else machine.others
        machine.host.audit()
        return Seen(0, step.size // (2 * PAGE), counters=counts)

    def comparisons(self, compared: Compared) -> list[Comparison]:
        """Each figure of each kind of memory, and how much more compaction wins of one than of the other."""
        found = [one for step, model, kernel in compared for one in compare(step, model, kernel)]
        found += compare_kinds(compared)
        return [*found, beats_null(found)]


def compare(step: Step, model: Seen, kernel: Seen) -> Iterator[Comparison]:
    """Hold the figures of one kind of memory against the kernel's.

    Args:
        step: which kind, and how much of it.
        model: what the model showed.
        kernel: what the kernel showed.
    """
    slack = SLACK_SHARE * step.size + SLACK
    null, limits = null_figures(step, kernel), bounds(step, model, slack, even_holes(kernel))
    yield _compare_orders(step, model, kernel, slack)
    for name in [name for name in TITLES if name in kernel.counters]:
        here, there, simple = kernel.counters[name], model.counters[name], null[name]
        least, most = limits[name]
        holds = all((least is None or figure >= least) and (most is None or figure <= most) for figure in (here, there))
        far, further = (min(1.0, abs(other - here) / step.size) for other in (there, simple))
        yield Comparison(f"{step.op}: {TITLES[name]}", (here,), (there,), (simple,), far, further, _rule(least, most), holds)


def compare_kinds(compared: Compared) -> Iterator[Comparison]:
    """Hold what compaction wins of the holes of movable memory against what it wins of unmovable memory's (L23).

    It is much more: at least a share of the holes that lie where the scanners look, in the kernel and in the model. Nothing
    comes of a recording that has one kind only, or little of it, or does not say where the file lay.

    Args:
        compared: both kinds of memory.
    """
    kinds = {step.op: (step, model, kernel) for step, model, kernel in compared}
    if kinds.keys() != {"shmem", "guest_memfd"} or not kinds["shmem"][2].texts.get(ODD_FRAMES):
        return
    (step, *movable), (other, *unmovable) = kinds["shmem"], kinds["guest_memfd"]
    if step.size < LEAST_TO_TELL:
        return
    there, here = (won(step, one) - won(other, two) for one, two in zip(movable, unmovable, strict=True))
    least = (LEAST_WON * even_holes(movable[1]) - OTHERS_SHARE) * (step.size // 2)
    far, further = min(1.0, abs(there - here) / step.size), min(1.0, abs(here) / step.size)
    holds = min(here, there) >= least
    yield Comparison("both: shmem wins more by", (here,), (there,), (0,), far, further, _rule(least, None), holds)


def won(step: Step, seen: Seen) -> int:
    """What came back in 2M chunks of a file's holes, in bytes: all that a pool has at last, where there is one."""
    if exhausts(step):
        return seen.counters["pool_compacted"] - in_blocks(from_counters("punched", seen.counters))
    return seen.counters["compacted"]


def even_holes(kernel: Seen) -> float:
    """The share of the holes that lie in even frames, where the scanners look: those of 2M that begin in odd ones."""
    odd_frames = kernel.texts.get(ODD_FRAMES, "")
    return odd_frames.count("1") / max(1, len(odd_frames))


def bounds(step: Step, model: Seen, slack: float, even: float) -> dict[str, Bounds]:
    """What the kernel and the model may show at least and at most, in bytes.

    Unmovable memory tells all, but for what others do meanwhile. Movable memory turns no block unmovable, but takes blocks that
    others left unmovable, itself at most; how much of its holes compaction or the first pool gets has bounds only, but what a
    pool has at last is the model's, which drops page cache for it, too (K22). Huge faults then win something where the holes
    are found, and hardly more than the model's where not; `compare_kinds` says what is won of them at least.

    Args:
        step: which kind of memory.
        model: what the model showed.
        slack: bytes for what others do.
        even: share of the holes that lie in even frames.
    """
    found: dict[str, Bounds] = {name: (figure - slack, figure + slack) for name, figure in model.counters.items()}
    if exhausts(step):
        faults = model.counters["faults"]
        found["faults"] = (faults - FAULTS_SLACK, faults + FAULTS_SLACK)
    if step.op == "shmem":
        holes, turned = step.size // 2, model.counters["turned"]
        found["turned"] = (turned - slack if turned > 0 else turned - step.size - slack, turned + slack)
        found["compacted"] = (-slack, holes + slack)
        if exhausts(step):
            loose = in_blocks(from_counters("punched", model.counters))
            most = loose + holes + slack
            found["pool"] = (loose - slack, most)
            found["faults"] = (LEAST_FAULTS if even >= MOSTLY_EVEN else None, faults + FAULTS_SLACK)
            last, share = model.counters["pool_compacted"], LAST_POOL_SHARE * step.size
            found["pool_compacted"] = (last - share, last + share)
    return found


def null_figures(step: Step, kernel: Seen) -> dict[str, int]:
    """What simple arithmetic says, in bytes; `NULL_MODEL` in words.

    Args:
        step: how much memory is filled.
        kernel: tells what was free before.
    """
    rest = in_blocks(from_counters("before", kernel.counters)) - step.size
    return {
        "turned": step.size, "freed": step.size // 2, "huge": 0, "pool": rest, "faults": 0, "compacted": 0,
        "pool_compacted": rest,
    }  # fmt: skip


def null_orders(step: Step, kernel: Seen) -> list[int]:
    """Free memory by order after the punches, as arithmetic has it: the file came out of the largest chunks.

    Args:
        step: how much memory is filled.
        kernel: tells what was free before.
    """
    before = list(from_counters("before", kernel.counters))
    before[-1] -= step.size
    before[0] += step.size // 2
    return before


def _compare_orders(step: Step, model: Seen, kernel: Seen, slack: float) -> Comparison:
    here, there = (shares(from_counters("punched", seen.counters)) for seen in (kernel, model))
    simple = shares(null_orders(step, kernel))
    most = slack / max(1, sum(from_counters("punched", kernel.counters)))
    far = distance(here, there)
    return Comparison(
        f"{step.op}: free by order", here, there, simple, far, distance(here, simple), f"at most {most:.1%}", far <= most
    )


def _rule(least: float | None, most: float | None) -> str:
    """What the kernel's figure must be, in words."""
    if least is None or most is None:
        return f"at most {signed_size(most)}" if most is not None else f"at least {signed_size(least or 0)}"
    return f"{signed_size(least)} to {signed_size(most)}"


def world(facts: dict[str, Any]) -> ModelFragmentation:
    """The world for a recording.

    Args:
        facts: of the recording; none are needed.
    """
    return ModelFragmentation()
