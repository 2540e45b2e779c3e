"""The judge: what the kernel showed, against what the model says it should have shown."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gmemlab.kernel.suites.steps import EVERY, FileSeen, Runs, Seen, Step, World


@dataclass(frozen=True)
class Mismatch:
    """The first step after which the worlds differ.

    Attributes:
        number: of the step, from 0.
        step: the step.
        differences: one line each: what, in the kernel, in the model.
    """

    number: int
    step: Step
    differences: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What differs, without the numbers: two sequences that show the same thing have the same kind."""
        return f"{self.step.op}: {self.differences[0].split(':')[0].split(', ')[-1]}"


class ModelWorld(World, Protocol):
    """A suite's world in the model, which knows how sightings of its kind are compared."""

    def compare(self, model: Seen, kernel: Seen) -> list[str]:
        """What differs, one line each."""


def judge(recorded: Iterable[tuple[Step, Seen]], model: ModelWorld) -> Iterator[Mismatch | None]:
    """Take the recorded steps in the model, and compare after each.

    Yields None for each step after which they agree, and ends with the first mismatch.
    """
    for number, (step, seen) in enumerate(recorded):
        error, done = model.apply(step)
        files, counters = model.look(None if number % EVERY == 0 else (step.file,))
        found = model.compare(Seen(error, done, files, counters), seen)
        yield Mismatch(number, step, tuple(found)) if found else None
        if found:
            return


def differences(model: Seen, kernel: Seen) -> list[str]:
    """What differs, one line each."""
    found = []
    if model.errno != kernel.errno:
        found.append(f"result: kernel {errno_name(kernel.errno)}, model {errno_name(model.errno)}")
    elif model.done != kernel.done:
        found.append(f"pages done: kernel {kernel.done}, model {model.done}")
    for number in sorted(model.files.keys() | kernel.files.keys()):
        if number not in model.files or number not in kernel.files:
            where = "kernel" if number in kernel.files else "model"
            found.append(f"file {number} is there in the {where} only")
            continue
        found += [f"file {number}, {text}" for text in _file_differences(model.files[number], kernel.files[number])]
    for name in sorted(model.counters.keys() | kernel.counters.keys()):
        one, other = kernel.counters.get(name), model.counters.get(name)
        if one != other:
            found.append(f"{name}: kernel {one}, model {other}")
    return found


def errno_name(number: int) -> str:
    """`EINVAL` for 22, `success` for 0."""
    return errno.errorcode.get(number, str(number)) if number else "success"


def _file_differences(model: FileSeen, kernel: FileSeen) -> Iterator[str]:
    if model.present != kernel.present:
        yield f"pages present: kernel {_runs(kernel.present)}, model {_runs(model.present)}"
    if model.used != kernel.used:
        yield f"pages up to date: kernel {_runs(kernel.used)}, model {_runs(model.used)}"
    if model.tags != kernel.tags:
        yield _contents(model.tags, kernel.tags)
    if model.folios != kernel.folios:
        yield f"folios: kernel {_folios(kernel.folios, model.folios)}, model {_folios(model.folios, kernel.folios)}"


def _runs(runs: Runs | None) -> str:
    if runs is None:
        return "not seen"
    return " ".join(f"{first}-{first + count - 1}" if count > 1 else str(first) for first, count in runs) or "none"


def _contents(model: bytes | None, kernel: bytes | None) -> str:
    if model is None or kernel is None or len(model) != len(kernel):
        return f"contents: kernel {_length(kernel)}, model {_length(model)}"
    wrong = [page for page, (one, other) in enumerate(zip(kernel, model, strict=True)) if one != other]
    page = wrong[0]
    more = f" and {len(wrong) - 1} more pages" if len(wrong) > 1 else ""
    return f"contents of page {page}: kernel {kernel[page]:#x}, model {model[page]:#x}{more}"


def _length(tags: bytes | None) -> str:
    return "not seen" if tags is None else f"{len(tags)} pages"


def _folios(mine: Sequence[tuple[int, ...]] | None, other: Sequence[tuple[int, ...]] | None) -> str:
    """The folios that only one of the worlds has, in short."""
    if mine is None:
        return "not seen"
    own = [row for row in mine if other is None or row not in other]
    texts = [f"{size} pages at {first}" + (f" (from its page {inside} on)" if inside else "") for first, size, inside, _ in own]
    return ", ".join(texts[:12]) + (f" and {len(texts) - 12} more" if len(texts) > 12 else "") or "nothing else"
