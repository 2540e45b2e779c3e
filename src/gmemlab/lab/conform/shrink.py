"""The shortest sequence of steps that still shows a mismatch."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from gmemlab.kernel.suites.steps import Step
from gmemlab.lab.conform.judge import Mismatch

SECONDS: Final = 30.0  # how long to look for a shorter one
Trial = Callable[[Sequence[Step]], Mismatch | None]


def shrink(steps: Sequence[Step], trial: Trial, seconds: float = SECONDS) -> tuple[list[Step], Mismatch]:
    """Leave out steps, large groups first, as long as some mismatch remains.

    Args:
        steps: up to and including the one that showed the mismatch.
        trial: takes steps in fresh worlds, and returns the first mismatch.
        seconds: how long to look.

    Raises:
        LookupError: the steps do not show a mismatch again: it depends on something outside the suite.
    """
    best = list(steps)
    shown = trial(best)
    if shown is None:
        raise LookupError("the same steps do not show it again")
    best, kind = best[: shown.number + 1], shown.kind
    until = time.monotonic() + seconds
    size = max(1, len(best) // 2)
    while time.monotonic() < until:
        shorter = _without_one_group(best, size, trial, kind, until)
        if shorter is not None:
            best, shown = shorter
            size = min(size, max(1, len(best) // 2))
        elif size == 1:
            break
        else:
            size //= 2
    return best, shown


def _without_one_group(
    steps: list[Step], size: int, trial: Trial, kind: str, until: float
) -> tuple[list[Step], Mismatch] | None:
    """The steps without some group of `size`, if they still show a mismatch of this kind; later groups first."""
    for start in range(max(0, len(steps) - 1 - size), -1, -size):
        if time.monotonic() > until:
            return None
        fewer = steps[:start] + steps[start + size :]
        shown = trial(fewer) if fewer else None
        if shown is not None and shown.kind == kind:
            return fewer[: shown.number + 1], shown
    return None
