"""The model's world for suites on files: the steps of `kernel.suites`, carried out on a modelled host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout, measure
from gmemlab.errors import OperationError
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Runs, Seen, Step, attempt
from gmemlab.lab.conform.judge import differences
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host

HOST_SIZE: Final = "2G"
Tags = NDArray[np.uint8]
Action = Callable[["ModelFile", Step], None]


@dataclass
class ModelFile:
    """A file of the model, and the tag that was last written to each page (0: none, or gone since)."""

    memory: GuestMemory
    tags: Tags

    def pages(self, state: Any) -> NDArray[np.int64]:
        """Frame, folio order (-1 for holes), attribute, content and mapping of every page, one row each."""
        table = measure.new_listing(self.memory.size // PAGE)
        measure.list_pages(state, self.memory.file, 0, table)
        return table


class ModelFiles:
    """Files of one kind on a modelled host. Satisfies `kernel.suites.steps.World`; subclasses open files and look."""

    def __init__(self) -> None:
        """An empty host."""
        self.host = Host(HOST_SIZE)
        self.files: dict[int, ModelFile] = {}
        self.actions: dict[str, Action] = {
            "allocate": lambda file, step: file.memory.allocate(step.offset, step.size),
            "punch": lambda file, step: file.memory.punch_hole(step.offset, step.size),
            "pin": lambda file, step: file.memory.pin(step.offset, step.size),
            "unpin": lambda file, step: file.memory.unpin(step.offset, step.size),
            "write": self.write,
            "reserve": lambda file, step: file.memory.reserve(step.offset, step.size),
            "collapse": lambda file, step: file.memory.collapse(step.offset, step.size),
        }

    def open(self, step: Step) -> GuestMemory:
        """The memory that a step `create` asks for."""
        raise NotImplementedError

    def seen(self, file: ModelFile, pages: NDArray[np.int64]) -> FileSeen:
        """What the live world sees of a file of this kind."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """What the live world counts."""
        return {}

    def apply(self, step: Step) -> tuple[int, int]:
        """Carry out a step."""
        return attempt(lambda: self._apply(step))

    def _apply(self, step: Step) -> int:
        if step.op == "create":
            self._close(step.file)
            memory = self.open(step)
            self.files[step.file] = ModelFile(memory, np.zeros(memory.size // PAGE, dtype=np.uint8))
            return 0
        if step.file not in self.files:
            return 0
        if step.op == "close":
            self._close(step.file)
            return 0
        self.actions[step.op](self.files[step.file], step)
        self._forget(step.file)
        return max(0, step.size // PAGE)

    def write(self, file: ModelFile, step: Step) -> None:
        """The host writes a tag to every page, ascending."""
        for done in range(step.size // PAGE):
            page = step.offset // PAGE + done
            try:
                file.memory.access(page * PAGE, PAGE, by="host")
            except OperationError as error:
                self._forget(step.file)
                error.done = done
                raise
            file.tags[page] = step.arg

    def _forget(self, number: int) -> None:
        """Pages that are gone, or read zero since, have no tag any more."""
        file = self.files[number]
        content = file.pages(self.host.state)[:, 3]
        file.tags[(content != layout.USED) & (content != layout.STALE)] = 0

    def _close(self, number: int) -> None:
        if number in self.files:
            self.files.pop(number).memory.close()

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """What can be seen of some files, by default all."""
        numbers = [number for number in (sorted(self.files) if files is None else files) if number in self.files]
        seen = {number: self.seen(self.files[number], self.files[number].pages(self.host.state)) for number in numbers}
        return seen, self.counters()

    def compare(self, model: Seen, kernel: Seen) -> list[str]:
        """Everything is the same."""
        return differences(model, kernel)

    def close(self) -> None:
        """Close all files, and see that nothing is lost."""
        for number in list(self.files):
            self._close(number)
        self.host.audit()


def runs(flags: NDArray[np.bool_]) -> Runs:
    """Runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return tuple((int(start), int(end - start)) for start, end in zip(edges[::2], edges[1::2], strict=True))


def folio_runs(pages: NDArray[np.int64]) -> tuple[tuple[int, int, int, int], ...]:
    """Runs of present pages of one folio: first page, pages of the folio, index inside it, pages of the run."""
    orders = pages[:, 1]
    index = np.arange(len(orders))
    sizes = np.where(orders >= 0, np.int64(1) << np.maximum(orders, 0), 0)
    inside = np.where(orders >= 0, pages[:, 0] & (sizes - 1), 0)
    begins = (orders >= 0) & (
        (index == 0) | (np.roll(orders, 1) != orders) | (inside == 0) | (np.roll(pages[:, 0], 1) != pages[:, 0] - 1)
    )
    starts = np.flatnonzero(begins)
    stops = np.flatnonzero((orders >= 0) & np.append(begins[1:] | (orders[1:] < 0), True)) + 1
    return tuple(
        (int(start), int(sizes[start]), int(inside[start]), int(stop - start))
        for start, stop in zip(starts, stops, strict=True)
    )
