"""The suite `guest-memfd`: files of an ordinary VM, with every flag, every refusal, and memslots (L1 to L11)."""

import errno
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final, cast

from gmemlab.errors import operation_error
from gmemlab.kernel import abi
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.calls import MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ_WRITE, madvise, mmap, munmap
from gmemlab.kernel.differences import difference
from gmemlab.kernel.features import read_release
from gmemlab.kernel.guest_memfd import GuestMemfd
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.cache import pages_uptodate
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.live_files import LiveFiles, tags_of
from gmemlab.kernel.suites.plans import LARGEST, Plan
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step, runs_of

NAME: Final = "guest-memfd"
CALLS: Final = ("read", "write", "pread", "pwrite", "lseek", "ftruncate", "fsync", "fchmod")
MAPPINGS: Final = ("private", "exec", "beyond")
ADVICE: Final = ("REMOVE", "DONTNEED", "HUGEPAGE", "COLLAPSE", "FREE")
SLOTS: Final = 4
SIZES: Final = (1, 2, 3, 7, 16, 33, 64, 130, 512, 700)  # pages
BAD_SIZES: Final = (0, 1, PAGE - 1, PAGE + 1, -PAGE, 1 << 63, (1 << 64) - PAGE)
FLAGS: Final = (3, 3, 3, 3, 1, 0)  # mostly files that the host can read
BAD_FLAGS: Final = (4, 7, 1 << 33)
WEIGHTS: Final = {
    "allocate": 25, "punch": 25, "write": 25, "pin": 5, "unpin": 5, "advise": 4, "fallocate": 3, "call": 2, "map": 2,
    "bind": 3, "unbind": 2, "close": 1, "refused": 1,
}  # fmt: skip


class GuestMemfdPlan(Plan):
    """Adds memslots, and files that cannot be created."""

    def step(self, op: str, file: int) -> Step:
        """One operation on a file."""
        if op == "refused":
            if self.random.randrange(2):
                step = Step("create", file, 0, self.random.choice(BAD_SIZES), self.random.choice(FLAGS))
            else:
                step = Step("create", file, 0, self.files[file] * PAGE, self.random.choice(BAD_FLAGS))
            del self.files[file]
            self.pins = [pin for pin in self.pins if pin[0] != file]
            return step
        if op == "bind":
            offset, size = self.bad_range(file) if self.random.randrange(5) == 0 else self.range(file)
            if offset + size > LARGEST:
                offset, size = 0, (self.files[file] + 1) * PAGE
            return Step(op, file, offset, size, self.random.randrange(SLOTS))
        if op == "unbind":
            return Step(op, file, 0, 0, self.random.randrange(SLOTS))
        return super().step(op, file)


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations."""
    return GuestMemfdPlan(random, SIZES, WEIGHTS, unit=64, create_args=FLAGS).steps(count)


class LiveGuestMemfd(LiveFiles):
    """Files of one ordinary machine, whose memslots they share."""

    def __init__(self) -> None:
        super().__init__("guest_memfd")
        self.vm = self.host.machine(abi.VM_DEFAULT)
        self.actions |= {
            "fallocate": lambda file, step: _file(file).fallocate(step.arg, step.offset, step.size),
            "call": lambda file, step: refused_call(_file(file), CALLS[step.arg % len(CALLS)]),
            "map": lambda file, step: map_oddly(_file(file), MAPPINGS[step.arg % len(MAPPINGS)]),
            "advise": lambda file, step: advise(_file(file), ADVICE[step.arg % len(ADVICE)], step),
            "bind": self.bind,
            "unbind": self.unbind,
        }
        self.shared_side = AnonymousMemory(max(SIZES) * PAGE + 2 * PAGE)  # a memslot needs some; nobody touches it

    def open(self, step: Step) -> LiveMemory:
        """A file with the flags of the step."""
        return self.host.guest_memfd(step.size, step.arg)

    def seen(self, memory: LiveMemory) -> FileSeen:
        """Presence; what is up to date, and its contents, only where the host can map the file."""
        present = runs_of(memory.present())
        if not memory.address:
            return FileSeen(present=present)
        used = runs_of(pages_uptodate(memory.address, memory.size)) if present else ()
        return FileSeen(present=present, used=used, tags=tags_of(memory, used))

    def bind(self, file: LiveMemory, step: Step) -> None:
        """A memslot on a range of the file, at a guest address of its own."""
        with file.errors("bind"):
            if step.size <= 0:  # 0 would delete the slot
                raise operation_error(errno.EINVAL, 0, "bind")
            gpa, user = (step.arg + 1) << 36, self.shared_side.address
            self.vm.set_memory_region(step.arg, gpa, step.size, user, file.fd, step.offset)

    def unbind(self, file: LiveMemory, step: Step) -> None:
        """Delete a memslot."""
        with file.errors("unbind"):
            self.vm.set_memory_region(step.arg, (step.arg + 1) << 36, 0, 0, file.fd, 0)

    def close(self) -> None:
        """Close the files, and what the memslots pointed to."""
        super().close()
        self.shared_side.close()


def refused_call(file: GuestMemfd, name: str) -> None:
    """A system call that guest_memfd does not serve (L4, G16)."""
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: os.read(file.fd, 1),
        "write": lambda: os.write(file.fd, b"x"),
        "pread": lambda: os.pread(file.fd, 1, 0),
        "pwrite": lambda: os.pwrite(file.fd, b"x", 0),
        "lseek": lambda: os.lseek(file.fd, 0, os.SEEK_SET),
        "ftruncate": lambda: os.ftruncate(file.fd, PAGE),
        "fsync": lambda: os.fsync(file.fd),
        "fchmod": lambda: os.fchmod(file.fd, 0o600),
    }
    with file.errors(name):
        calls[name]()


def map_oddly(file: GuestMemfd, how: str) -> None:
    """Mmap in a way that guest_memfd refuses, or beyond its end, which it allows (L5)."""
    size = file.size + PAGE if how == "beyond" else file.size
    prot = PROT_READ_WRITE | PROT_EXEC if how == "exec" else PROT_READ_WRITE
    with file.errors(f"mmap {how}"):
        munmap(mmap(size, prot, MAP_PRIVATE if how == "private" else MAP_SHARED, file.fd), size)


def advise(file: GuestMemfd, advice: str, step: Step) -> None:
    """Madvise on a range of the mapping (L7)."""
    if not file.address:
        raise operation_error(errno.ENODEV, 0, "mmap")
    with file.errors(f"madvise {advice}"):
        madvise(file.address + step.offset, step.size, getattr(abi, f"MADV_{advice}"))


def _file(memory: LiveMemory) -> GuestMemfd:
    return cast(GuestMemfd, memory)


def live(settings: Settings) -> tuple[LiveGuestMemfd, dict[str, Any]]:
    """Files of guest_memfd; what a judge must know is which flags there are, and errnos that depend on the release."""
    world = LiveGuestMemfd()
    flags = world.vm.capability("KVM_CAP_GUEST_MEMFD_FLAGS")
    names = ("memslot_overlap", "exec_mapping", "ordinary_memslots")
    return world, {"flags": flags, **{name: difference(name, read_release()) for name in names}}
