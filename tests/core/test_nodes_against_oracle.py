"""Core and oracle on hosts of several NUMA nodes: the same frames, lists, pools and counters, audited after every step."""

from collections import Counter
from random import Random

import numba
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from node_players import NodePlayers
from players import OPERATIONS, POLICIES, SMALL

COMPILED = not (numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK)
STEPS = 50
HVO = POLICIES["hugetlbfs"].with_choices({"hvo": "on"})
POOLS = ("hugetlbfs", "hugetlb-2m", HVO.name)


def play(nodes: int, name: str, random: Random, steps: int, with_cpus: bool) -> Counter[str]:
    """One host. Returns what was seen."""
    players = NodePlayers.on(nodes, {**POLICIES, HVO.name: HVO}[name])
    if with_cpus:
        players.give_cpus(random)
    players.create(random)
    for step in range(steps):
        players.step(random, random.choice(OPERATIONS))
        if with_cpus and random.random() < 0.2:
            players.work_of_cpus(random)
        if step % 4 == 0:
            players.compare()
    if with_cpus:
        players.both("drain")
    players.leave()
    return players.seen


@pytest.mark.skipif(not COMPILED, reason="the interpreted pass takes the search below")
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize(
    "names", [("4k", "thp", "thp[shared=thp,zone=movable,repair=collapse,compaction]"), ("shmem-thp", "anon-thp"), POOLS]
)
def test_nodes_agree_with_the_oracle(nodes: int, names: tuple[str, ...]) -> None:
    seen: Counter[str] = Counter()
    for name in names:
        for episode in range(3 if names is POOLS else 9):
            seen += play(nodes, name, Random(f"{nodes} {name} {episode}"), STEPS, episode == 2)
    assert all(seen[f"mode {mode}"] for mode in range(5))
    assert seen["surplus"] and seen["kept"] if names is POOLS else seen["missed"]


@settings(max_examples=20 if COMPILED else 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from((2, 3)), st.sampled_from(SMALL), st.integers(0, 1 << 30), st.booleans())
@example(2, "hugetlb-2m[punch=zero]", 267, True)  # kswapd has its turn between two frames for page structs
def test_search_for_a_difference(nodes: int, name: str, seed: int, with_cpus: bool) -> None:
    play(nodes, name, Random(seed), 12 if COMPILED else 5, with_cpus)
