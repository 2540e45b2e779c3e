"""One long trace of mixed operations, and a hash of every table of the state that it leaves: `python long_trace.py`.

The trace is the same in every process. It goes through the object API's entry point first, then through the event runner,
on one host with two zones, a pool of 2 MiB pages and one 1 GiB page, short of memory most of the time.
"""

import hashlib
import json
from collections import Counter
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core_world import CoreWorld
from gmemlab.core import layout, run
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    BLOCK_PAGES,
    GIGA_ORDER,
    HOST,
    OP_ACCESS,
    OP_ALLOCATE,
    OP_DESTROY,
    OP_PIN,
    OP_PUNCH,
    OP_READY,
    OP_REFERENCE,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    OP_UNPIN,
    OP_UNREFERENCE,
    PRIVATE,
    SHARED,
    TOUCH,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from gmemlab.workload.stream import NO_VM
from players import BACKGROUND, POLICIES, oracle_policy

NR_BLOCKS: Final = 1100
ROOM: Final = 14  # blocks of the Normal zone that are left to the guests and the background
BACKGROUND_PAGES: Final = 3072
GUESTS: Final = 8
SIZES: Final = (512, 1024, 1536, 2048)
ODD_SIZES: Final = (512, 700, 1300, 2048)
POLICY_NAMES: Final = [name for name, policy in POLICIES.items() if policy.orders[-1] < layout.GIGA_ORDER]
RUNNER_POLICY: Final = "thp-inplace[merge=eager]"
ACCESSES: Final = [PRIVATE, PRIVATE, SHARED, HOST, PRIVATE + 4 * ACCEPT_4K, PRIVATE + 4 * ACCEPT_2M, PRIVATE + 4 * TOUCH]
HELD: Final = {OP_PIN: OP_UNPIN, OP_REFERENCE: OP_UNREFERENCE}  # what undoes it
TICKS: Final = (layout.OP_KHUGEPAGED, layout.OP_KCOMPACTD)
HOLDS: Final = [*HELD, *HELD.values()]
GUEST_OPERATIONS: Final = [OP_ALLOCATE, *HOLDS, *2 * [OP_TO_PRIVATE, OP_TO_SHARED, OP_PUNCH], *3 * [OP_ACCESS]]


def pages_of(random: Random, size: int, huge: int = BLOCK_PAGES) -> tuple[int, int]:
    """First page and count of a range in a file: a huge page, several, some pages, or one."""
    shape = random.choice(("huge", "huge", "all", "some", "few", "few", "few", "one", "one", "beyond"))
    if shape == "all":
        return 0, size
    if shape == "huge":
        return random.randrange(-(-size // huge)) * huge, huge
    first = random.randrange(size)
    if shape == "beyond":
        return first, size
    return first, random.randint(1, min({"some": 700, "few": 20, "one": 1}[shape], size - first))


def stream(random: Random, count: int) -> NDArray[Any]:
    """Events for the runner: guests come, boot, work and go; the background takes and gives."""
    table = np.zeros(count, layout.EVENT)
    for row in range(count):
        op = random.choice([layout.OP_CREATE, OP_READY, OP_DESTROY, *GUEST_OPERATIONS, *GUEST_OPERATIONS])
        vm = random.randrange(GUESTS)
        first, pages = pages_of(random, max(SIZES))
        if row < GUESTS:
            op, vm = layout.OP_CREATE, row
        elif random.randrange(6) == 0:
            op = random.choice((layout.OP_HOST_ALLOCATE, layout.OP_HOST_FREE))
            vm = random.choice((layout.HOST_UNMOVABLE, layout.HOST_MOVABLE))
        if random.randrange(12) == 0:
            op, vm, first, pages = random.choice(TICKS), NO_VM, 0, 10_000
        if op in HOLDS:
            first, pages = first % 16, 2
        arg = random.choice(ACCESSES) if op == OP_ACCESS else 0
        table[row] = (row, vm, op, arg, first, pages)
    return table


class Trace:
    """A host and what happened on it: every result, and how often each operation ended with each errno."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        structs = set(range(1, 19))
        zones = [(1095, 1101, ZONE_MOVABLE, 0), (1, 1095, ZONE_NORMAL, 700)]
        self.world = CoreWorld(zones, structs, NR_BLOCKS)
        self.results: list[tuple[int, int]] = []
        self.outcomes: Counter[tuple[int, int]] = Counter()
        self.files: list[tuple[str, int, int]] = []  # policy, file, pages
        self.holds: list[tuple[int, int, int, int]] = []  # what releases it, file, first page, pages
        self.results.append(self.world.grow_pool(GIGA_ORDER, 1, True))
        self.results.append(self.world.grow_pool(layout.BLOCK_ORDER, 8, True))
        free = int(self.world.state.zones[1].free)
        self.ballast = self.create("4k-host", free - ROOM * BLOCK_PAGES)
        self.call(OP_ALLOCATE, self.ballast, 0, free - ROOM * BLOCK_PAGES)
        self.background = [self.create(f"{kind}-host", BACKGROUND_PAGES) for kind in ("unmovable", "movable")]

    def create(self, name: str, pages: int) -> int:
        """Create a file under a policy by name, or one of the host's own. Returns 0 where that failed."""
        policy = BACKGROUND[name == "movable-host"] if name.endswith("-host") else oracle_policy(POLICIES[name])
        error, file = self.world.create(pages, policy)
        self.results.append((error, file))
        return file

    def call(self, op: int, file: int, first: int, count: int, arg: int = 0) -> int:
        """One operation. Returns its errno."""
        result = self.world.run(op, file, first, count, arg)
        self.results.append(result)
        self.outcomes[op, result[0]] += 1
        return result[0]

    def replace_guest(self) -> None:
        """The oldest guest leaves where there are enough, and one of a random policy comes."""
        if len(self.files) >= GUESTS or (self.files and self.random.randrange(3) == 0):
            _, file, _ = self.files.pop(0)
            self.world.destroy(file)
            self.holds = [hold for hold in self.holds if hold[1] != file]
        name = self.random.choice(POLICY_NAMES)
        pages = self.random.choice(SIZES if POLICIES[name].unit > 4096 else ODD_SIZES)
        file = self.create(name, pages)
        if file:
            self.files.append((name, file, pages))

    def step(self) -> None:
        """One random operation on a guest, or on the host's background."""
        if not self.files or self.random.randrange(40) == 0:
            self.replace_guest()
        elif self.random.randrange(16) == 0:
            op = self.random.choice(TICKS)
            self.results.append(self.world.tick(op, 10_000))
            self.outcomes[op, 0] += self.results[-1][1] > 0  # it did something
        elif self.random.randrange(8) == 0:
            file = self.random.choice(self.background)
            self.call(self.random.choice((OP_ALLOCATE, OP_PUNCH)), file, *pages_of(self.random, BACKGROUND_PAGES))
        else:
            _, file, pages = self.random.choice(self.files)
            self.operate(file, self.random.choice(GUEST_OPERATIONS), *pages_of(self.random, pages))

    def operate(self, file: int, op: int, first: int, count: int) -> None:
        """One operation on one guest; what is released was mostly held."""
        if op in HELD.values() and self.holds and self.random.randrange(5):
            op, file, first, count = self.holds.pop(self.random.randrange(len(self.holds)))
        if op in HELD:
            count = min(count, 5)
            if self.random.randrange(3):
                self.prepare(op, file, first, count)
        error = self.call(op, file, first, count, self.random.choice(ACCESSES) if op == OP_ACCESS else 0)
        if op in HELD and not error:
            self.holds.append((HELD[op], file, first, count))

    def prepare(self, op: int, file: int, first: int, count: int) -> None:
        """Make pages such that they can be held, most likely: present, and shared for a pin."""
        if op == OP_PIN:
            self.call(OP_TO_SHARED, file, first, count)
        self.call(OP_ACCESS, file, first, count, SHARED if op == OP_PIN else PRIVATE)

    def giga(self) -> None:
        """A guest of one 1 GiB page: split for a shared page, merged, split again and left like that."""
        file = self.create("hugetlb-1g-2m", 1 << GIGA_ORDER)
        for op, first, count, arg in (
            (OP_ACCESS, 0, 1 << GIGA_ORDER, PRIVATE),
            (OP_TO_SHARED, 1000, 3, 0),
            (OP_ACCESS, 1000, 2, SHARED),
            (OP_PIN, 1001, 1, 0),
            (OP_TO_PRIVATE, 1000, 2, 0),
            (OP_UNPIN, 1001, 1, 0),
            (OP_TO_PRIVATE, 1000, 3, 0),
            (OP_TO_SHARED, 5000, 1, 0),
            (OP_ACCESS, 0, 5000, PRIVATE + 4 * ACCEPT_4K),
        ):
            self.call(op, file, first, count, arg)

    def run(self, events: NDArray[Any], budget: int) -> None:
        """Hand a stream to the event runner in slices."""
        state = self.world.state
        guests = np.zeros(GUESTS, layout.GUEST).view(np.recarray)
        guests.pages = np.resize(np.array(ODD_SIZES), GUESTS)
        guests.slot_count[:, 0] = 160
        guests.slot_gfn[:, 1] = guests.slot_offset[:, 1] = 160
        guests.slot_count[:, 1] = guests.pages - 160
        vms = np.zeros(GUESTS, layout.VM).view(np.recarray)
        cursor = np.zeros(1, layout.CURSOR).view(np.recarray)
        background = np.array([self.world.files[file] for file in self.background], dtype=np.int64)
        policy = self.world.policy(oracle_policy(POLICIES[RUNNER_POLICY]))
        while cursor[0].event < len(events):
            run.run(state, events.view(np.recarray), vms, guests, background, policy, 0, cursor, budget)
            self.results.append((int(cursor[0].event), int(cursor[0].done)))
        self.results += [(int(vm.status), int(vm.file)) for vm in vms]


def used_bytes(table: NDArray[Any]) -> bytes:
    """The bytes of a table up to the last one that is not zero."""
    content = table.view(np.ndarray).reshape(-1).view(np.uint8)
    step = 1 << 24
    for start in range(len(content) // step * step, -1, -step):
        found = np.flatnonzero(content[start : start + step])
        if len(found):
            return content[: start + int(found[-1]) + 1].tobytes()
    return b""


def digests(steps: int, audited: bool) -> dict[str, str]:
    """Play the trace. Returns a hash of every table and of all results, by name, and what happened in `outcomes`."""
    trace = Trace("long")
    for step in range(steps):
        if step == steps // 2:
            trace.giga()
        trace.step()
    trace.run(stream(trace.random, steps // 2), 3000)
    if audited:
        trace.world.check()
    state = trace.world.state
    tables = {name: used_bytes(getattr(state, name)) for name in state._fields if name != "table"}
    tables["results"] = repr(trace.results).encode()
    found = {name: f"{len(content)} {hashlib.sha256(content).hexdigest()}" for name, content in tables.items()}
    found["outcomes"] = json.dumps(sorted([*key, count] for key, count in trace.outcomes.items()))
    return found


STEPS: Final = 2200

if __name__ == "__main__":
    print(json.dumps(digests(STEPS, audited=False)))
