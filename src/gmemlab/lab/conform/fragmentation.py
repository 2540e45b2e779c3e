"""The model's world for the suite `fragmentation` (L22, L23): inequalities, as the rest of the machine goes on meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from gmemlab.core import layout
from gmemlab.core.layout import UNMOVABLE
from gmemlab.kernel.suites.fragmentation import alternate
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Seen, Step
from gmemlab.model.host import BLOCK_SIZE, Host
from gmemlab.model.machine import free_in_blocks
from gmemlab.policy import find
from gmemlab.units import format_size

LEAST_WON: Final = 3  # compaction wins a third of what it may in movable memory
SLACK: Final = 0.12  # of the file's size: other processes allocate and free meanwhile


class ModelFragmentation:
    """An empty modelled host. Satisfies `judge.ModelWorld`."""

    def __init__(self) -> None:
        self.host = Host("4G")
        self.counts: dict[str, int] = {}
        self.size = 0

    def apply(self, step: Step) -> tuple[int, int]:
        """Fill, punch and compact."""
        movable = step.op == "shmem"
        small = find("shmem-thp").with_choices({"sizes": "4K", "fallocate_sizes": "4K"})
        memory = self.host.memory(step.size, small) if movable else self.host.guest_memfd(step.size, "4k-inplace", flags=3)
        before = self.unmovable()
        memory.allocate()
        now = self.unmovable()
        free, huge = self.host.free_bytes, free_in_blocks(self.host.state)
        for offset in alternate(step.size):
            memory.punch_hole(offset, PAGE)
        freed, huge_freed = self.host.free_bytes - free, (free_in_blocks(self.host.state) - huge) * PAGE
        self.host.compact()
        compacted = (free_in_blocks(self.host.state) - huge) * PAGE
        memory.close()
        self.size = step.size
        self.counts = {
            "unmovable": now * BLOCK_SIZE, "turned": (now - before) * BLOCK_SIZE, "freed": freed, "huge": huge_freed,
            "compacted": compacted,
        }  # fmt: skip
        return 0, step.size // PAGE

    def unmovable(self) -> int:
        """Page blocks of memory in use or free that are unmovable."""
        blocks = self.host.state.blocks
        used = (blocks["kind"] != layout.HOLE) & (blocks["kind"] != layout.RESERVED)
        return int(np.count_nonzero(used & (blocks["migratetype"] == UNMOVABLE)))

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What came of the last step, in bytes."""
        return {}, self.counts

    def compare(self, model: Seen, kernel: Seen) -> list[str]:
        """What the kernel showed lies within what the model allows.

        At least as many blocks are unmovable, as the kernel has others, too; and no more turned so. Compaction wins nothing
        where pages are unmovable; in movable memory at least a third of the holes, and all of them at most, as it ends early
        where the file lies in the part of the zone that it takes free pages from (L23).
        """
        slack = int(SLACK * self.size)
        bounds = {
            "unmovable": (model.counters["unmovable"] - slack, None),
            "turned": (None, model.counters["turned"] + slack),
            "freed": (model.counters["freed"] - slack, model.counters["freed"] + slack),
            "huge": (None, model.counters["huge"] + slack),
            "compacted": (model.counters["compacted"] // LEAST_WON - slack, model.counters["compacted"] + slack),
        }
        return [
            self.text(name, kernel, model)
            for name, (least, most) in bounds.items()
            if (least is not None and kernel.counters[name] < least) or (most is not None and kernel.counters[name] > most)
        ]

    def text(self, name: str, kernel: Seen, model: Seen) -> str:
        """One line about a counter."""
        one, other = kernel.counters[name], model.counters[name]
        return f"{name}: kernel {'-' if one < 0 else ''}{format_size(abs(one))}, model {format_size(other)}"

    def close(self) -> None:
        """See that nothing is lost."""
        self.host.audit()


def world(facts: dict[str, Any]) -> ModelFragmentation:
    """The world for a recording.

    Args:
        facts: of the recording; none are needed.
    """
    return ModelFragmentation()
