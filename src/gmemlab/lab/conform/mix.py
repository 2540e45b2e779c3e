"""The model's world for the suite `mix`: distributions of free memory, model to kernel, kernel to kernel, null to kernel."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final

from gmemlab.kernel.observe.free_memory import from_counters
from gmemlab.kernel.suites.mix import HUGE, KINDS, MOMENTS, play
from gmemlab.kernel.suites.steps import Seen, Step
from gmemlab.lab.conform.live_host import free_by_order, host_of
from gmemlab.lab.conform.measured import Compared, Comparison, beats_null, distance, shares
from gmemlab.lab.conform.thp import policy_of
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host
from gmemlab.policy import Policy

FACTOR: Final = 2  # the model may lie so many times as far from the kernel as the kernel's runs from each other
START: Final = 0.01  # so much of free memory may lie in zones or of types that the model does not have
NULL_MODEL: Final = "free memory keeps the shares by order that it had when the run began"


class ModelMix:
    """The runs on modelled hosts. Satisfies `measured.MeasuredWorld`.

    Args:
        shmem: how shmem is backed, which depends on the release.
    """

    null_model = NULL_MODEL

    def __init__(self, shmem: Policy) -> None:
        self.shmem = shmem

    def take(self, step: Step, texts: Mapping[str, str]) -> Seen:
        """One run, by the first CPU; its number is the seed of what no snapshot tells. The pool has surplus pages only."""
        host = host_of(texts, step.file, with_lists=True)
        host.set_pool("2M", 0, step.size // HUGE * KINDS.count("hugetlb"))
        files = [self.open(host, kind, step.size) for kind in KINDS]
        failed, counts = play(step, files, lambda: free_by_order(host))
        host.audit()
        return Seen(0, step.offset, counters={**counts, "failed": failed})

    def open(self, host: Host, kind: str, size: int) -> GuestMemory:
        """An empty file."""
        if kind == "guest_memfd":
            return host.guest_memfd(size, "4k-inplace", flags=3)
        return host.memory(size, self.shmem if kind == "shmem" else "hugetlbfs")

    def comparisons(self, compared: Compared) -> list[Comparison]:
        """Free memory by order at each moment. The first shows what the snapshot lost, and whether the runs began alike."""
        first, *found = [compare(moment, compared) for moment in MOMENTS]
        rule = f"at most {START:.0%}"
        return [replace(first, rule=rule, holds=first.distance <= START), *found, beats_null(found)]


def compare(moment: str, compared: Compared) -> Comparison:
    """Hold free memory by order at one moment of all runs against the kernel's.

    Args:
        moment: of `MOMENTS`.
        compared: the runs.
    """
    kernel = [shares(from_counters(moment, seen.counters)) for _, _, seen in compared]
    model = [shares(from_counters(moment, seen.counters)) for _, seen, _ in compared]
    null = [shares(from_counters(MOMENTS[0], seen.counters)) for _, _, seen in compared]
    spread = _mean(distance(*pair) for pair in combinations(kernel, 2))
    distances = tuple(map(distance, model, kernel))
    far, simple = _mean(distances), _mean(map(distance, null, kernel))
    rule = f"at most {FACTOR} x kernel to kernel"
    figures = (_middle(kernel), _middle(model), _middle(null))
    return Comparison(f"free by order, {moment}", *figures, far, simple, rule, far <= FACTOR * spread, spread, distances)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _middle(runs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean distribution of some runs."""
    return tuple(sum(order) / len(runs) for order in zip(*runs, strict=True))


def world(facts: dict[str, Any]) -> ModelMix:
    """The world for a recording.

    Args:
        facts: of the recording, as `thp.policy_of` needs them.
    """
    return ModelMix(policy_of(facts).with_choices({"effort": "none"}))  # the suite switches defragmentation off
