"""The model's world for the suite `order` (L21): how many frames come back in reverse, beside a null model."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from gmemlab.kernel.suites.order import HUGE, UNITS, best_cycle, give_and_take, shuffled, stride
from gmemlab.kernel.suites.steps import PAGE, Seen, Step
from gmemlab.lab.conform.measured import Compared, Comparison, beats_null
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host
from gmemlab.model.observe import file_pages

# Other tasks of the CPU take and give pages meanwhile; each costs up to two places of the order.
TOLERATED: Final = 4
TOLERATED_SHARE: Final = 0.05
FEW: Final = 8  # so few are soon done: one may be amiss
NULL_MODEL: Final = "no CPU keeps lists: what is freed merges at once, and the smallest chunk is handed out first"
TITLES: Final = {
    "pages": "every other page",
    "page run": "all pages of a range",
    "folios": "every other 2M folio",
    "folio run": "all 2M folios of a range",
}


class ModelOrder:
    """Cycles on an empty modelled host, as large as the kernel's. Satisfies `measured.MeasuredWorld`.

    Args:
        size: of the host's memory in bytes.
        cpus: that keep lists of their own.
    """

    null_model = NULL_MODEL

    def __init__(self, size: int, cpus: int) -> None:
        size -= size % HUGE
        self.host = Host(size, cpus=cpus)
        self.null_host = Host(size)

    def take(self, step: Step, texts: Mapping[str, str]) -> Seen:
        """The best of some cycles, as of the kernel: lists that start empty do not hold all of 20 folios at first."""
        count = step.size // UNITS[step.op]
        best = best_cycle(partial(cycle, self.host, step), count)
        counts = {"of": count, "reversed": best, "null": cycle(self.null_host, step)}
        self.host.audit()
        self.null_host.audit()
        return Seen(0, count, counters=counts)

    def comparisons(self, compared: Compared) -> list[Comparison]:
        """What came back in reverse, of all steps of a kind."""
        kinds = [[one for one in compared if one[0].op == op] for op in TITLES]
        found = [compare(steps) for steps in kinds if steps]
        return [*found, beats_null(found)]


def cycle(host: Host, step: Step) -> int:
    """Give back and take again; how many came back in reverse order."""
    size, unit = stride(step) * step.size, UNITS[step.op]
    memory = host.memory(size, "shmem-thp") if unit == HUGE else host.guest_memfd(size, "4k-inplace", flags=3)
    return give_and_take(memory, step, shuffled(step), lambda: taken(host, memory, unit))


def taken(host: Host, memory: GuestMemory, unit: int) -> list[int]:
    """First frame of every page or folio."""
    return [page.pfn for page in file_pages(host.state, memory.file)[:: unit // PAGE]]


def compare(compared: Compared) -> Comparison:
    """Hold what came back in reverse against the kernel's, in bytes of all steps of one kind.

    Args:
        compared: the steps.
    """
    op = compared[0][0].op
    total, here, there, simple = (
        sum(seen.counters[name] * UNITS[op] for seen in seens)
        for name, seens in (
            ("of", [kernel for _, _, kernel in compared]),
            ("reversed", [kernel for _, _, kernel in compared]),
            ("reversed", [model for _, model, _ in compared]),
            ("null", [model for _, model, _ in compared]),
        )
    )
    return Comparison(
        f"came back in reverse: {TITLES[op]}",
        (here,),
        (there,),
        (simple,),
        abs(here - there) / total,
        abs(here - simple) / total,
        f"the model's each time, but for {TOLERATED} of them or {TOLERATED_SHARE:.0%}",
        all(is_near(model, kernel) for _, model, kernel in compared),
    )


def is_near(model: Seen, kernel: Seen) -> bool:
    """Whether one step shows the same in both worlds, but for what other tasks of the CPU took meanwhile."""
    count = kernel.counters["of"]
    apart = abs(kernel.counters["reversed"] - model.counters["reversed"])
    return model.counters["of"] == count and apart <= (max(TOLERATED, TOLERATED_SHARE * count) if count > FEW else 1)


def world(facts: dict[str, Any]) -> ModelOrder:
    """The world for a recording.

    Args:
        facts: of the recording: `bytes` and `cpus` of the machine.
    """
    return ModelOrder(int(facts["bytes"]), int(facts["cpus"]))
