"""Suites that are measured: their figures are compared with the kernel's, and with those of a null model, at the end.

Where free memory lies depends on what else the machine did, so that no step can be held against the kernel by itself. What is
compared is how far the model's figures lie from the kernel's, and whether a null model that knows less lies further away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gmemlab.kernel.suites.steps import Seen, Step

Compared = Sequence[tuple[Step, Seen, Seen]]  # each step, with what came of it in the model and in the kernel


@dataclass(frozen=True)
class Comparison:
    """A figure, or free memory by order, three times.

    Attributes:
        name: what it is.
        kernel: bytes, or the share of each order, 0 to 1; the mean over the runs if there are several.
        model: the same of the model.
        null: the same of the null model.
        distance: of the model from the kernel, 0 to 1.
        null_distance: of the null model from the kernel.
        rule: what must hold, in words.
        holds: whether it does.
        spread: mean distance of the kernel's runs from each other; None if there is one only.
        distances: of the model from the kernel in each run, whose mean `distance` is; none if there is one only.
    """

    name: str
    kernel: tuple[float, ...]
    model: tuple[float, ...]
    null: tuple[float, ...]
    distance: float
    null_distance: float
    rule: str
    holds: bool
    spread: float | None = None
    distances: tuple[float, ...] = ()

    @property
    def by_order(self) -> bool:
        """Whether it has shares by order, instead of bytes."""
        return len(self.kernel) > 1


class MeasuredWorld(Protocol):
    """A suite in the model, which knows how its figures are compared.

    Attributes:
        null_model: one sentence for people: what the null model says.
    """

    null_model: str

    def take(self, step: Step, texts: Mapping[str, str]) -> Seen:
        """Take a step on a host with the free memory that the kernel had before it, and see that nothing is lost."""

    def comparisons(self, compared: Compared) -> list[Comparison]:
        """What came of all steps, figure by figure."""


def measure(recorded: Iterable[tuple[Step, Seen]], model: MeasuredWorld) -> list[Comparison]:
    """Take the recorded steps in the model, and compare at the end.

    Args:
        recorded: the steps, and what the kernel showed.
        model: where they are taken, too.
    """
    return model.comparisons([(step, model.take(step, kernel.texts), kernel) for step, kernel in recorded])


def shares(sizes: Sequence[float]) -> tuple[float, ...]:
    """Return the share that each of some sizes has of all; zeros of nothing."""
    total = sum(sizes)
    return tuple(size / total if total else 0.0 for size in sizes)


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the total variation distance of two distributions of shares: 0 if they are the same, 1 if they share nothing."""
    return sum(abs(mine - yours) for mine, yours in zip(one, other, strict=True)) / 2


def beats_null(comparisons: Sequence[Comparison]) -> Comparison:
    """Return a comparison of all others: the model is nearer to the kernel than the null model, on average."""
    model, null = (
        sum(values) / len(comparisons)
        for values in ([one.distance for one in comparisons], [one.null_distance for one in comparisons])
    )
    return Comparison("all of these", (), (), (), model, null, "nearer than the null model", model < null)
