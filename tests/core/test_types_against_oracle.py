"""Core and oracle on hosts with CMA, isolated and HIGHATOMIC blocks, and memory that cannot wait: same frames, same lists.

Blocks become HIGHATOMIC where a hundredth of the zone is one. Nine tenths of such a host are taken at boot, so that it is short
of memory soon; there is no compaction on it, as the oracle goes through all of that frame by frame. Every other host has two
NUMA nodes, each with reclaim of its own.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numba
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmemlab.core.layout import CMA, EFFORT_ATOMIC, ISOLATE, KIND_CACHE, KIND_HOST, PIN_SHORT, ZONE_MOVABLE, ZONE_NORMAL
from node_players import TWO
from oracle_files import OraclePolicy
from players import BACKGROUND_PAGES, OPERATIONS, POLICIES, SMALL, Players, Setting

KNOWN_ANSWERS: Final = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK),
    reason="the other passes take the known answers of test_oracle_types.py and test_oracle_reclaim.py",
)
ATOMIC: Final = tuple(OraclePolicy(KIND_HOST, (order,), effort=EFFORT_ATOMIC) for order in (0, 2, 3))
ATOMIC_PAGES: Final = 1024
CACHE: Final = OraclePolicy(KIND_CACHE, (0,), movable=True)
CACHE_PAGES: Final = 1300
TAKEN: Final = 98  # blocks
CALM: Final = [name for name in SMALL if POLICIES[name].effort in ("none", "light") and POLICIES[name].repair == "none"]
STILL: Final = [operation for operation in OPERATIONS if operation not in ("compact", "kcompactd")]
OUTCOMES: Final = (
    "CMA first",
    "CMA last",
    "boost",
    "from the reserve",
    "reserved",
    "given up",
    "kswapd",
    "pgsteal_kswapd",
    "pgsteal_direct",
    "moved for a pin",
)


@dataclass
class TypePlayers(Players):
    """A host with blocks of all types; files 3 to 5 hold memory that cannot wait."""

    random: Random = field(default_factory=Random)
    taken: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        self.normal = self.taken + 11  # the last block of zone Normal
        self.types = {self.normal - step: CMA for step in range(self.random.choice((0, 1, 2, 4, 6)))}
        isolated = self.random.sample((self.taken + 1, self.taken + 4), self.random.randint(0, 1))
        self.types.update(dict.fromkeys(isolated, ISOLATE))
        super().__post_init__()
        for policy in ATOMIC:
            self.both("create", ATOMIC_PAGES, policy, None)
        self.cached = [6, 7][: self.random.choice((0, 1, 1, 2))]
        for _ in self.cached:
            self.both("create", CACHE_PAGES, CACHE, None)
        none = ((0, 0), (0, 0)) if self.taken == 1 else ()  # below the low one blocks become HIGHATOMIC
        least, low = self.random.choice((*none, (64, 40), (64, 9000), (100, 700)))
        for world in (self.oracle, self.core):
            world.set_min(least)
            world.set_watermarks(low, 2 * low, False)
        self.log.append(f"watermarks: {least}, {low}; {self.types}")
        for file in (1, 2, 3, 4, 5, *self.cached) if self.nodes > 1 else ():
            self.bind(self.random, file)

    def host(self) -> Setting:
        end = self.normal + 1
        usual, reserved = super().host(), set(range(1, self.taken + 1))
        zones = [(end, end + 2, ZONE_MOVABLE, 0), (1, end, ZONE_NORMAL, 100)]
        if self.nodes == 1:
            return Setting(zones, reserved, end + 1, usual.guest_pages, usual.pool, types=self.types)
        border = end - 5
        zones[1:] = [(border, end, ZONE_NORMAL, 40), (1, border, ZONE_NORMAL, 60)]
        return Setting(zones, reserved, end + 1, usual.guest_pages, usual.pool, [1, 1, 0], TWO, self.types)

    def create(self, random: Random) -> None:
        before = self.core.created
        super().create(random)
        if self.nodes > 1 and self.core.created > before:
            self.bind(random, self.core.created)

    def work_of_cache(self) -> None:
        """Something is read, or dropped for other reasons, or held for a while."""
        file = self.random.choice(self.cached)
        first = self.random.randrange(CACHE_PAGES)
        count = min(self.random.choice((1, 100, 700, 700)), CACHE_PAGES - first)
        choice = self.random.choice(("allocate", "allocate", "punch", "reference"))
        self.both(choice, file, first, count if choice != "reference" else 1)

    def work_of_pins(self) -> None:
        """The host pins some of its own movable memory, mostly for long, and lets it go; first there is room, or not."""
        file = self.random.choice((2, *self.cached))
        pages = BACKGROUND_PAGES if file == 2 else CACHE_PAGES
        if self.random.random() < 0.5:
            self.both("punch", 1, self.random.randrange(0, BACKGROUND_PAGES, 512), self.random.choice((64, 512)))
        first = self.random.randrange(pages)
        count = min(self.random.choice((1, 30, 300)), pages - first)
        if self.both("pin", file, first, count, self.random.choice((0, 0, 0, PIN_SHORT))) == 0:
            self.both("unpin", file, first, count)

    def work_of_types(self) -> None:
        """Memory that cannot wait comes or goes."""
        order = self.random.randrange(3)
        unit = 1 << ATOMIC[order].sizes[0]
        first = self.random.randrange(0, ATOMIC_PAGES, unit)
        count = min(self.random.choice((unit, 8 * unit, 600)) // unit * unit, ATOMIC_PAGES - first)
        self.both(self.random.choice(("allocate", "allocate", "punch")), 3 + order, first, count)

    def squeeze(self) -> None:
        """What cannot wait comes, where there is a watermark with a block for its like; then others take all that is left."""
        self.both("punch", 5, 0, ATOMIC_PAGES)
        self.both("punch", 1, 0, 512)
        self.both("allocate", 5, 0, 16)
        self.both("allocate", 1, 0, BACKGROUND_PAGES)

    def leave(self) -> None:
        for file in (3, 4, 5, *self.cached):
            self.both("destroy", file)
        super().leave()


def play(name: str, random: Random, steps: int, wide: bool, nodes: int) -> Counter[str]:
    """One host. Returns how often what is special happened."""
    players = TypePlayers(POLICIES[name], random=random, taken=TAKEN if wide else 1, nodes=nodes)
    if random.random() < 0.5:
        players.give_cpus(random, watermarks=False)
    for file in (*players.cached, 1, 2):
        players.both("allocate", file, 0, BACKGROUND_PAGES if file <= 2 else CACHE_PAGES)
        if file > 2:
            continue
        for _ in range(12):
            players.both("punch", file, random.randrange(BACKGROUND_PAGES - 100), random.randint(1, 100))
    players.create(random)
    for step in range(steps):
        players.step(random, random.choice(STILL if wide else OPERATIONS))
        if random.random() < 0.5:
            players.work_of_types()
        if random.random() < 0.07:
            players.work_of_pins()
        if players.cached and random.random() < 0.3:
            players.work_of_cache()
        if wide and step % 8 == 7:
            players.squeeze()
        if step % 8 == 0:
            players.compare()
    players.leave()
    seen = players.oracle.memory.buddy.seen
    seen.update({name: players.oracle.memory.counters[name] for name in ("pgsteal_kswapd", "pgsteal_direct")})
    return seen


@KNOWN_ANSWERS
def test_types_agree_with_the_oracle(record_property: Callable[[str, object], None]) -> None:
    seen: Counter[str] = Counter()
    for number, name in enumerate(SMALL[::3]):
        seen += play(name, Random(f"{name} 0"), 24, False, 1 + number % 2)
    for episode in range(3):
        for name in CALM:
            seen += play(name, Random(f"{name} {episode}"), 24, True, 1 + episode % 2)
    record_property("outcomes", ", ".join(f"{outcome} {seen[outcome]}" for outcome in OUTCOMES))
    assert [outcome for outcome in OUTCOMES if seen[outcome] < 5] == []


@KNOWN_ANSWERS
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CALM), st.integers(0, 1 << 30), st.booleans(), st.integers(1, 2))
def test_search_for_a_difference(name: str, seed: int, wide: bool, nodes: int) -> None:
    play(name, Random(seed), 12, wide, nodes)
