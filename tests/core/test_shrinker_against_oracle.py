"""Core and oracle where reclaim has the deferred-split shrinker work: hosts with huge pages to split that are short of memory.

The host's own memory takes all that is left again and again, so that kswapd and allocations look at the queue; how many zeros
are let pass, and whether there is page cache, differs. Every other host has two NUMA nodes, each with a queue of its own.
"""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

import numba
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmemlab.core.layout import BLOCK_PAGES, KIND_CACHE, SHARED, ZONE_MOVABLE, ZONE_NORMAL
from gmemlab.policy import Policy
from gmemlab.presets import PRESETS
from node_players import TWO
from oracle_files import OraclePolicy
from players import BACKGROUND_PAGES, Players, Setting

KNOWN_ANSWERS: Final = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK),
    reason="the other passes take the known answers of test_oracle_shrinker.py",
)
CACHE: Final = OraclePolicy(KIND_CACHE, (0,), movable=True)
CACHE_PAGES: Final = 600
GUESTS: Final = (512, 1024, 1536)
CHOICES: Final = {
    "anon": ("anon-thp", {}),
    "retry": ("anon-thp", {"effort": "retry"}),
    "ladder": ("anon-thp", {"sizes": "2M,64K,16K,4K", "effort": "direct-once"}),
    "collapse": ("anon-thp", {"repair": "collapse,compaction"}),
    "beside": ("thp", {"shared": "thp"}),
    "shmem": ("shmem-thp", {"zero_scan": "on", "effort": "direct-once"}),
}
OPERATIONS: Final = ("create", "allocate", "private", "shared", "shared", "punch", "punch", "punch", "collapse", "to_shared",
    "to_private", "free_lazily", "split_deferred", "pin", "pin", "unpin", "unpin", "khugepaged", "background",
    "release")  # fmt: skip
OUTCOMES: Final = ("deferred_split", "slabs_scanned", "underused", "split_failed", "pgsteal_kswapd", "kswapd")


def policy_of(name: str) -> Policy:
    preset, choices = CHOICES[name]
    return PRESETS[preset].with_choices(choices)


def setting(nodes: int) -> Setting:
    """Seven blocks in one zone, of one node or of two, and two of zone Movable; the first holds page structs."""
    zones = [(9, 11, ZONE_MOVABLE, 0), (1, 9, ZONE_NORMAL, 60)]
    if nodes == 1:
        return Setting(zones, {1}, 10, GUESTS, (9, 0))
    zones[1:] = [(5, 9, ZONE_NORMAL, 30), (1, 5, ZONE_NORMAL, 30)]
    return Setting(zones, {1}, 10, GUESTS, (9, 0), [1, 1, 0], TWO)


def work(players: Players, random: Random) -> None:
    """Huge pages of a guest, or of the ordinary memory beside it, are given back in part; shmem's are held meanwhile."""
    file = random.choice(sorted(players.guests))
    pages, given_back = players.guests[file], file
    if players.policy.conversion == "two-sources":
        players.both("convert", file, 0, pages, True)
        players.both("access", file, 0, random.choice((pages, 1)), SHARED)
        given_back = -file
    else:
        players.both("allocate", file, 0, pages)
        if random.random() < 0.3:
            return
        players.both("access", file, random.randrange(pages), 1, SHARED)
    for base in range(0, pages, BLOCK_PAGES):
        players.both("pin", file, base, 1)
        players.both("punch", given_back, base + random.randint(1, 500), random.randint(1, 500))
        if random.random() < 0.7:
            players.both("unpin", file, base, 1)


def squeeze(players: Players, random: Random) -> None:
    """The host's own memory takes all that is left, and gives some back."""
    for file in (1, 2):
        players.both("allocate", file, 0, BACKGROUND_PAGES)
    for file in (1, 2):
        players.both("punch", file, random.randrange(BACKGROUND_PAGES), random.choice((1, 100, 1500)))


def play(name: str, random: Random, steps: int, nodes: int) -> Counter[str]:
    """One host. Returns how often what is special happened."""
    players = Players(policy_of(name), where=setting(nodes))
    if random.random() < 0.3:
        players.both("create", CACHE_PAGES, CACHE, None)
        players.both("allocate", players.core.created, 0, CACHE_PAGES)
    if random.random() < 0.3:
        players.give_cpus(random, watermarks=False)
    low = random.choice((0, 40, 40, 300))
    for world in (players.oracle, players.core):
        world.set_watermarks(low, 2 * low, False)
    players.create(random)
    for step in range(steps):
        if step % 6 == 0:
            players.both("khugepaged", 0, 4096, random.choice((0, 60, 400, 511)))
        players.step(random, random.choice(OPERATIONS))
        if players.guests and random.random() < 0.4:
            work(players, random)
        if random.random() < 0.4:
            squeeze(players, random)
        if step % 4 == 0:
            players.compare()
    players.both("khugepaged", 0)
    players.leave()
    seen = players.oracle.memory.buddy.seen
    seen.update({outcome: players.oracle.memory.counters[outcome] for outcome in OUTCOMES if outcome != "kswapd"})
    return seen


@KNOWN_ANSWERS
def test_the_shrinker_agrees_with_the_oracle(record_property: Callable[[str, object], None]) -> None:
    seen: Counter[str] = Counter()
    for name in CHOICES:
        found: Counter[str] = Counter()
        for episode in range(4):
            found += play(name, Random(f"{name} {episode}"), 22, 1 + episode % 2)
        assert found["deferred_split"], name
        seen += found
    record_property("outcomes", ", ".join(f"{outcome} {seen[outcome]}" for outcome in OUTCOMES))
    assert [outcome for outcome in OUTCOMES if seen[outcome] < 5] == []


@KNOWN_ANSWERS
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(CHOICES)), st.integers(0, 1 << 30), st.integers(1, 2))
def test_search_for_a_difference(name: str, seed: int, nodes: int) -> None:
    play(name, Random(seed), 10, nodes)
