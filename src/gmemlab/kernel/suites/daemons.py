"""The suite `daemons`: what khugepaged makes of memory in 4K pages with holes, and when kcompactd works by itself (L15).

Each 2M of a file loses a few pages, none, most or all. Then khugepaged goes round, quickly: what may be filled under
`max_ptes_none` is one folio afterwards, and charged in full. A file of which every other page is free is too much for kcompactd
at a `compaction_proactiveness` of 100, and nothing ever is at 1; how far it scans then differs from run to run (0.02G to 11G on
a machine of 24G), so that only whether it does is compared. The holes come to 2 % of the free memory on machines of up to 40G:
what is less counts as nothing, but on a kernel that has not handed out all memory yet, where it is a share of the rest. The
shrinkers of deferred splits and of zeros (L16, L17) are held against the kernel step by step, by the suite `anon`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import abi
from gmemlab.kernel.calls import madvise
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.free_memory import read_files
from gmemlab.kernel.observe.vmstat import read_count, read_vmstat
from gmemlab.kernel.quiet import on_one_cpu
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites import anon, thp
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.protocol import GuestMemory

BLOCK: Final = 2 << 20
KINDS: Final = ("anonymous", "shmem")
FILLED: Final = (0, 100, 511)  # max_ptes_none
HOLES: Final = (0, 0, 1, 100, 101, 400, 511, 512)  # pages that a 2M loses
BLOCKS: Final = 32  # of a file that khugepaged sees
FRAGMENTED: Final = 2 << 30  # bytes of one that kcompactd does
PROACTIVENESS: Final = (1, 100)  # at which no hole is too many, and any
KHUGEPAGED: Final = "sys/kernel/mm/transparent_hugepage/khugepaged"
PROACTIVE: Final = "proc/sys/vm/compaction_proactiveness"
SCANNED: Final = "compact_daemon_migrate_scanned"
ROUNDS: Final = 3  # full scans that are waited for: what was busy in one is not in the next
PATIENCE: Final = 30.0  # seconds for them
KCOMPACTD_SECONDS: Final = 2.0
_LIVE: Final = Path("/")


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many steps: `file` is where the holes are drawn from, `arg` the setting."""
    for number in range(count):
        if number % 4 == 3:
            yield Step("kcompactd", random.randrange(1 << 30), 0, FRAGMENTED, PROACTIVENESS[number // 4 % 2 - 1])
        else:
            yield Step(random.choice(KINDS), random.randrange(1 << 30), 0, BLOCKS * BLOCK, random.choice(FILLED))


def punch(step: Step, memory: GuestMemory) -> int:
    """Make a file's holes: every other page for kcompactd. Returns how many pages went."""
    random, gone = Random(step.file), 0
    for base in range(0, step.size, BLOCK):
        pages: Sequence[int] = range(0, 512, 2)
        if step.op != "kcompactd":
            pages = sorted(random.sample(range(512), random.choice(HOLES)))
        for page in pages:
            memory.punch_hole(base + page * PAGE, PAGE)
        gone += len(pages)
    return gone


class Machine(Protocol):
    """What the experiment needs of the running kernel, or of the model."""

    def open(self, step: Step) -> GuestMemory:
        """A file of the step's kind and size, filled with 4K pages."""

    def repair(self, memory: GuestMemory, max_ptes_none: int) -> None:
        """Let khugepaged go round."""

    def compact(self, proactiveness: int) -> int:
        """Let kcompactd work. Returns how many pages it scanned for what can be moved."""


def experiment(machine: Machine, step: Step) -> dict[str, int]:
    """Fill, punch, and wait for a daemon. Returns bytes, by name."""
    memory = machine.open(step)
    left = step.size - punch(step, memory) * PAGE
    counts = {"left": left}
    if step.op == "kcompactd":
        counts["works"] = step.size if machine.compact(step.arg) else 0
    else:
        machine.repair(memory, step.arg)
        counts["huge"] = sum(extent.size for extent in memory.layout() if extent.folio == BLOCK)
        counts["charged"] = memory.usage().charged
    memory.close()
    return counts


class LiveMachine:
    """The running kernel. Satisfies `Machine`.

    Args:
        settings: that are put back.
    """

    def __init__(self, settings: Settings) -> None:
        self.host = LiveHost()
        self.settings = settings

    def open(self, step: Step) -> LiveMemory:
        """A file in 4K pages, which khugepaged may see later."""
        self.allow("never")
        memory: LiveMemory = self.host.anonymous(step.size) if step.op == "anonymous" else self.host.shmem(step.size)
        memory.allocate()
        memory.map_present()
        return memory

    def allow(self, anonymous: str) -> None:
        """Say which memory gets huge pages."""
        self.settings.set(anon.SETTING, anonymous)
        self.settings.set(thp.SETTING, "never" if anonymous == "never" else "within_size")

    def repair(self, memory: GuestMemory, max_ptes_none: int) -> None:
        """Let khugepaged go round."""
        assert isinstance(memory, LiveMemory)
        self.settings.set(f"{KHUGEPAGED}/max_ptes_none", max_ptes_none)
        self.settings.set(f"{KHUGEPAGED}/pages_to_scan", 1 << 20)
        self.settings.set(f"{KHUGEPAGED}/alloc_sleep_millisecs", 10)
        self.allow("madvise")
        madvise(memory.address, memory.size, abi.MADV_HUGEPAGE)  # from here on it is on khugepaged's list
        wanted = read_count(_LIVE, f"{KHUGEPAGED}/full_scans") + ROUNDS
        self.settings.set(f"{KHUGEPAGED}/scan_sleep_millisecs", 10)
        end = time.monotonic() + PATIENCE
        while read_count(_LIVE, f"{KHUGEPAGED}/full_scans") < wanted:
            if time.monotonic() > end:
                raise UnsupportedError("a khugepaged that goes round", f"not {ROUNDS} times in {PATIENCE:.0f} s")
            time.sleep(0.02)
        self.settings.set(f"{KHUGEPAGED}/scan_sleep_millisecs", 3_600_000)
        memory.map_present()

    def compact(self, proactiveness: int) -> int:
        """Raise the setting, which wakes kcompactd, and count what it scans."""
        before = read_vmstat()
        self.settings.set(PROACTIVE, proactiveness)
        time.sleep(KCOMPACTD_SECONDS)
        self.settings.set(PROACTIVE, 0)
        return read_vmstat().difference(before)[SCANNED]


class LiveDaemons:
    """The experiments on the running kernel. Satisfies `steps.World` and `steps.ReadsFiles`.

    Args:
        settings: that are put back.
    """

    def __init__(self, settings: Settings) -> None:
        self.machine = LiveMachine(settings)
        self.counts: dict[str, int] = {}
        self.texts: Mapping[str, str] = {}

    def apply(self, step: Step) -> tuple[int, int]:
        """One experiment."""
        with on_one_cpu():
            self.texts = read_files()
            self.counts = experiment(self.machine, step)
        return 0, 1

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What came of the last step, in bytes."""
        return {}, self.counts

    def close(self) -> None:
        """Free everything."""
        with suppress(OSError):
            self.machine.host.close()


def live(settings: Settings) -> tuple[LiveDaemons, dict[str, Any]]:
    """The running kernel's world."""
    if SCANNED not in read_vmstat():
        raise UnsupportedError("proactive compaction", f"{SCANNED} is not in /proc/vmstat (5.9)")
    settings.set(PROACTIVE, 0)
    return LiveDaemons(settings), {}
