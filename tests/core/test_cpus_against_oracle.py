"""Core and oracle with CPUs that keep lists of their own, and watermarks: same frames, same lists, audited after every step."""

from random import Random

import numba
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmemlab.core.layout import NR_PCP_LISTS
from players import OPERATIONS, POLICIES, SMALL, Players

COMPILED = not (numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK)
EPISODES = 12
STEPS = 60


def play(name: str, random: Random, steps: int) -> set[int]:
    """One host. Returns which of the CPUs' lists ever held something."""
    players = Players(POLICIES[name])
    players.give_cpus(random)
    players.create(random)
    seen = set()
    for step in range(steps):
        players.step(random, random.choice(OPERATIONS))
        if random.random() < 0.2:
            players.work_of_cpus(random)
        if step % 4 == 0:
            players.compare()
            seen |= {index for _, _, index in players.core.observe_kept()}
    players.both("drain")
    assert players.core.observe_kept() == {}
    players.leave()
    return seen


@pytest.mark.skipif(not COMPILED, reason="the interpreted pass takes the search below")
@pytest.mark.parametrize("name", SMALL)
def test_cpus_agree_with_the_oracle(name: str) -> None:
    for episode in range(EPISODES):
        play(name, Random(f"{name} {episode}"), STEPS)


@pytest.mark.skipif(not COMPILED, reason="the interpreted pass takes the search below")
def test_every_list_is_used() -> None:
    """But those of reclaimable memory, of which there is none."""
    wanted = set(range(NR_PCP_LISTS)) - {2, 5, 8, 11}
    seen: set[int] = set()
    for episode in range(60):
        for name in ("ladder", "shmem-thp", "thp-strict-zero"):
            seen |= play(name, Random(f"all {episode}"), STEPS)
        if seen >= wanted:
            break
    assert seen == wanted


@settings(max_examples=60 if COMPILED else 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SMALL), st.integers(0, 1 << 30))
def test_search_for_a_difference(name: str, seed: int) -> None:
    play(name, Random(seed), 12)
