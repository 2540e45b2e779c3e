"""Policies side by side: the same events, on the same host, under each policy in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from gmemlab.errors import UsageError
from gmemlab.lab.figures import FIGURES, Figures, figures_of
from gmemlab.lab.null_model import NULL_FIGURES, expect
from gmemlab.lab.simulate import Run, simulate
from gmemlab.model.host import Host
from gmemlab.policy import Policy
from gmemlab.presets import for_guest
from gmemlab.workload.schema import Scenario
from gmemlab.workload.trace import Trace, generate

KEPT_TRACES: Final = 1 << 30  # bytes of events that are kept for the next policy; what exceeds it is generated anew
KEPT_HOSTS: Final = 4 << 30  # bytes of fresh hosts that are kept for the next policy; what exceeds it is made anew
HostFactory = Callable[[int], Host]
OnRow = Callable[["Row"], None]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Spread:
    """One figure over all seeds: the median, the least and the largest value."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """One policy with one seed.

    Attributes:
        run: what the simulation gave, with the time series.
        figures: by the keys of ``FIGURES``.
        null: what simple arithmetic says, by the keys of ``NULL_FIGURES``.
    """

    run: Run
    figures: Figures
    null: Figures


@dataclass(frozen=True, eq=False)
class Row:
    """One policy over all seeds; a figure that no seed has is None.

    Attributes:
        policy: the policy.
        outcomes: one for each seed.
        figures: spread of each figure.
        null: spread of what simple arithmetic says.
        operations: spread of what the guests' hardware did: by operation, then by phase.
        hazards: spread of what must not happen, in pages: by kind, then by the operation that led to it.
    """

    policy: Policy
    outcomes: tuple[Outcome, ...]
    figures: Mapping[str, Spread | None]
    null: Mapping[str, Spread | None]
    operations: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)
    hazards: Mapping[str, Mapping[str, Spread]] = field(default_factory=dict)

    @property
    def starved(self) -> bool:
        """Whether guests went without memory with any seed, at launch or running: the host's bytes for them say little."""
        counts = (self.figures["launches_failed"], self.figures["runtime_failures"])
        return any(count is not None and count.most > 0 for count in counts)


@dataclass(frozen=True, eq=False)
class Setting:
    """What all policies met.

    Attributes:
        title: the scenario's.
        duration_ns: of the scenario.
        seeds: one run of each policy for each of them.
        host: one line.
        total_bytes: memory of the host.
        free_bytes: of this free at the start, before pools are filled.
        assumptions: figures and assumptions that the events rest on, one line each.
        notes: what else the reader must know.
        hardware: what the guests have (`model.guests.GUESTS`).
        watermarks: whether the host has them.
        cma_bytes: of its memory, for movable memory only.
    """

    title: str
    duration_ns: int
    seeds: tuple[int, ...]
    host: str
    total_bytes: int
    free_bytes: int
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    hardware: str = "generic"
    watermarks: bool = False
    cma_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """All rows, and what they have in common."""

    setting: Setting
    rows: tuple[Row, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader must know: of the setting, then of single policies; each once."""
        own = (note for row in self.rows for outcome in row.outcomes for note in outcome.run.notes)
        return tuple(dict.fromkeys((*self.setting.notes, *own)))


@dataclass
class _Traces:
    """The events for each seed, generated from what that seed's host has free."""

    scenario: Scenario
    kept: dict[int, Trace] = field(default_factory=dict)
    kept_bytes: int = 0

    def get(self, seed: int, host: Host) -> Trace:
        """The events of a seed."""
        if seed in self.kept:
            return self.kept[seed]
        trace = generate(self.scenario, host.usable_bytes, seed)
        if self.kept_bytes + trace.events.nbytes <= KEPT_TRACES:
            self.kept[seed] = trace
            self.kept_bytes += trace.events.nbytes
        return trace


@dataclass
class _Hosts:
    """A fresh host for each seed; copied rather than made again, as long as the originals fit into memory."""

    factory: HostFactory
    keep: bool
    kept: dict[int, Host] = field(default_factory=dict)
    kept_bytes: int = 0

    def get(self, seed: int) -> Host:
        """A host of a seed, which the caller may use up."""
        if seed in self.kept:
            return self.kept[seed].copy()
        host = self.factory(seed)
        if not self.keep or self.kept_bytes + host.model_bytes > KEPT_HOSTS:
            return host
        self.kept[seed] = host
        self.kept_bytes += host.model_bytes
        return host.copy()


def compare(
    host_factory: HostFactory,
    scenario: Scenario,
    policies: Sequence[Policy],
    seeds: Sequence[int],
    on_row: OnRow | None = None,
    progress: Progress | None = None,
    on_setting: Callable[[Setting], None] | None = None,
) -> Comparison:
    """Run a scenario under each policy with each seed.

    Args:
        host_factory: makes a fresh host from a seed; equal seeds must give equal hosts.
        scenario: what the guests do.
        policies: for guest_memfd; one row each.
        seeds: each gives one host and one stream of events, the same for all policies.
        on_row: called with each row as soon as it is complete.
        progress: called with what is being done, and the share of the policy's runs that is done.
        on_setting: called before the first run.

    Raises:
        UsageError: no policy or no seed, a policy that confidential guests cannot use, or whose pool is taken at the boot of a
            host that runs already, or a scenario larger than the host.
    """
    _check(policies, seeds)
    traces = _Traces(scenario)
    hosts = _Hosts(host_factory, keep=len(policies) > 1)
    _tell(progress, "preparing the host", 0.0)
    host = hosts.get(seeds[0])
    if any(policy.pool_at == "boot" for policy in policies):
        host.check_bootable()
    setting = _setting(scenario, host, traces.get(seeds[0], host), seeds)
    if on_setting:
        on_setting(setting)
    first = [host]
    rows: list[Row] = []
    for policy in policies:
        outcomes: list[Outcome] = []
        for number, seed in enumerate(seeds):
            del host  # two used hosts need not fit into memory
            _tell(progress, f"{policy.name}: preparing the host", number / len(seeds))
            host = first.pop() if first else hosts.get(seed)
            share = _share_of_all(policy.name, number, len(seeds), progress)
            outcomes.append(run_one(host, traces.get(seed, host), policy, share))
        runs = [one.run for one in outcomes]
        rows.append(Row(policy, tuple(outcomes), *_spreads(outcomes), spread_operations(runs), spread_hazards(runs)))
        if on_row:
            on_row(rows[-1])
    return Comparison(setting, tuple(rows))


def run_one(host: Host, trace: Trace, policy: Policy, progress: Callable[[float], None] | None = None) -> Outcome:
    """Run one trace under one policy, and return its figures with the null model's. The host is used up.

    Args:
        host: a fresh host.
        trace: the events.
        policy: how guests' memory is backed.
        progress: called with the share of events done.
    """
    free, usable = host.free_bytes, host.usable_bytes
    run = simulate(host, trace, policy, progress)
    null = expect(trace, policy, free, usable, run.pool_wanted_bytes if policy.source == "pool" else None)
    return Outcome(run, figures_of(run, run.before), null)


def spread(values: Sequence[float | None]) -> Spread | None:
    """Return median, least and largest of the values that are there; None if none is."""
    known = [value for value in values if value is not None]
    return _known_spread(known) if known else None


def _spreads(outcomes: Sequence[Outcome]) -> tuple[dict[str, Spread | None], dict[str, Spread | None]]:
    figures = {key: spread([outcome.figures[key] for outcome in outcomes]) for key in FIGURES}
    return figures, {key: spread([outcome.null[key] for outcome in outcomes]) for key in NULL_FIGURES}


def spread_operations(runs: Sequence[Run]) -> dict[str, dict[str, Spread]]:
    """Return how often each operation of the hardware was done in each phase, over the runs; there is at least one."""
    return {
        name: {phase: _known_spread([run.operations[name][phase] for run in runs]) for phase in phases}
        for name, phases in runs[0].operations.items()
    }


def spread_hazards(runs: Sequence[Run]) -> dict[str, dict[str, Spread]]:
    """Return how many pages what must not happen hit, by kind and by the operation that led to it, over the runs."""
    return {
        kind: {
            led_by: _known_spread([run.hazards[kind].get(led_by, 0) for run in runs])
            for led_by in dict.fromkeys(name for run in runs for name in run.hazards[kind])
        }
        for kind in runs[0].hazards
    }


def _known_spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def _check(policies: Sequence[Policy], seeds: Sequence[int]) -> None:
    if not policies or not seeds:
        raise UsageError("nothing to compare", allowed="at least one policy and one seed")
    for policy in policies:
        for_guest(policy)


def _setting(scenario: Scenario, host: Host, trace: Trace, seeds: Sequence[int]) -> Setting:
    notes = list(host.notes)
    if trace.not_admitted:
        notes.append(f"{trace.not_admitted} guests found the host full by their sizes and were not started (seed {seeds[0]})")
    return Setting(
        title=scenario.title,
        duration_ns=scenario.duration,
        seeds=tuple(seeds),
        host=host.description,
        total_bytes=host.total_bytes,
        free_bytes=host.free_bytes,
        assumptions=(*trace.assumptions, *host_assumptions(host, scenario)),
        notes=tuple(notes),
        hardware=trace.hardware,
        watermarks=_gets_watermarks(host, scenario),
        cma_bytes=host.cma_bytes,
    )


def host_assumptions(host: Host, scenario: Scenario) -> tuple[str, ...]:
    """Return what a host lacks that a machine has, a line each.

    Args:
        host: as it is before the first event.
        scenario: what is run on it.
    """
    if not _gets_watermarks(host, scenario):
        return ("assumption: the host has no watermarks: no kswapd, no reserve, no boost (--watermarks)",)
    if not host.is_normal:
        return ()
    return ("assumption: the host has Linux's watermarks, but Normal zones only: no DMA32, no ALLOC_NOFRAGMENT",)


def _gets_watermarks(host: Host, scenario: Scenario) -> bool:
    """Return whether a host has watermarks, or is given them for the sake of its page cache (`Simulation`)."""
    return host.has_watermarks or bool(scenario.background and scenario.background.cache)


def _tell(progress: Progress | None, what: str, share: float) -> None:
    if progress:
        progress(what, share)


def _share_of_all(name: str, number: int, runs: int, progress: Progress | None) -> Callable[[float], None] | None:
    """Return a callback for the share of run `number` out of `runs`, which reports the share of all of them."""
    if progress is None:
        return None

    def report(share: float) -> None:
        """Of one run."""
        progress(name, (number + share) / runs)

    return report
