"""Measure this kernel's costs: a cost profile out of repeated timings, with what could not be measured, and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Final

from gmemlab.costs import Cost, Profile
from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel.abi import PMD
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.features import read_cpu_model, read_release
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.timed_memory import AT_ONCE, GROUPS, Timings, measure
from gmemlab.units import MIB, format_size

LEAST_ROUNDS: Final = 9
LEAST_FILE: Final = 16 * MIB
USUAL_FILE: Final = 256 * MIB
SOURCE: Final = "gmemlab calibrate"
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Calibration:
    """What was measured on this machine.

    Attributes:
        profile: the costs.
        skipped: operations without a figure, and why.
        call_ns: what Python and ctypes take for one call, which is taken off.
        file_bytes: size of the files that were measured on.
        rounds: how often each operation was timed.
    """

    profile: Profile
    skipped: Mapping[str, str]
    call_ns: float
    file_bytes: int
    rounds: int

    @property
    def useless(self) -> tuple[str, ...]:
        """Entries whose spread makes them useless."""
        return tuple(name for name, cost in self.profile.costs.items() if cost.useless)


def calibrate(
    name: str, rounds: int, memory: str | None = None, progress: Progress | None = None, patience: float = 0.0
) -> Calibration:
    """Time every operation that this kernel has.

    Args:
        name: of the profile.
        rounds: how often each operation is timed, at least `LEAST_ROUNDS`.
        memory: a size, how much may be used; by default half of what is available, and no more than is of use.
        progress: called with what is being done, and the share of all that is done.
        patience: seconds to wait for another process that has changed the same settings.

    Raises:
        UsageError: too few rounds, too little memory allowed, or another process has changed a setting.
        UnsupportedError: too little memory, no right to change settings, or nothing of it can be measured here.
        GmemlabError: a setting could not be put back.
    """
    if rounds < LEAST_ROUNDS:
        raise UsageError("too few for quantiles", key="--repetitions", value=rounds, allowed=f"{LEAST_ROUNDS} and more")
    budget = Budget(memory)
    budget.check(AT_ONCE * LEAST_FILE, "calibrate")
    size = budget.size // AT_ONCE // PMD * PMD
    if memory is None:
        size = min(size, USUAL_FILE)
    with Settings(patience=patience) as settings:
        timings = measure(settings, size, rounds, progress)
    if not timings.samples:
        first = next(iter(timings.skipped))
        raise UnsupportedError(f"all {len(timings.skipped)} operations", f"{first}: {timings.skipped[first]}")
    return Calibration(profile_of(name, timings, size), timings.skipped, timings.call_ns, size, rounds)


def profile_of(name: str, timings: Timings, size: int) -> Profile:
    """Return the profile of this machine that timings make.

    Args:
        name: of the profile.
        timings: what was measured.
        size: bytes of the files that were measured on.
    """
    units = {entry: operation.unit for group in GROUPS for entry, operation in group.operations.items()}
    costs = {entry: cost_of(units[entry], samples) for entry, samples in timings.samples.items()}
    notes = [
        f"processor time, files of {format_size(size)}; {timings.call_ns:.0f} ns of Python and ctypes taken off each call",
        *(f"{entry} was not measured: {reason}" for entry, reason in timings.skipped.items()),
    ]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Profile(name, read_release(), read_cpu_model(), now, costs, tuple(notes))


def cost_of(unit: str, samples: Sequence[float]) -> Cost:
    """Return median, 5% and 95% quantile (interpolated) of the samples, in whole nanoseconds.

    Args:
        unit: of the samples.
        samples: at least two.
    """
    twentieths = quantiles(samples, n=20, method="inclusive")
    low, value, high = (round(figure) for figure in (twentieths[0], median(samples), twentieths[-1]))
    return Cost(unit, low, value, high, "measured", SOURCE, len(samples))
