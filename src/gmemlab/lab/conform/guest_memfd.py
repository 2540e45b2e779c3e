"""The model's world for the suite `guest-memfd` (L1 to L11)."""

import errno
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.errors import operation_error
from gmemlab.kernel.suites.guest_memfd import ADVICE, CALLS, MAPPINGS
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.lab.conform.model_files import ModelFile, ModelFiles, runs
from gmemlab.model.guest import GuestMemory

GONE: Final = -1  # a memslot outlives the file that it was bound to (G32)
# What the kernel answers to calls that a guest_memfd does not serve (L4, G16).
REFUSED: Final = {
    "read": errno.EINVAL,
    "write": errno.EINVAL,
    "pread": errno.ESPIPE,
    "pwrite": errno.ESPIPE,
    "lseek": errno.ESPIPE,
    "ftruncate": errno.EINVAL,
    "fsync": errno.EINVAL,
    "fchmod": errno.EINVAL,
}
NO_ADVICE: Final = ("COLLAPSE", "FREE")  # L7


class ModelGuestMemfd(ModelFiles):
    """Files of an ordinary VM, 4 KiB pages (G34), with memslots.

    Args:
        flags: that the kernel has (G8): none before 6.18.
        overlap: errno of a second memslot on the same range of a file, which depends on the release (G29).
        exec_mapping: errno of an executable mapping, which does, too.
        memslots: whether the VM may have memslots with guest_memfd.
    """

    def __init__(self, flags: int, overlap: int, exec_mapping: int, memslots: int) -> None:
        super().__init__()
        self.flags = flags
        self.exec_mapping = exec_mapping
        self.overlap = overlap
        self.memslots = memslots
        self.slots: dict[int, tuple[int, int, int]] = {}  # slot: file, offset, end
        self.actions |= {
            "fallocate": self.fallocate,
            "call": self.call,
            "map": self.map,
            "advise": self.advise,
            "bind": self.bind,
            "unbind": self.unbind,
        }

    def open(self, step: Step) -> GuestMemory:
        """A file with the flags of the step; everything starts shared where they say so, else private."""
        self.slots = {slot: (GONE, 0, 0) if bound[0] == step.file else bound for slot, bound in self.slots.items()}
        if step.arg & ~self.flags:
            raise operation_error(errno.EINVAL, 0, "create")
        return self.host.guest_memfd(step.size, "4k-inplace", flags=step.arg)

    def seen(self, file: ModelFile, pages: NDArray[np.int64]) -> FileSeen:
        """Presence of every page; what was used, and its contents, only where the host can map the file."""
        present = runs(pages[:, 1] >= 0)
        if not file.memory.mappable:
            return FileSeen(present=present)
        used = pages[:, 3] == layout.USED
        return FileSeen(present=present, used=runs(used), tags=bytes(np.where(used, file.tags, 0).astype(np.uint8)))

    def fallocate(self, file: ModelFile, step: Step) -> None:
        """Fallocate with a mode that guest_memfd does not know: the range is asked about first (L2)."""
        if step.offset < 0 or step.size <= 0:
            raise operation_error(errno.EINVAL, 0, "fallocate")
        raise operation_error(errno.EOPNOTSUPP, 0, "fallocate")

    def call(self, file: ModelFile, step: Step) -> None:
        """A system call on the descriptor that a guest_memfd does not serve."""
        name = CALLS[step.arg % len(CALLS)]
        raise operation_error(REFUSED[name], 0, name)

    def map(self, file: ModelFile, step: Step) -> None:
        """Mmap of the file in a way that is refused, or would be if it were mappable at all (L5)."""
        how = MAPPINGS[step.arg % len(MAPPINGS)]
        if how == "exec":  # asked first
            raise operation_error(self.exec_mapping, 0, "mmap")
        if not file.memory.mappable:
            raise operation_error(errno.ENODEV, 0, "mmap")
        if how == "private":
            raise operation_error(errno.EINVAL, 0, "mmap")

    def advise(self, file: ModelFile, step: Step) -> None:
        """Madvise on a mapping of the file (L7)."""
        advice = ADVICE[step.arg % len(ADVICE)]
        if not file.memory.mappable:
            raise operation_error(errno.ENODEV, 0, "mmap")
        if advice in NO_ADVICE:
            raise operation_error(errno.EINVAL, 0, "madvise")
        if advice == "REMOVE":
            file.memory.punch_hole(step.offset, step.size)

    def bind(self, file: ModelFile, step: Step) -> None:
        """A memslot on a range of the file (L11, G28, G29)."""
        end = step.offset + step.size
        wrong = step.offset < 0 or step.size <= 0 or (step.offset | step.size) % PAGE or end > file.memory.size
        if wrong or not self.memslots:
            raise operation_error(errno.EINVAL, 0, "memslot")
        if step.arg in self.slots:  # a slot with guest_memfd cannot be changed (G30)
            raise operation_error(errno.EINVAL, 0, "memslot")
        for other, begin, stop in self.slots.values():
            if other == step.file and step.offset < stop and begin < end:
                raise operation_error(self.overlap, 0, "memslot")
        self.slots[step.arg] = (step.file, step.offset, end)

    def unbind(self, file: ModelFile, step: Step) -> None:
        """Delete a memslot."""
        if self.slots.pop(step.arg, None) is None:
            raise operation_error(errno.EINVAL, 0, "memslot")


def world(settings: dict[str, Any]) -> ModelGuestMemfd:
    """The world for a recording.

    Args:
        settings: of the recording: `flags` that the kernel has, and errnos as `kernel.differences` has them.
    """
    return ModelGuestMemfd(*(int(settings[name]) for name in ("flags", "memslot_overlap", "exec_mapping", "ordinary_memslots")))
