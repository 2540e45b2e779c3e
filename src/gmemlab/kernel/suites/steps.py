"""What a suite does and sees: steps, outcomes, sightings, and their form as lines of JSON."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from gmemlab.errors import OperationError, UsageError

PAGE: Final = 4096
Runs = tuple[tuple[int, int], ...]  # (first page, pages), ascending


class Step(NamedTuple):
    """One operation.

    Attributes:
        op: its name; each suite says which it knows.
        file: which of the suite's files.
        offset: bytes, perhaps wrong on purpose.
        size: bytes, perhaps wrong on purpose.
        arg: what else the operation needs: flags, a tag, a mode.
    """

    op: str
    file: int = 0
    offset: int = 0
    size: int = 0
    arg: int = 0

    def __str__(self) -> str:
        return f"{self.op} of file {self.file}: {self.size:#x} bytes at {self.offset:#x}, {self.arg:#x}"


@dataclass(frozen=True)
class FileSeen:
    """What can be seen of one file; None where its kind cannot be looked at in that way.

    Attributes:
        present: runs of pages that are in the file.
        used: runs of pages that are up to date: zeroed at first use (G27).
        tags: the first byte of every page.
        folios: (first page, pages of its folio, index of the first page inside the folio, pages seen) of each run.
    """

    present: Runs | None = None
    used: Runs | None = None
    tags: bytes | None = None
    folios: tuple[tuple[int, int, int, int], ...] | None = None


@dataclass(frozen=True)
class Seen:
    """What came of a step.

    Attributes:
        errno: 0 or the kernel's error number.
        done: pages that were handled before the error (or in all).
        files: by the suite's numbers, those that were looked at.
        counters: since the suite's start.
        texts: files of /proc as they were before the step, by name, where a suite reads them.
    """

    errno: int
    done: int
    files: Mapping[int, FileSeen] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class World(Protocol):
    """Where steps happen: the running kernel, or the model."""

    def apply(self, step: Step) -> tuple[int, int]:
        """Carry out a step. Returns (errno, pages done); a step on a file that is not there is skipped: (0, 0)."""

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What can be seen of some of the files that are there, by default of all; and the counters."""

    def close(self) -> None:
        """Give everything back."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A world that reads files of /proc before each step.

    Attributes:
        texts: what it read last, by name.
    """

    texts: Mapping[str, str]


def attempt(action: Callable[[], int]) -> tuple[int, int]:
    """Carry out an operation that returns its pages: (0, pages), or its errno and the pages done before."""
    try:
        return 0, action()
    except OperationError as error:
        return error.errno or 0, error.done


EVERY: Final = 16  # after so many steps all files are looked at, not only the one that the step was about


def drive(world: World, steps: Iterable[Step]) -> Iterator[tuple[Step, Seen]]:
    """Carry out steps and look after each."""
    for number, step in enumerate(steps):
        errno, done = world.apply(step)
        files, counters = world.look(None if number % EVERY == 0 else (step.file,))
        yield step, Seen(errno, done, files, counters, world.texts if isinstance(world, ReadsFiles) else {})


def runs_of(flags: Sequence[bool]) -> Runs:
    """Runs of true values."""
    found: list[tuple[int, int]] = []
    start = -1
    for index, there in enumerate([*flags, False]):
        if there and start < 0:
            start = index
        elif not there and start >= 0:
            found.append((start, index - start))
            start = -1
    return tuple(found)


# -- as JSON: one line for each step ----------------------------------------------------------------------------------------
def encode(step: Step, seen: Seen) -> list[Any]:
    """A step and what came of it, as JSON has it."""
    files = {
        str(number): [
            file.present,
            file.used,
            None if file.tags is None else file.tags.hex(),
            file.folios,
        ]
        for number, file in seen.files.items()
    }
    return [list(step), seen.errno, seen.done, files, dict(seen.counters), *([dict(seen.texts)] if seen.texts else [])]


def decode(data: Any) -> tuple[Step, Seen]:
    """The step and the sighting of one line.

    Raises:
        UsageError: it is none; without the place.
    """
    try:
        step, errno, done, files, counters, *more = data
        seen = {int(number): _file(*parts) for number, parts in files.items()}
        counts = {str(key): int(value) for key, value in counters.items()}
        texts = {str(name): str(text) for table in more for name, text in table.items()}
        return Step(*step), Seen(int(errno), int(done), seen, counts, texts)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError("not a recorded step", value=data) from error


def _file(present: Any, used: Any, tags: str | None, folios: Any) -> FileSeen:
    rows = None if folios is None else tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in folios)
    return FileSeen(_runs(present), _runs(used), None if tags is None else bytes.fromhex(tags), rows)


def _runs(data: Any) -> Runs | None:
    return None if data is None else tuple((int(first), int(count)) for first, count in data)
