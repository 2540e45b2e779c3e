"""The model's world for the suite `daemons`: khugepaged to 2M, and whether kcompactd works, beside a null model."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gmemlab.core import layout
from gmemlab.kernel.suites.daemons import BLOCK, KCOMPACTD_SECONDS, experiment
from gmemlab.kernel.suites.steps import PAGE, Seen, Step
from gmemlab.lab.conform.live_host import host_of
from gmemlab.lab.conform.measured import Compared, Comparison, beats_null
from gmemlab.model.daemons import DaemonSettings
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.protocol import GuestMemory

NULL_MODEL: Final = "daemons do nothing: no page is collapsed or filled, and none moves"
BUSY: Final = 1  # 2M of a file that may be missed, as somebody held a page of them all the time
TITLES: Final = {"huge": "in 2M folios", "charged": "charged", "works": "kcompactd works (all or nothing)"}


class ModelMachine:
    """A modelled host. Satisfies `kernel.suites.daemons.Machine`."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def open(self, step: Step) -> GuestMemory:
        """A file in 4K pages, filled. Anonymous memory comes to them by splits, as a policy has one kind of faults."""
        repair = "compaction" if step.op == "kcompactd" else "collapse,compaction"
        self.host.set_daemons(DaemonSettings(compaction_proactiveness=0))
        if step.op != "anonymous":
            memory = self.host.memory(step.size, find("shmem-thp").with_choices({"fallocate_sizes": "4K", "repair": repair}))
            memory.allocate()
            return memory
        memory = self.host.memory(step.size, find("anon-thp").with_choices({"repair": repair}))
        memory.allocate()
        for base in range(0, step.size, BLOCK):
            memory.punch_hole(base, PAGE)
        memory.split_deferred()
        memory.allocate()
        return memory

    def repair(self, memory: GuestMemory, max_ptes_none: int) -> None:
        """Let khugepaged go round."""
        self.host.set_daemons(DaemonSettings(1 << 20, 10, 10, max_ptes_none, 0))
        self.host.tick(11)  # it sleeps for ten seconds first, as it was told before

    def compact(self, proactiveness: int) -> int:
        """Raise the setting, and let the time pass."""
        before = int(self.host.state.tally[layout.TALLY_COMPACT_MIGRATE_SCANNED])
        self.host.set_daemons(DaemonSettings(compaction_proactiveness=proactiveness))
        self.host.tick(KCOMPACTD_SECONDS)
        return int(self.host.state.tally[layout.TALLY_COMPACT_MIGRATE_SCANNED]) - before


class ModelDaemons:
    """The experiments on modelled hosts. Satisfies `measured.MeasuredWorld`."""

    null_model = NULL_MODEL

    def take(self, step: Step, texts: Mapping[str, str]) -> Seen:
        """One experiment."""
        machine = ModelMachine(host_of(texts, step.file))
        counts = experiment(machine, step)
        machine.host.audit()
        return Seen(0, 1, counters=counts)

    def comparisons(self, compared: Compared) -> list[Comparison]:
        """Each figure of each step."""
        found = [one for step, model, kernel in compared for one in compare(step, model, kernel)]
        return [*found, beats_null(found)]


def compare(step: Step, model: Seen, kernel: Seen) -> Iterator[Comparison]:
    """Hold the figures of one step against the kernel's.

    Args:
        step: which daemon, kind of memory and setting.
        model: what the model showed.
        kernel: what the kernel showed.
    """
    for name in [name for name in TITLES if name in kernel.counters]:
        here, there = kernel.counters[name], model.counters[name]
        simple = kernel.counters["left"] if name == "charged" else 0
        rule = f"the model's, but for {BUSY * BLOCK >> 20}M"
        setting = f"proactiveness {step.arg}" if name == "works" else f"{step.op}, max_ptes_none {step.arg}"
        far, further = (min(1.0, abs(other - here) / step.size) for other in (there, simple))
        yield Comparison(
            f"{setting}: {TITLES[name]}", (here,), (there,), (simple,), far, further, rule, abs(here - there) <= BUSY * BLOCK
        )


def world(facts: dict[str, Any]) -> ModelDaemons:
    """The world for a recording.

    Args:
        facts: of the recording; none are needed.
    """
    return ModelDaemons()
