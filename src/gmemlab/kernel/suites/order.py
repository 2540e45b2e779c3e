"""The suite `order`: freed pages are handed out again last in, first out (L21).

Pages of a file are given back in some order and faulted in again, in ascending order: the frame that went last comes back
first. Either every other page, so that no two free ones could merge; or all of a range, where they would, did not the lists of
the CPU keep them apart. 2M folios likewise.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.pages import frames
from gmemlab.kernel.procfs import MEMINFO, parse_meminfo
from gmemlab.kernel.quiet import on_one_cpu
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.protocol import GuestMemory

HUGE: Final = 2 << 20
MOST_PAGES: Final = 4096
MOST_HUGE: Final = 32
UNITS: Final = {"pages": PAGE, "folios": HUGE, "page run": PAGE, "folio run": HUGE}  # what a step gives back, and how large
CYCLES: Final = 20
SETTING: Final = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
LISTS: Final = "proc/sys/vm/percpu_pagelist_high_fraction"  # 0: the kernel chooses how much a CPU keeps, as the model does


def plan(random: Random, count: int) -> Iterator[Step]:
    """Cycles of 4K pages and of 2M folios: `size` is how much is given back, `arg` the seed of the order."""
    for _ in range(count):
        together = random.random() < 0.5
        if random.randrange(4):
            size = PAGE * (1 << random.randrange(MOST_PAGES.bit_length()))
            yield Step("page run" if together else "pages", 0, 0, size, random.randrange(1 << 30))
        else:
            size = HUGE * random.randint(1, MOST_HUGE)
            yield Step("folio run" if together else "folios", 0, 0, size, random.randrange(1 << 30))


def stride(step: Step) -> int:
    """Every how manieth page (or folio) of the file is given back."""
    return 1 if step.op.endswith("run") else 2


def shuffled(step: Step) -> list[int]:
    """The order in which the pages (or folios) are given back."""
    order = list(range(step.size // UNITS[step.op]))
    Random(step.arg).shuffle(order)
    return order


def reversed_count(order: Sequence[int], before: Sequence[int], after: Sequence[int]) -> int:
    """How many frames came back in the reverse of the order in which they went.

    One counts if the frame before it is the one that went right after it; so a frame that another task takes from the stack
    costs one or two, not all that follow.

    Args:
        order: in which the places gave their frames back.
        before: the frame at each place.
        after: the frame that each place then got, ascending.
    """
    place = {before[index]: number for number, index in enumerate(reversed(order))}
    found = [place.get(frame, -2) for frame in after]
    return sum(one + 1 == other for one, other in zip([-1, *found], found, strict=False))


def give_and_take(memory: GuestMemory, step: Step, order: Sequence[int], taken: Callable[[], Sequence[int]]) -> int:
    """Fill memory, give units of it back in an order, take them again, ascending; then close it.

    Args:
        memory: of either world, empty.
        step: says what the units are, and which of them.
        order: in which the places are given back.
        taken: tells the first frame of each unit of the memory.

    Returns:
        How many frames came back in the reverse order.
    """
    unit, every = UNITS[step.op], stride(step)
    places = [(every * place + every - 1) * unit for place in range(len(order))]
    memory.access(0, every * unit * len(order), by="host")
    before = taken()[every - 1 :: every]
    for place in order:
        memory.punch_hole(places[place], unit)
    for offset in places:
        memory.access(offset, unit, by="host")
    found = reversed_count(order, before, taken()[every - 1 :: every])
    memory.close()
    return found


def best_cycle(cycle: Callable[[], int], most: int) -> int:
    """The most that one of some cycles shows; at `most`, no other is tried.

    Args:
        cycle: gives back and takes again, and tells how many frames came back in reverse.
        most: frames.
    """
    best = 0
    for _ in range(CYCLES):
        best = max(best, cycle())
        if best == most:
            break
    return best


class LiveOrder:
    """Cycles on the running kernel, on one CPU. Satisfies `steps.World`."""

    def __init__(self) -> None:
        self.host = LiveHost()
        self.counts: dict[str, int] = {}

    def apply(self, step: Step) -> tuple[int, int]:
        """The best of some cycles: whatever else runs on the CPU takes and gives pages meanwhile."""
        order = shuffled(step)
        with on_one_cpu():
            best = best_cycle(lambda: self.cycle(step, order), len(order))
        self.counts = {"of": len(order), "reversed": best}
        return 0, len(order)

    def cycle(self, step: Step, order: Sequence[int]) -> int:
        """Give back and take again; how many came back in reverse order."""
        unit, size = UNITS[step.op], stride(step) * step.size
        memory: LiveMemory = self.host.shmem(size) if unit == HUGE else self.host.guest_memfd(size)
        return give_and_take(memory, step, order, lambda: self.taken(memory, unit))

    def taken(self, memory: LiveMemory, unit: int) -> list[int]:
        """First frame of every page or folio."""
        return [frame or 0 for frame in frames(memory.address, memory.size)[:: unit // PAGE]]

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """How many there were, and how many came back in reverse order."""
        return {}, self.counts

    def close(self) -> None:
        """Free everything."""
        self.host.close()


def live(settings: Settings) -> tuple[LiveOrder, dict[str, Any]]:
    """The running kernel's world."""
    settings.set(SETTING, "within_size")
    settings.set(LISTS, 0)
    memory = parse_meminfo(Path(MEMINFO).read_text(encoding="utf-8"))
    return LiveOrder(), {"bytes": memory.total, "cpus": os.cpu_count()}
