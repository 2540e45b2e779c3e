"""The model's world for the suite `order` (L21)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gmemlab.kernel.suites.order import HUGE, UNITS, give_and_take, shuffled, stride
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Seen, Step
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host
from gmemlab.model.observe import file_pages

# Other tasks of the CPU take and give pages meanwhile; each costs up to two places of the order.
TOLERATED: Final = 4
TOLERATED_SHARE: Final = 0.05
FEW: Final = 8  # so few are soon done: one may be amiss


class ModelOrder:
    """Cycles on an empty modelled host. Satisfies `judge.ModelWorld`.

    Args:
        cpus: that keep lists of their own. The null model is a host without: what is freed merges at once.
    """

    def __init__(self, cpus: int = 1) -> None:
        self.host = Host("1G", cpus=cpus)
        self.counts: dict[str, int] = {}

    def apply(self, step: Step) -> tuple[int, int]:
        """One cycle."""
        memory, order = self.open(step), shuffled(step)
        back = give_and_take(memory, step, order, lambda: self.taken(memory, UNITS[step.op]))
        self.counts = {"of": len(order), "reversed": back}
        return 0, len(order)

    def open(self, step: Step) -> GuestMemory:
        """An empty file, as the live world has it."""
        size = stride(step) * step.size
        if UNITS[step.op] == HUGE:
            return self.host.memory(size, "shmem-thp")
        return self.host.guest_memfd(size, "4k-inplace", flags=3)

    def taken(self, memory: GuestMemory, unit: int) -> list[int]:
        """First frame of every page or folio."""
        return [page.pfn for page in file_pages(self.host.state, memory.file)[:: unit // PAGE]]

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """How many there were, and how many came back in reverse order."""
        return {}, self.counts

    def compare(self, model: Seen, kernel: Seen) -> list[str]:
        """The model reverses all; so must the kernel, but for what other tasks of the CPU took meanwhile."""
        count, back = model.counters["of"], model.counters["reversed"]
        least = back - max(TOLERATED, int(TOLERATED_SHARE * back)) if count > FEW else back - 1
        if kernel.counters["of"] != count or kernel.counters["reversed"] < least:
            return [f"came back in reverse order: kernel {kernel.counters['reversed']}, model {back}, of {count}"]
        return []

    def close(self) -> None:
        """See that nothing is lost."""
        self.host.audit()


def world(facts: dict[str, Any]) -> ModelOrder:
    """The world for a recording.

    Args:
        facts: of the recording; none are needed.
    """
    return ModelOrder()
