"""Speed of the model against the running kernel, in one run: the same operations on both (part of `make bench`).

The kernel's time is time inside its system calls: Python's own share, measured with a function that does nothing, is taken
off. The model's time is that of one compiled loop over the same single operations, or of one operation where the kernel has
one call. Both are processor time of this thread, so that what else runs on the machine does not count. Rounds on both
alternate, and the figures are medians.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import kernel_loops
from gmemlab.core import execute, layout, measure
from gmemlab.errors import UnsupportedError
from gmemlab.kernel import abi
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.files import LiveFile, ShmemMemory
from gmemlab.kernel.guest_memfd import GuestMemfd
from gmemlab.kernel.kvm import Vm
from gmemlab.kernel.observe.cache import count_present
from gmemlab.kernel.observe.vmstat import read_vmstat
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.timing import PUNCH, fallocate_ns, null_call_ns
from gmemlab.model.host import Host
from gmemlab.model.policies import KINDS
from gmemlab.presets import find
from gmemlab.units import GIB, format_size

ROUNDS: Final = 5
PASSES: Final = 8  # over a file in 2M, in each round: one takes the model less than a millisecond
LEAVE: Final = 6 * GIB
LARGE: Final = 4 * GIB
SMALL: Final = GIB  # page by page, each of the kernel's calls goes through Python
PATIENCE: Final = 120.0
_SHMEM: Final = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
Nanoseconds = tuple[float, float]  # of all allocations, of all punches
Round = Callable[[], Nanoseconds]


class ModelFile:
    """A file of the model on a host of its own.

    Args:
        policy: name of a preset.
        size: bytes.
    """

    def __init__(self, policy: str, size: int) -> None:
        self.host = Host(2 * size)
        chosen = find(policy)
        self.pages = size // abi.PAGE
        row = self.host.policy_row(chosen)
        error, self.file = execute.open_guest(self.host.state, self.pages, KINDS[chosen.memory], row, 0, 0)
        assert error == 0

    def run(self, op: int) -> float:
        """Nanoseconds of one operation on all of the file."""
        start = time.thread_time_ns()
        error, done = execute.execute(self.host.state, op, self.file, 0, self.pages, 0)
        elapsed = time.thread_time_ns() - start
        assert (error, done) == (0, self.pages)
        return elapsed

    def allocate_each(self, count: int) -> float:
        """Nanoseconds of allocating all of the file, `count` pages with each operation."""
        start = time.thread_time_ns()
        error = kernel_loops.allocate_each(self.host.state, self.file, self.pages, count)
        elapsed = time.thread_time_ns() - start
        assert error == 0
        return elapsed

    def punch_each(self, count: int, step: int) -> float:
        """Nanoseconds of punching `count` pages out of every `step`."""
        start = time.thread_time_ns()
        error = kernel_loops.punch_each(self.host.state, self.file, self.pages, count, step)
        elapsed = time.thread_time_ns() - start
        assert error == 0
        return elapsed

    def present(self) -> int:
        """Pages that are in the file."""
        state = self.host.state
        first = int(state.files[self.file].first_block)
        return int(state.file_blocks["nr_present"][first : first + self.pages // layout.BLOCK_PAGES].sum())

    def everything(self) -> tuple[bytes, ...]:
        """Frame, folio and content of every page; kinds and types of all blocks; what is free, by size; all counters."""
        state = self.host.state
        pages = measure.new_listing(self.pages)
        measure.list_pages(state, self.file, 0, pages)
        blocks = (state.blocks[name].tobytes() for name in ("kind", "migratetype", "owner", "index"))
        return pages.tobytes(), *blocks, state.free_lists["count"].tobytes(), state.tally.tobytes()


class KernelFile:
    """The same operations on a file of the kernel."""

    def __init__(self, memory: LiveFile) -> None:
        self.memory = memory
        self.pages = memory.size // abi.PAGE

    def run(self, mode: int) -> float:
        """Nanoseconds inside one fallocate(2) of all of the file."""
        return fallocate_ns(self.memory.fd, mode, (0,), self.memory.size, null_call_ns())

    def each(self, mode: int, count: int, step: int) -> float:
        """Nanoseconds inside fallocate(2), one call for `count` pages out of every `step`."""
        offsets = range(0, self.memory.size, step * abi.PAGE)
        return fallocate_ns(self.memory.fd, mode, offsets, count * abi.PAGE, null_call_ns())

    def present(self) -> int:
        """Pages that are in the file."""
        return count_present(self.memory.fd, 0, self.memory.size)


def whole_rounds(model: ModelFile, kernel: KernelFile) -> tuple[Round, Round]:
    """Allocate and punch all of a file with one operation each."""
    return (
        lambda: (model.run(layout.OP_ALLOCATE), model.run(layout.OP_PUNCH)),
        lambda: (kernel.run(abi.KEEP_SIZE), kernel.run(PUNCH)),
    )


def single_rounds(model: ModelFile, kernel: KernelFile, count: int) -> tuple[Round, Round]:
    """Allocate and punch all of a file, `count` pages at a time."""
    passes = PASSES if count > 1 else 1

    def in_model() -> Nanoseconds:
        spent = [(model.allocate_each(count), model.punch_each(count, count)) for _ in range(passes)]
        return _mean(spent)

    def in_kernel() -> Nanoseconds:
        spent = [(kernel.each(abi.KEEP_SIZE, count, count), kernel.each(PUNCH, count, count)) for _ in range(passes)]
        return _mean(spent)

    return in_model, in_kernel


def _mean(spent: Sequence[Nanoseconds]) -> Nanoseconds:
    allocating, punching = (sum(part) / len(spent) for part in zip(*spent, strict=True))
    return allocating, punching


def alternate_rounds(model: ModelFile, kernel: KernelFile) -> tuple[Round, Round]:
    """Punch every other page of a file that is there, one page at a time; then the rest, untimed."""

    def in_model() -> Nanoseconds:
        model.run(layout.OP_ALLOCATE)
        spent = model.punch_each(1, 2)
        assert model.present() == model.pages // 2
        model.run(layout.OP_PUNCH)
        return 0.0, spent

    def in_kernel() -> Nanoseconds:
        kernel.memory.allocate()
        spent = kernel.each(PUNCH, 1, 2)
        assert kernel.present() == kernel.pages // 2
        kernel.memory.punch_hole(0, kernel.memory.size)
        return 0.0, spent

    return in_model, in_kernel


def medians(rounds: tuple[Round, Round]) -> tuple[Nanoseconds, Nanoseconds]:
    """Medians of what rounds in the model and in the kernel take, in turn, after one of each that does not count."""
    taken = [tuple(once() for once in rounds) for _ in range(ROUNDS + 1)][1:]
    model, kernel = (tuple(sorted(times[side][part] for times in taken)[ROUNDS // 2] for part in range(2)) for side in range(2))
    return (model[0], model[1]), (kernel[0], kernel[1])


def show(what: str, unit: str, model: float, kernel: float, bar: float) -> bool:
    """One line: both times, how many times faster the model is, the bar. Returns whether it is reached."""
    ratio = kernel / model
    missed = "" if ratio >= bar else "   MISSED"
    print(f"{what:<44}{model:>9.1f} ns{kernel:>11.1f} ns per {unit:<5}{ratio:>8.0f} x   bar {bar:g} x{missed}", flush=True)
    return ratio >= bar


def show_both(what: str, unit: str, number: int, times: tuple[Nanoseconds, Nanoseconds], bar: float) -> list[bool]:
    """A line for allocating and one for punching."""
    model, kernel = times
    names = ("fallocate", "punch")
    return [show(f"{what}: {name}", unit, model[part] / number, kernel[part] / number, bar) for part, name in enumerate(names)]


def in_base_pages() -> list[bool]:
    """guest_memfd: page by page, every other page, and all of it at once."""
    results = []
    with Vm() as vm, GuestMemfd(vm, SMALL, 0) as memory:
        model, kernel = ModelFile("4k", SMALL), KernelFile(memory)
        times = medians(single_rounds(model, kernel, 1))
        results += show_both(f"4K, page by page, {format_size(SMALL)}", "page", model.pages, times, 20)
        (_, ours), (_, theirs) = medians(alternate_rounds(model, kernel))
        each = model.pages // 2
        results.append(show(f"4K, every other page, {format_size(SMALL)}: punch", "page", ours / each, theirs / each, 20))
    with Vm() as vm, GuestMemfd(vm, LARGE, 0) as memory:
        model, kernel = ModelFile("4k", LARGE), KernelFile(memory)
        times = medians(whole_rounds(model, kernel))
        results += show_both(f"4K, uniform, {format_size(LARGE)} in one call", "page", model.pages, times, 100)
    return results


def in_huge_pages(settings: Settings) -> list[bool]:
    """Allocate and punch shmem, 2M at a time."""
    settings.set(_SHMEM, "always")
    with ShmemMemory(LARGE) as memory:
        before = read_vmstat()
        model, kernel = ModelFile("shmem-thp", LARGE), KernelFile(memory)
        times = medians(single_rounds(model, kernel, layout.BLOCK_PAGES))
        if fallbacks := read_vmstat().difference(before)["thp_file_fallback"]:
            print(f"    {fallbacks} of the kernel's 2M allocations fell back to 4K", flush=True)
    return show_both(f"2M shmem, one by one, {format_size(LARGE)}", "2M", model.pages // layout.BLOCK_PAGES, times, 50)


def check_same_state() -> None:
    """One call and single calls leave the same: in the model the same frames, in the kernel the same pages."""
    size = SMALL // 4
    at_once, one_by_one = ModelFile("4k", size), ModelFile("4k", size)
    with Vm() as vm, GuestMemfd(vm, size, 0) as first, GuestMemfd(vm, size, 0) as second:
        whole, single = KernelFile(first), KernelFile(second)
        at_once.run(layout.OP_ALLOCATE)
        one_by_one.allocate_each(1)
        whole.run(abi.KEEP_SIZE)
        single.each(abi.KEEP_SIZE, 1, 1)
        assert at_once.everything() == one_by_one.everything()
        assert at_once.present() == whole.present() == single.present() == at_once.pages
        at_once.run(layout.OP_PUNCH)
        one_by_one.punch_each(1, 1)
        whole.run(PUNCH)
        single.each(PUNCH, 1, 1)
        assert at_once.everything() == one_by_one.everything()
        assert at_once.present() == whole.present() == single.present() == 0
    print(f"uniform and page by page end in the same state, in the model and in the kernel ({format_size(size)})", flush=True)


def main() -> int:
    """Print all figures. Returns 1 if a bar is missed."""
    if os.geteuid() != 0:
        print("kernel benchmark skipped: needs root")
        return 0
    print(f"{'':<44}{'model':>12}{'kernel':>14}", flush=True)
    results: list[bool] = []
    try:
        Budget(LARGE, leave=LEAVE).check(LARGE, "the kernel benchmark")
        check_same_state()
        results += in_base_pages()
        with Settings(patience=PATIENCE) as settings:
            results += in_huge_pages(settings)
    except UnsupportedError as error:
        print(f"kernel benchmark skipped: {error}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
