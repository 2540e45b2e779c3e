"""Time on a processor that nobody shares, apart from time on one that a neighbour shares.

Where machines are virtual, a neighbour on the same core takes a third to a half of its speed, from one moment to the next, and
no counter of the guest tells. So each stretch of work, best of some milliseconds, stands between two runs of a probe: a loop
that touches no memory and has nothing to do with gmemlab. A stretch ran at full speed if both probes took at most a tenth
longer than the quickest one of the process. A figure is the mean of the stretches at full speed, however long these took;
beside it stands the mean of all, as it ran. A neighbour that comes and goes between two probes is not seen: figures err high.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

import loops

STEPS: Final = 50_000  # of a probe, which then takes less than a tenth of a millisecond
FIRST_STEPS: Final = 500  # that bring its code into the caches
SLACK: Final = 1.1  # times the quickest probe
ENOUGH: Final = 100  # stretches at full speed
PASSES: Final = 5  # over all of the work, at least, behind one that warms up
PATIENCE: Final = 20.0  # seconds for one figure
CALIBRATION: Final = 5.0  # seconds in which the quickest probe is looked for


@dataclass(frozen=True)
class Figure:
    """What one unit of work takes.

    Attributes:
        value: processor seconds, at full speed; as it ran where there were not ENOUGH stretches at full speed.
        ran: processor seconds, whatever the speed was.
        share: of the stretches that ran at full speed, by their number.
        enough: whether these were ENOUGH.
    """

    value: float
    ran: float
    share: float
    enough: bool

    def per(self, units: int) -> "Figure":
        """The same for each of so many units."""
        return Figure(self.value / units, self.ran / units, self.share, self.enough)


class Stretches:
    """Stretches of one kind of work."""

    quickest: ClassVar[float] = float("inf")  # probe of this process, seconds

    def __init__(self) -> None:
        self.seconds: list[float] = []  # per unit
        self._probes: list[float] = []  # the slower one of two

    def time(self, units: int, call: Callable[..., object], *args: object) -> None:
        """Time one stretch, `units` of work: in seconds of this process, so that others that ran meanwhile do not count."""
        before = probe()
        start = time.process_time()
        call(*args)
        elapsed = time.process_time() - start
        self.add(elapsed / units, max(before, probe()))

    def add(self, seconds: float, slower: float) -> None:
        """Add a stretch: what a unit of it took, and the slower one of its probes."""
        self.seconds.append(seconds)
        self._probes.append(slower)

    def clear(self) -> None:
        """Forget what was timed."""
        self.seconds.clear()
        self._probes.clear()

    def at_full_speed(self) -> list[bool]:
        """Of each stretch, by what is known by now."""
        return [slower <= SLACK * Stretches.quickest for slower in self._probes]

    def figure(self) -> Figure:
        """The means, where all stretches are of the same kind."""
        full = [seconds for seconds, good in zip(self.seconds, self.at_full_speed(), strict=True) if good]
        ran = statistics.fmean(self.seconds)
        enough = len(full) >= ENOUGH
        return Figure(statistics.fmean(full) if enough else ran, ran, len(full) / len(self.seconds), enough)

    def figure_of_runs(self, runs: int) -> Figure:
        """What one run takes that is too long to be at full speed throughout; its stretches were timed in each of so many runs.

        `ran` is the mean run. `value` is the sum over its stretches: of what each took at full speed, or where it never was, of
        what it took, times what others took at full speed over what the same took when not.
        """
        assert runs > 1
        seconds = np.array(self.seconds).reshape(runs, -1)
        full = np.array(self.at_full_speed()).reshape(runs, -1)
        ran = float(seconds.sum(axis=1).mean())
        share = float(full.mean())
        if full.sum() < ENOUGH:
            return Figure(ran, ran, share, False)
        had = full.sum(axis=0)
        quick = np.where(full, seconds, 0).sum(axis=0) / np.maximum(had, 1)
        slow = np.where(full, 0, seconds).sum(axis=0) / np.maximum(runs - had, 1)
        both = (had > 0) & (had < runs)
        ratio = quick[both].sum() / slow[both].sum() if both.any() else 1.0
        return Figure(float(quick.sum() + ratio * slow[had == 0].sum()), ran, share, True)


def probe() -> float:
    """Seconds that the probe takes now."""
    loops.count(FIRST_STEPS)
    start = time.perf_counter()
    loops.count(STEPS)
    elapsed = time.perf_counter() - start
    Stretches.quickest = min(Stretches.quickest, elapsed)
    return elapsed


def calibrate() -> None:
    """Look for the quickest probe, before anything is timed."""
    loops.count(1)  # compiled
    end = time.perf_counter() + CALIBRATION
    while time.perf_counter() < end:
        probe()


def until_enough(one_pass: Callable[[], None], *kinds: Stretches) -> int:
    """Call `one_pass`, which times stretches: to warm up, PASSES times, and on until each kind has ENOUGH at full speed.

    Gives up after PATIENCE. Returns the number of passes whose stretches are kept.
    """
    one_pass()
    for kind in kinds:
        kind.clear()
    end = time.perf_counter() + PATIENCE
    passes = had = 0
    while passes < PASSES or (had < ENOUGH and time.perf_counter() < end):
        one_pass()
        passes += 1
        had = min(sum(kind.at_full_speed()) for kind in kinds)
        if sys.stderr.isatty():
            print(f"\r{had} of {ENOUGH} stretches at full speed\r", end="", file=sys.stderr, flush=True)
    return passes
