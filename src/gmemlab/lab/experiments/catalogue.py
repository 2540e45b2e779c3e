"""What an experiment is, and which there are: every module of this package that has an EXPERIMENT."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

from gmemlab.errors import UsageError
from gmemlab.lab.times import Interval

AGREES: Final = "agrees"
MISS: Final = "miss"
NO_TEST: Final = "no test"
SHOWN: Final = "shown"  # a figure to read, which nothing is held against
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Check:
    """One figure of the model beside a published one.

    Attributes:
        what: in words, with its unit.
        model: what the model says, written for people.
        published: the same of the source; empty where it has none.
        verdict: agrees, miss, no test, or shown.
        remark: why, or what it rests on.
        figures: the numbers behind it, for programs.
    """

    what: str
    model: str
    published: str
    verdict: str
    remark: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes:
        checks: in the order in which they are to be read.
        sentences: what they mean.
    """

    checks: tuple[Check, ...]
    sentences: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Of all checks: a miss if any is one, else no test if any is none."""
        verdicts = {check.verdict for check in self.checks}
        return next((verdict for verdict in (MISS, NO_TEST) if verdict in verdicts), AGREES)


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: on the command line, like its module.
        title: one line.
        statement: what is tested.
        source: rows of the facts.
        procedure: what is done.
        limits: what the published figures have that the model has not, and what is an input.
        run: does it; called with what is being done and the share of all that is done.
    """

    name: str
    title: str
    statement: str
    source: str
    procedure: str
    limits: tuple[str, ...]
    run: Callable[[Progress], Outcome]


def judge(predicted: Interval, published: float) -> str:
    """Return what a published figure says of what is predicted of the same thing.

    Outside the interval, on either side, it is a miss, however wide the interval; inside one that is too wide, it is no test.
    """
    if not predicted.low <= published <= predicted.high:
        return MISS
    return NO_TEST if predicted.useless else AGREES


def experiments() -> dict[str, Experiment]:
    """Return all experiments by name."""
    package = __name__.rpartition(".")[0]
    modules = (import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(import_module(package).__path__))
    found = (module.EXPERIMENT for module in modules if hasattr(module, "EXPERIMENT"))
    return {experiment.name: experiment for experiment in found}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Return experiments by name, each once; all of them if none is named. UsageError for an unknown name."""
    known = experiments()
    for name in names:
        if name not in known:
            raise UsageError("no such experiment", value=name, allowed=", ".join(known))
    return [known[name] for name in dict.fromkeys(names or known)]
