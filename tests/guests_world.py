"""What the known answers about guests' hardware share."""

from dataclasses import replace
from typing import Final

from gmemlab.core.hardware import counts
from world import THP_IN_PLACE, Policy, World

FAULTS: Final = (counts.FAULT_4K, counts.FAULT_2M)
OF_THE_HOST: Final = (counts.CLEAR_4K, counts.CLEAR_2M, counts.CONVERT, counts.CONVERT_PAGE)  # which `done` leaves out
HUGE_IN_PLACE = replace(THP_IN_PLACE, merge=0)


def new(model: World, guest: int, policy: Policy, pages: int = 512) -> int:
    """A guest of some hardware (GUEST_*)."""
    error, file = model.create(pages, policy, None, guest)
    assert error == 0
    return file


def done(model: World, before: dict[tuple[int, int], int], *left_out: int) -> dict[int, int]:
    """Operations since, over all phases, but for the host kernel's own."""
    now: dict[int, int] = {}
    for (operation, phase), number in model.observe()["operations"].items():
        if operation not in left_out + OF_THE_HOST:
            now[operation] = now.get(operation, 0) + number - before.get((operation, phase), 0)
    return {operation: number for operation, number in now.items() if number}
