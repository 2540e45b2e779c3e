"""Short games between the core and the oracle, which notice seeded faults: collected only where they are named."""

from random import Random
from typing import Final

import pytest

from players import OPERATIONS, POLICIES, Players

STEPS: Final = 20


@pytest.mark.parametrize(("name", "seed"), [("4k", 1), ("ladder", 2), ("hugetlb-2m", 2)])
def test_short_game(name: str, seed: int) -> None:
    """The core and the oracle take the same few random operations."""
    random = Random(f"{name} {seed}")
    players = Players(POLICIES[name])
    players.create(random)
    for _ in range(STEPS):
        players.step(random, random.choice(OPERATIONS))
    players.compare()
    players.leave()
