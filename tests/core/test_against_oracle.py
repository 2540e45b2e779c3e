"""The core and the oracle take the same operations: same results, same state, audited after every step.

A seeded run for every policy makes sure that every operation succeeds and fails often enough (the counts are printed);
Hypothesis searches for short sequences that tell the two apart.
"""

from collections.abc import Callable
from random import Random

import numba
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gmemlab.core.layout import GIGA_ORDER, GUEST_GENERIC, GUEST_SNP, GUEST_TDX
from gmemlab.policy import Policy
from gmemlab.presets import PRESETS
from players import GIGA, IMPOSSIBLE, OPERATIONS, POLICIES, SMALL, Players

INTERPRETED = bool(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK)
LEAST = 50  # successes and failures of every operation under every policy
LEAST_VARIANT = 15  # the same for a preset with one choice changed
REAL_1G = GIGA_ORDER == 18  # test_small_giga.py runs this file on a copy of the core with smaller "1 GiB" pages
LEAST_1G = 5 if REAL_1G else LEAST  # the oracle takes tenths of a second for each step on a quarter of a million pages
EPISODE = 60  # steps on one host


def short_of(players_counts: dict[tuple[str, str], int], name: str, least: int) -> list[str]:
    """Operations that have not succeeded and failed often enough yet."""
    policy = POLICIES[name]
    return [
        operation
        for operation in OPERATIONS
        for outcome in ("ok", "fail")
        if players_counts.get((operation, outcome), 0) < least and not IMPOSSIBLE.get((operation, outcome), _never)(policy)
    ]


def _never(policy: Policy) -> bool:
    return False


def play(name: str, least: int, compare_every: int, longest: int) -> dict[tuple[str, str], int]:
    """Episodes on fresh hosts until every outcome was seen `least` times, at most `longest` of them."""
    counts: dict[tuple[str, str], int] = {}
    for episode in range(longest):
        random = Random(f"{name} {episode}")
        players = Players(POLICIES[name])
        players.create(random)
        for step in range(EPISODE):
            wanted = short_of(counts, name, least) or OPERATIONS
            players.step(random, random.choice(wanted if step % 3 else OPERATIONS))
            if step % compare_every == 0:
                players.compare()
        players.compare()
        players.leave()
        for key, count in players.counts.items():
            counts[key] = counts.get(key, 0) + count
        if not short_of(counts, name, least):
            break
    return counts


def judge(name: str, least: int, counts: dict[tuple[str, str], int], record: Callable[[str, object], None]) -> None:
    """Have the counts printed at the end; every operation must have had both outcomes."""
    cells = [f"{operation} {counts.get((operation, 'ok'), 0)}/{counts.get((operation, 'fail'), 0)}" for operation in OPERATIONS]
    record("outcomes", f"{name}: {', '.join(cells)}")
    assert short_of(counts, name, least) == []


@pytest.mark.skipif(INTERPRETED, reason="the interpreted pass takes the search below")
@pytest.mark.parametrize("name", SMALL)
def test_core_agrees_with_the_oracle(name: str, record_property: Callable[[str, object], None]) -> None:
    least = LEAST if name in PRESETS else LEAST_VARIANT
    judge(name, least, play(name, least, 8, 400), record_property)


@pytest.mark.skipif(INTERPRETED and REAL_1G, reason="a quarter of a million pages, one by one")
@pytest.mark.parametrize("name", GIGA)
def test_core_agrees_with_the_oracle_on_1g_pages(name: str, record_property: Callable[[str, object], None]) -> None:
    judge(name, LEAST_1G, play(name, LEAST_1G, EPISODE, 30 if REAL_1G else 400), record_property)


class Search(RuleBasedStateMachine):
    """Hypothesis chooses policy, guests' hardware and operations, and shrinks what it finds."""

    @initialize(
        name=st.sampled_from(SMALL),
        guest=st.sampled_from((GUEST_GENERIC, GUEST_SNP, GUEST_TDX)),
        random=st.randoms(note_method_calls=False, use_true_random=False),
    )
    def start(self, name: str, guest: int, random: Random) -> None:
        policy = POLICIES[name]
        self.players = Players(policy, guest if policy.memory == "guest_memfd" else GUEST_GENERIC)
        self.players.create(random)

    @rule(operation=st.sampled_from(OPERATIONS), random=st.randoms(note_method_calls=False, use_true_random=False))
    def step(self, operation: str, random: Random) -> None:
        self.players.step(random, operation)

    @rule(random=st.randoms(note_method_calls=False, use_true_random=False))
    def ready(self, random: Random) -> None:
        """A guest is up: what its hardware does from here on is counted in another phase."""
        if self.players.guests:
            self.players.both("ready", random.choice(sorted(self.players.guests)))

    def teardown(self) -> None:
        if hasattr(self, "players"):
            self.players.compare()
            self.players.leave()


class TestSearch(Search.TestCase):  # type: ignore[misc,valid-type]  # made by Hypothesis
    settings = settings(
        max_examples=12 if INTERPRETED else 100,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
