"""Guests of every hardware take the same operations in core and oracle: same page states, same operations counted."""

from random import Random

import numba
import pytest

from gmemlab.core.layout import GUEST_PKVM, GUEST_PLAIN, GUEST_SNP, GUEST_TDX
from players import OPERATIONS, POLICIES, Players

INTERPRETED = bool(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK)
EPISODES = 12
STEPS = 40
GUESTS = {"snp": GUEST_SNP, "tdx": GUEST_TDX, "plain": GUEST_PLAIN, "pkvm": GUEST_PKVM}
NAMES = [
    "4k",
    "4k-inplace",
    "thp",
    "thp-inplace",
    "thp-strict-zero",
    "thp-migratable",
    "hugetlb-2m",
    "hugetlb-2m[punch=zero]",
    "thp-inplace[merge=eager]",
    "thp[vmm_punch=private]",
    "thp[punch=no-op]",
    "ladder",
]
# What shows most of page states, drawn as often as all other operations together.
TOLD = ("private", "private", "to_shared", "to_private", "punch", "reference", "unreference", "allocate")


@pytest.mark.skipif(INTERPRETED, reason="the interpreted pass takes the known answers of test_oracle_hardware.py")
@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("name", NAMES)
def test_page_states_agree_with_the_oracle(name: str, guest: str) -> None:
    for episode in range(EPISODES):
        random = Random(f"{name} {guest} {episode}")
        players = Players(POLICIES[name], GUESTS[guest])
        players.create(random)
        for step in range(STEPS):
            players.step(random, random.choice(TOLD if step % 2 else OPERATIONS))
            if players.guests and random.randint(0, 9) == 0:
                players.both("ready", random.choice(sorted(players.guests)))
            if step % 4 == 0:
                players.compare()
        players.compare()
        players.leave()
