"""Run suites in both worlds, or judge what was recorded elsewhere; find the shortest reproduction of a mismatch."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from random import Random
from typing import Any, Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.quiet import quiet
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.recording import Recording
from gmemlab.kernel.suites.steps import Seen, Step, drive
from gmemlab.kernel.suites.table import Suite
from gmemlab.lab.conform.judge import Mismatch, ModelWorld, judge
from gmemlab.lab.conform.measured import Comparison, MeasuredWorld, measure
from gmemlab.lab.conform.script import script
from gmemlab.lab.conform.shrink import shrink

AGREES: Final = "agrees"
DIFFERS: Final = "differs"
SKIPPED: Final = "skipped"
MEASURED_ATTEMPTS: Final = 2  # figures are the whole machine's, too
ATTEMPTS: Final = 4  # counters are the whole machine's: what cannot be shown again was another process's doing
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Result:
    """What came of one suite.

    Attributes:
        suite: the suite.
        status: `agrees`, `differs` or `skipped`.
        operations: steps taken in both worlds and compared.
        failed: how many of them the kernel refused.
        seconds: wall time.
        reason: why it was skipped.
        mismatch: the first one, of the shortest sequence that was found.
        script: a program that shows it on the running kernel.
        disturbed: how often a mismatch was seen that the same steps did not show again, so that all was done once more.
        null_model: what the null model of a suite that is measured says.
        comparisons: of a suite that is measured: its figures beside the kernel's and the null model's.
    """

    suite: Suite
    status: str
    operations: int = 0
    failed: int = 0
    seconds: float = 0.0
    reason: str = ""
    mismatch: Mismatch | None = None
    script: str = ""
    disturbed: int = 0
    null_model: str = ""
    comparisons: tuple[Comparison, ...] = ()


def model_world(suite: Suite, facts: dict[str, Any]) -> ModelWorld:
    """The suite's world in the model, for a kernel of which these facts are known."""
    world: ModelWorld = import_module(f"gmemlab.lab.conform.{suite.module}").world(facts)
    return world


def conform_suite(
    suite: Suite, operations: int, seed: int, budget: Budget, progress: Progress | None = None, patience: float = 0.0
) -> Result:
    """Drive the running kernel and the model side by side.

    Args:
        suite: which.
        operations: how many random ones.
        seed: where they are drawn from.
        budget: of memory.
        progress: called with the suite's name and the share done.
        patience: seconds to wait for another process that has changed the same settings.

    Raises:
        GmemlabError: settings of the machine could not be put back.
    """
    started = time.monotonic()
    steps = list(suite.load().plan(Random(f"{suite.name} {seed}"), operations))
    try:
        budget.check(suite.needs(operations), f"suite {suite.name}")
        with Settings(patience=patience) as settings:
            if suite.quiet:
                quiet(settings)
            if suite.measured:
                return _conform_measured(suite, steps, settings, started, progress)
            return _conform(suite, steps, settings, started, progress)
    except UnsupportedError as error:
        return Result(suite, SKIPPED, reason=str(error), seconds=time.monotonic() - started)


def check_recording(recording: Recording, progress: Progress | None = None) -> Result:
    """Judge what was recorded, perhaps on another machine.

    Args:
        recording: of one suite.
        progress: called with the suite's name and the share done.

    Raises:
        UsageError: the recording is damaged, with the line.
    """
    started = time.monotonic()
    if recording.skipped:
        return Result(recording.suite, SKIPPED, reason=recording.skipped)
    tally = _Tally(recording.suite.name, recording.operations, progress)
    if recording.suite.measured:
        return _measured(recording.suite, recording.facts, recording.steps(), tally, started)
    model = model_world(recording.suite, recording.facts)
    mismatch = _judged(tally.watch(recording.steps()), model)
    model.close()
    status = DIFFERS if mismatch else AGREES
    return Result(recording.suite, status, tally.steps, tally.failed, time.monotonic() - started, "", mismatch)


@dataclass
class _Tally:
    """Counts steps on their way to the judge, and reports progress."""

    name: str
    total: int
    progress: Progress | None
    steps: int = 0
    done: int = 0
    failed: int = 0

    def watch(self, recorded: Iterable[tuple[Step, Seen]]) -> Iterator[tuple[Step, Seen]]:
        """The same steps, counted."""
        for step, seen in recorded:
            self.steps += 1
            self.done += seen.done
            self.failed += seen.counters.get("failed", seen.errno != 0)
            if self.progress and (self.steps % 64 == 0 or self.total < 64):
                self.progress(self.name, self.steps / max(1, self.total))
            yield step, seen


def _judged(recorded: Iterable[tuple[Step, Seen]], model: ModelWorld) -> Mismatch | None:
    return next((mismatch for mismatch in judge(recorded, model) if mismatch), None)


def _conform_measured(
    suite: Suite, steps: Sequence[Step], settings: Settings, started: float, progress: Progress | None
) -> Result:
    """Drive the kernel first, so that the model does not disturb it; all once more where a figure is amiss."""
    attempt = 0
    while True:
        live, facts = suite.load().live(settings)
        try:
            tally = _Tally(suite.name, len(steps), progress)
            recorded = list(tally.watch(drive(live, steps)))
        finally:
            live.close()
        result = _measured(suite, facts, recorded, _Tally(suite.name, len(steps), progress), started)
        if result.status == AGREES:
            return replace(result, disturbed=attempt)
        if attempt == MEASURED_ATTEMPTS - 1:
            return result
        attempt += 1


def _measured(
    suite: Suite, facts: dict[str, Any], recorded: Iterable[tuple[Step, Seen]], tally: _Tally, started: float
) -> Result:
    """Hold the model's figures against recorded ones."""
    model: MeasuredWorld = import_module(f"gmemlab.lab.conform.{suite.module}").world(facts)
    found = tuple(measure(tally.watch(recorded), model))
    status = AGREES if all(comparison.holds for comparison in found) else DIFFERS
    seconds = time.monotonic() - started
    return Result(suite, status, tally.done, tally.failed, seconds, null_model=model.null_model, comparisons=found)


def _conform(suite: Suite, steps: Sequence[Step], settings: Settings, started: float, progress: Progress | None) -> Result:
    def trial(some: Sequence[Step], watch: _Tally | None = None) -> Mismatch | None:
        """Take some steps in fresh worlds. Returns the first mismatch."""
        live, facts = suite.load().live(settings)
        try:
            model = model_world(suite, facts)
            driven = drive(live, some)
            mismatch = _judged(watch.watch(driven) if watch else driven, model)
            if mismatch is None:
                model.close()
            return mismatch
        finally:
            live.close()

    for attempt in range(ATTEMPTS):
        tally = _Tally(suite.name, len(steps), progress)
        mismatch = trial(steps, tally)
        done = tally.steps, tally.failed
        if mismatch is None:
            return Result(suite, AGREES, *done, time.monotonic() - started, disturbed=attempt)
        if progress:
            progress(f"{suite.name}: looking for the shortest sequence", 0.0)
        try:
            shortest, shown = shrink(steps[: mismatch.number + 1], trial)
        except LookupError:
            continue  # once, and not again: another process did it
        text = script(suite, shortest, shown)
        return Result(suite, DIFFERS, *done, time.monotonic() - started, "", shown, text, attempt)
    return Result(suite, DIFFERS, *done, time.monotonic() - started, "", mismatch, "", ATTEMPTS)
