"""The core and the oracle side by side, taking the same random operations; used by the tests that compare them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from core_world import CoreWorld
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_IN_PLACE,
    ACCEPT_LAUNCH,
    GIGA_BLOCKS,
    GIGA_ORDER,
    GUEST_GENERIC,
    GUEST_SNP,
    GUEST_TDX,
    HOST,
    KIND_HOST,
    NODES_BIND,
    NODES_INTERLEAVE,
    NODES_LOCAL,
    NODES_PREFERRED,
    NODES_SPREAD,
    PIN_SHORT,
    PRIVATE,
    SHARED,
    TOUCH,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from gmemlab.model.policies import CODES, KINDS
from gmemlab.policy import Policy
from gmemlab.presets import PRESETS
from oracle import OracleHost
from oracle_files import OraclePolicy

BACKGROUND: Final = {movable: OraclePolicy(KIND_HOST, (0,), movable=movable) for movable in (False, True)}
BACKGROUND_PAGES: Final = 2048
CPUS: Final = 2
ACCEPTS: Final = (TOUCH, ACCEPT_4K, ACCEPT_2M)


def _variant(preset: str, **choices: str) -> tuple[str, Policy]:
    policy = PRESETS[preset].with_choices(choices)
    return policy.name, policy


POLICIES: Final[dict[str, Policy]] = dict(
    [
        *PRESETS.items(),
        _variant("thp", shared="thp"),
        _variant("thp", split="4k"),
        _variant("thp", punch="zero"),
        _variant("thp", punch="no-op"),
        _variant("thp", punch="refuse"),
        _variant("thp", vmm_punch="private"),
        _variant("thp", truncation="zeroes"),
        _variant("thp-inplace", accept_mark="none"),
        _variant("thp", zone="movable"),
        _variant("thp", shared="thp", zone="movable", repair="collapse,compaction"),
        _variant("thp-migratable", punch="zero"),
        _variant("thp-migratable", punch="no-op"),
        _variant("shmem-thp", zero_scan="on"),
        _variant("ladder", conversion="two-sources"),
        _variant("thp-inplace", merge="eager"),
        _variant("ladder", merge="eager"),
        _variant("hugetlb-2m", merge="lazy", hvo="off"),
        _variant("hugetlb-2m", punch="zero"),
        _variant("hugetlb-2m", punch="no-op"),
        _variant("hugetlb-2m", conversion="two-sources", merge="lazy", vmm_punch="both"),
    ]
)
SMALL: Final = [name for name, policy in POLICIES.items() if policy.orders[-1] < GIGA_ORDER]
GIGA: Final = [name for name in POLICIES if name not in SMALL]
OPERATIONS: Final = (
    "create",
    "allocate",
    "private",
    "shared",
    "host",
    "reserve",
    "collapse",
    "free_lazily",
    "split_deferred",
    "compact",
    "khugepaged",
    "kcompactd",
    "punch",
    "to_shared",
    "to_private",
    "pin",
    "unpin",
    "reference",
    "unreference",
    "background",
    "release",
)
# Outcomes that a policy cannot have, or need not be waited for, and why.
IMPOSSIBLE: Final[dict[tuple[str, str], Callable[[Policy], bool]]] = {
    ("to_shared", "ok"): lambda policy: policy.conversion == "none",  # EOPNOTSUPP
    ("to_private", "ok"): lambda policy: policy.conversion == "none",
    ("reserve", "ok"): lambda policy: policy.memory != "hugetlb",
    ("collapse", "ok"): lambda policy: policy.memory not in ("shmem", "anon"),
    ("free_lazily", "ok"): lambda policy: policy.memory != "anon",
    ("compact", "fail"): lambda policy: True,
    ("split_deferred", "ok"): lambda policy: policy.memory != "anon" and policy.zero_scan == "off",
    ("khugepaged", "ok"): lambda policy: not policy.is_repaired_by("collapse"),
    ("khugepaged", "fail"): lambda policy: not policy.is_repaired_by("collapse"),
    ("kcompactd", "ok"): lambda policy: not policy.is_repaired_by("compaction"),  # only the background moves, as everywhere
}


def oracle_policy(policy: Policy) -> OraclePolicy:
    """A policy in the oracle's numbers."""
    shared = ((9, 0) if policy.shared == "thp" else (0,)) if policy.conversion == "two-sources" else None
    return OraclePolicy(
        kind=KINDS[policy.memory],
        sizes=policy.orders,
        fallocate_sizes=policy.fallocate_orders,
        movable=policy.zone == "movable",
        hvo=policy.hvo == "on",
        shared_sizes=shared,
        **{choice: table[getattr(policy, choice)] for choice, table in CODES.items()},
    )


@dataclass(frozen=True)
class Setting:
    """A host to play on: zones, reserved blocks, blocks, sizes of guests, pages in the pool, blocks that are not MOVABLE."""

    zones: list[tuple[int, int, int, int]]
    reserved: set[int]
    nr_blocks: int
    guest_pages: tuple[int, ...]
    pool: tuple[int, int]
    nodes: list[int] = field(default_factory=list)  # of each zone
    distances: list[list[int]] = field(default_factory=lambda: [[10]])
    types: dict[int, int] | None = None


def setting_for(policy: Policy) -> Setting:
    """A dozen blocks in two zones, short of memory soon; for 1 GiB pages, room for one.

    Guests end within a 2 MiB block where the policy has smaller pages.
    """
    if policy.orders == (GIGA_ORDER,):
        blocks = 2 * GIGA_BLOCKS + 76
        structs = -(-8 * (blocks + 1) // 512)
        zones = [(1, blocks + 1, ZONE_NORMAL, 0)]
        return Setting(zones, set(range(1, 1 + structs)), blocks, (1 << GIGA_ORDER,), (GIGA_ORDER, 1))
    zones = [(14, 17, ZONE_MOVABLE, 0), (1, 14, ZONE_NORMAL, 100)]
    sizes = (512, 1024, 1536) if policy.unit > 4096 else (512, 700, 1300)
    return Setting(zones, {1}, 16, sizes, (9, 4) if policy.source == "pool" else (9, 0))


@dataclass
class Players:
    """Both models of one host. `counts` says how often each operation succeeded and failed."""

    policy: Policy
    guest: int = GUEST_GENERIC
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    guests: dict[int, int] = field(default_factory=dict)  # file: pages
    holds: list[tuple[str, int, int, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    where: Setting | None = None  # by default what suits the policy

    def __post_init__(self) -> None:
        self.setting = setting = self.where or self.host()
        self.core = CoreWorld(setting.zones, setting.reserved, setting.nr_blocks, setting.types)
        self.oracle = OracleHost(setting.zones, setting.reserved, setting.nr_blocks, setting.types)
        for world in (self.oracle, self.core) if len(setting.distances) > 1 else ():
            world.set_nodes(setting.distances, setting.nodes)
        order, count = self.setting.pool
        if count:
            self.both("grow_pool", order, count, self.policy.hvo == "on")
        for movable in (False, True):
            self.both("create", BACKGROUND_PAGES, BACKGROUND[movable], None)

    def host(self) -> Setting:
        """What to play on."""
        return setting_for(self.policy)

    def both(self, name: str, *arguments: Any) -> int:
        """Call one operation on both models, compare what it returns, and audit. Returns the errno."""
        self.log.append(f"{name}{arguments}")
        expected = getattr(self.oracle, name)(*arguments)
        got = getattr(self.core, name)(*arguments)
        assert got == expected, f"core {got}, oracle {expected}: {self.log[-5:]}"
        self.core.check()
        return int(got[0])

    def counted(self, operation: str, name: str, *arguments: Any) -> int:
        """`both`, counted as a success or a failure of `operation`."""
        error = self.both(name, *arguments)
        self.counts[operation, "fail" if error else "ok"] += 1
        return error

    def bind(self, random: Random, file: int) -> int:
        """Another policy of nodes for a file. Returns its mode."""
        mode = random.choice((NODES_LOCAL, NODES_BIND, NODES_PREFERRED, NODES_INTERLEAVE, NODES_SPREAD))
        nodes = len(self.setting.distances)
        allowed = random.randrange(1, 1 << nodes) if mode not in (NODES_LOCAL, NODES_SPREAD) else 0
        self.both("bind", file, mode, allowed, random.randrange(nodes))
        return mode

    def give_cpus(self, random: Random, watermarks: bool = True) -> None:
        """CPUs with lists of their own, and watermarks where there are none yet, from here on."""
        batch = random.choice((1, 7, 15))
        least = random.choice((4 * batch, 40))
        most = random.choice((least, 4 * least))
        low = random.choice((0, 60))
        nofragment = random.random() < 0.5
        in_batches = random.random() < 0.5
        for world in (self.oracle, self.core):
            world.set_cpus(CPUS, batch, least, most, in_batches)
            if watermarks:
                world.set_watermarks(low, 2 * low, nofragment)
        self.log.append(f"give_cpus: {batch}, {least}, {most}, {low}, {nofragment}, {in_batches}")

    def work_of_cpus(self, random: Random) -> None:
        """Another CPU works, all give back what they keep, or a second passes."""
        choice = random.choice(("run_on", "drain", "decay", "decay"))
        if choice != "run_on":
            self.both(choice)
            return
        cpu = random.randrange(CPUS)
        self.log.append(f"run_on({cpu})")
        for world in (self.oracle, self.core):
            world.run_on(cpu)

    def compare(self) -> None:
        """Everything observable is the same."""
        expected, got = self.oracle.observe(), self.core.observe()
        for part in expected:
            mine, other = got[part], expected[part]  # type: ignore[literal-required]
            assert mine == other, f"{part}: {_difference(mine, other)}: {self.log[-5:]}"

    def step(self, random: Random, operation: str) -> None:
        """One operation with random arguments."""
        if operation == "create" or not self.guests:
            self.create(random)
        elif operation in ("background", "release"):
            file = random.choice((1, 2))
            first, count = self.range(random, BACKGROUND_PAGES, 512)
            self.counted(operation, "allocate" if operation == "background" else "punch", file, first, count)
        elif operation in ("unpin", "unreference"):
            self.let_go(random, operation)
        else:
            self.operate(random, operation)

    def create(self, random: Random) -> None:
        """Create a guest, of a size that fits the policy or not; where there are several, one leaves first.

        The pool promises all of its memory to a guest_memfd (G70), so that there is room for one.
        """
        alone = self.policy.source == "pool" and self.policy.memory == "guest_memfd"
        if len(self.guests) >= 3 or (self.guests and (alone or random.randint(0, 1))):
            file = random.choice(sorted(self.guests))
            self.both("destroy", file)
            del self.guests[file]
            self.holds = [hold for hold in self.holds if hold[1] != file]
        wrong = random.randint(0, 3) == 0
        pages = random.choice((0, -512) if wrong else self.setting.guest_pages)
        if self.counted("create", "create", pages, oracle_policy(self.policy), None, self.guest) == 0:
            self.guests[self.core.created] = pages

    def let_go(self, random: Random, operation: str) -> None:
        """Undo a pin or reference, or one that was never taken."""
        if not any(hold[0] == operation for hold in self.holds) and random.randint(0, 2):
            self.operate(random, operation.removeprefix("un"))
        mine = [hold for hold in self.holds if hold[0] == operation]
        if mine and random.randint(0, 4):
            hold = random.choice(mine)
            self.holds.remove(hold)
            self.counted(operation, *(operation, *hold[1:]))
        else:
            self.counted(operation, operation, min(self.guests), 7, 1000)

    def operate(self, random: Random, operation: str) -> None:
        """One operation on a range of one guest."""
        file = random.choice(sorted(self.guests))
        first, count = self.range(random, self.guests[file], max(512, self.policy.unit // 4096))
        if operation == "compact":
            self.counted(operation, operation)
        elif operation in ("khugepaged", "kcompactd"):
            self.tick(random, operation)
        elif operation == "split_deferred":
            self.counted(operation, operation, file, random.choice((0, 60, 400, 511, 511, -1)))
        elif operation in ("pin", "reference"):
            first, count = self.holdable(random, file, operation, first, count)
            duration = (random.choice((0, 0, PIN_SHORT)),) if operation == "pin" else ()
            if self.counted(operation, operation, file, first, count, *duration) == 0:
                self.holds.append(("un" + operation, file, first, count))
        elif operation in ("private", "shared", "host"):
            kind = {"private": PRIVATE, "shared": SHARED, "host": HOST}[operation]
            sizes = (*ACCEPTS, ACCEPT_LAUNCH, ACCEPT_IN_PLACE) if self.guest in (GUEST_SNP, GUEST_TDX) else ACCEPTS
            accept = random.choice(sizes) if operation == "private" else TOUCH
            self.counted(operation, "access", file, first, count, kind, accept)
        elif operation in ("to_shared", "to_private"):
            self.counted(operation, "convert", file, first, count, operation == "to_shared")
        else:
            self.counted(operation, operation, file, first, count)

    def tick(self, random: Random, operation: str) -> None:
        """Time passes for a daemon, sometimes less than it sleeps. A success: it did something. A failure: khugepaged had to
        leave what it looked at, kcompactd moved nothing.
        """
        if random.randint(0, 2):
            self.give_work(random, operation)
        time = random.choice((499, 500, 9_000, 10_000, 61_000))
        if operation == "khugepaged":
            arguments: tuple[int, ...] = (time, random.choice((1, 512, 4096, 4096)), random.choice((0, 60, 300, 511, 511)))
        else:
            arguments = (time, random.choice((0, 20, 60, 90, 100)))
        watched = ("scan_collapsed", "scan_holes", "scan_held", "scan_memory", "scan_shared", "moved")
        before = {name: self.oracle.memory.counters[name] for name in watched}
        assert self.both(operation, *arguments) == 0
        changed = {name for name in watched if self.oracle.memory.counters[name] > before[name]}
        if operation == "khugepaged":
            self.counts[operation, "ok"] += "scan_collapsed" in changed
            self.counts[operation, "fail"] += bool(changed - {"scan_collapsed", "moved"})
        else:
            self.counts[operation, "ok" if "moved" in changed else "fail"] += 1

    def give_work(self, random: Random, operation: str) -> None:
        """Memory that is free, and something to do with it: a huge page of a guest that is split, or holes between pages."""
        self.both("punch", random.choice((1, 2)), *self.range(random, BACKGROUND_PAGES, 512))
        if operation == "kcompactd":
            first = random.randrange(0, BACKGROUND_PAGES, 512)
            self.both("allocate", 2, first, 512)
            for _ in range(6):
                self.both("punch", 2, first + random.randrange(450), random.randint(1, 60))
            return
        file = random.choice(sorted(self.guests))
        first = random.randrange(0, self.guests[file] - 511, 512)
        self.both("allocate", file, first, 512)
        if self.policy.conversion == "in-place" and random.randint(0, 1):
            self.both("convert", file, first + 7, 3, True)
            self.both("convert", file, first + 7, 3, False)
        else:
            self.both("punch", file, first + random.randrange(400), random.randint(1, 100))

    def holdable(self, random: Random, file: int, operation: str, first: int, count: int) -> tuple[int, int]:
        """Often a page that can be held: present, and for pins shared; else a few pages of the range."""
        if random.randint(0, 2) == 0 or (self.policy.orders == (GIGA_ORDER,) and operation == "reference"):
            return first, min(count, 3)
        target = self.oracle.files[file]
        pages = target.pages
        if operation == "pin" and target.confidential():
            pages = (target.other or target).pages
            found = sorted(target.shared & pages.keys())
        else:
            found = sorted(pages)
        return (random.choice(found), 1) if found else (first, min(count, 3))

    def range(self, random: Random, pages: int, unit: int) -> tuple[int, int]:
        """A range of a file: whole, a huge page, some pages, one page; sometimes a wrong one."""
        shapes = ["huge", "some", "few", "one", "wrong"]
        shape = random.choice(shapes if unit > 512 else [*shapes, "huge"])
        if shape == "huge":
            first = random.randint(0, max(0, pages // unit - 1)) * unit
            return first, min(unit, pages - first)
        if shape == "wrong":
            return random.choice(((-1, 5), (0, 0), (3, -2), (pages, 1), (pages - 1, 2), (1 << 51, 1 << 51)))
        first = random.randint(0, pages - 1)
        return first, random.randint(1, min({"some": 700, "few": 9, "one": 1}[shape], pages - first))

    def leave(self) -> None:
        """All guests and the background leave: both models are the same and audited."""
        for file in [*self.guests, 1, 2]:
            self.both("destroy", file)
        self.compare()


def _difference(mine: Any, other: Any) -> str:
    """Where two observations differ, in short."""
    if isinstance(mine, dict) and isinstance(other, dict):
        keys = [key for key in {**mine, **other} if mine.get(key) != other.get(key)]
        return "; ".join(f"{key}: {_difference(mine.get(key), other.get(key))}" for key in keys[:3])
    return f"core {str(mine)[:160]}, oracle {str(other)[:160]}"
