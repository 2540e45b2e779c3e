"""The model's world for the suite `attributes`: a two-source guest whose VMM discards only when it is told to (K12)."""

import errno
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from gmemlab.core import execute, layout
from gmemlab.errors import operation_error
from gmemlab.kernel.suites.attributes import PRIVATE_SIDE, SHARED_SIDE, SIZE
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Seen, Step, attempt
from gmemlab.lab.conform.judge import differences
from gmemlab.lab.conform.model_files import runs
from gmemlab.model.host import Host
from gmemlab.model.observe import file_pages
from gmemlab.presets import find

POLICY = find("4k").with_choices({"vmm_punch": "none", "shared": "thp"})


class ModelAttributes:
    """The guest on a modelled host. Satisfies `judge.ModelWorld`."""

    def __init__(self) -> None:
        self.host = Host("1G")
        self.guest = self.host.guest_memfd(SIZE, POLICY)
        self.shared_side = int(self.host.state.files[self.guest.file].shared_file)

    def apply(self, step: Step) -> tuple[int, int]:
        """Carry out a step."""
        return attempt(lambda: self._apply(step))

    def _apply(self, step: Step) -> int:
        if step.op == "access":
            self.access(step.offset // PAGE, step.size // PAGE)
        elif step.op in ("to_shared", "to_private"):
            self.guest.convert(step.offset, step.size, step.op.removeprefix("to_"))
        elif step.op == "punch":
            self.guest.punch_hole(step.offset, step.size)
        elif step.op == "discard":
            first, count = step.offset // PAGE, step.size // PAGE
            execute.execute(self.host.state, layout.OP_PUNCH, self.shared_side, first, count, 0)
        else:  # an attribute that does not exist (G38)
            raise operation_error(errno.EINVAL, 0, "attribute")
        return step.size // PAGE

    def access(self, first: int, count: int) -> None:
        """Touch each page as its attribute says."""
        pages = file_pages(self.host.state, self.guest.file, first, count)
        for shared, run in groupby(pages, key=lambda page: page.shared):
            touched = [page.page for page in run]
            by = "guest-shared" if shared else "guest"
            self.guest.access(touched[0] * PAGE, len(touched) * PAGE, by=by)

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """Pages of both sides."""
        sides = {PRIVATE_SIDE: self.guest.file, SHARED_SIDE: self.shared_side}
        return {number: FileSeen(present=self.present(file)) for number, file in sides.items()}, {}

    def present(self, file: int) -> tuple[tuple[int, int], ...]:
        """Runs of pages that a file has."""
        return runs(np.array([page.order >= 0 for page in file_pages(self.host.state, file)]))

    def compare(self, model: Seen, kernel: Seen) -> list[str]:
        """Everything is the same."""
        return differences(model, kernel)

    def close(self) -> None:
        """Close the guest, and see that nothing is lost."""
        self.guest.close()
        self.host.audit()


def world(facts: dict[str, Any]) -> ModelAttributes:
    """The world for a recording.

    Args:
        facts: of the recording; none are needed.
    """
    return ModelAttributes()
