"""`gmemlab conform` can fail: the model is altered, one fault at a time, and each is reported with a short reproduction."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gmemlab.errors import OperationError, operation_error
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.suites.steps import PAGE, FileSeen
from gmemlab.kernel.suites.table import find
from gmemlab.lab.conform.guest_memfd import ModelGuestMemfd
from gmemlab.lab.conform.model_files import ModelFiles
from gmemlab.lab.conform.run import DIFFERS, SKIPPED, conform_suite
from gmemlab.lab.conform.thp import ModelShmem
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host

HUGE = 512 * PAGE
allocate, punch, pin, unpin = GuestMemory.allocate, GuestMemory.punch_hole, GuestMemory.pin, GuestMemory.unpin
split_deferred, demote_pages, set_pool = GuestMemory.split_deferred, Host.demote_pages, Host.set_pool


def wrong_errno(memory: GuestMemory, offset: Any = 0, size: Any = None) -> None:
    """EFBIG is reported as EINVAL."""
    try:
        allocate(memory, offset, size)
    except OperationError as error:
        raise operation_error(
            errno.EINVAL if error.errno == errno.EFBIG else error.errno or 0, error.done, "allocate"
        ) from None


def end_off_by_one(memory: GuestMemory, offset: Any = 0, size: Any = None) -> None:
    """One page beyond the end is accepted."""
    if offset + size == memory.size + PAGE and offset < memory.size:
        size -= PAGE
    allocate(memory, offset, size)


def page_not_freed(memory: GuestMemory, offset: Any, size: Any) -> None:
    """The last page of a hole stays."""
    punch(memory, offset, size if size <= PAGE or size % PAGE else size - PAGE)


def no_pins(memory: GuestMemory, offset: Any, size: Any) -> None:
    """A pin faults pages in, and holds nothing: splits ignore it."""
    pin(memory, offset, size)
    unpin(memory, offset, size)
    PINNED.append((memory, offset, size))


def no_unpin(memory: GuestMemory, offset: Any, size: Any) -> None:
    """Forget a pin that held nothing; what was not pinned is refused as ever."""
    if (memory, offset, size) in PINNED:
        PINNED.remove((memory, offset, size))
    else:
        unpin(memory, offset, size)


PINNED: list[tuple[GuestMemory, Any, Any]] = []


def inward(memory: GuestMemory, offset: Any = 0, size: Any = None) -> None:
    """hugetlb's fallocate rounds inward."""
    begin, end = -(-offset // HUGE) * HUGE, (offset + size) // HUGE * HUGE
    if offset < 0 or size <= 0 or begin < end:
        allocate(memory, begin if offset >= 0 else offset, end - begin if begin < end else size)


def idle_collapse(memory: GuestMemory, offset: Any = 0, size: Any = None) -> None:
    """Collapse does nothing."""


def no_counter(world: ModelShmem) -> dict[str, int]:
    """Splits are not counted."""
    return {"split": 0, "split_failed": 0, "underused": 0}


def zeros_stay(memory: GuestMemory, max_ptes_none: int) -> None:
    """The shrinker leaves huge pages of zeros alone."""
    split_deferred(memory)


def no_overcommit(host: Host, page: Any, count: int, overcommit: int = 0) -> None:
    """No pool has surplus pages."""
    set_pool(host, page, count)


def one_is_left(host: Host, count: int) -> int:
    """The last page of 1G is not demoted."""
    free = int(host.state.pools[1].free)
    return demote_pages(host, min(count, max(0, free - 1)))


def remembered(world: ModelFiles, number: int) -> None:
    """Contents survive a hole."""


def nothing_uptodate(world: ModelGuestMemfd, file: Any, pages: Any) -> FileSeen:
    """Allocated pages count as up to date (G21)."""
    seen = SEEN(world, file, pages)
    return FileSeen(seen.present, seen.present, seen.tags) if seen.used is not None else seen


SEEN = ModelGuestMemfd.seen


def allowed_overlap(world: ModelGuestMemfd, file: Any, step: Any) -> None:
    """Memslots may overlap."""
    world.slots = {slot: bound if slot == step.arg else (-1, 0, 0) for slot, bound in world.slots.items()}
    BIND(world, file, step)


BIND = ModelGuestMemfd.bind


@dataclass(frozen=True)
class Fault:
    """One alteration of the model: suite, what is replaced by what, what the report must say, steps of its reproduction."""

    suite: str
    target: Any
    changes: dict[str, Callable[..., Any]]
    says: str
    most_steps: int
    operations: int = 1500


FAULTS = {
    "wrong-errno": Fault("guest-memfd", GuestMemory, {"allocate": wrong_errno}, "kernel EFBIG, model EINVAL", 2),
    "end-off-by-one": Fault("guest-memfd", GuestMemory, {"allocate": end_off_by_one}, "kernel EINVAL, model success", 2),
    "page-not-freed": Fault("guest-memfd", GuestMemory, {"punch_hole": page_not_freed}, "pages present", 3),
    "allocated-is-uptodate": Fault("guest-memfd", ModelGuestMemfd, {"seen": nothing_uptodate}, "pages up to date", 2),
    "memslots-may-overlap": Fault("guest-memfd", ModelGuestMemfd, {"bind": allowed_overlap}, "result: kernel", 4, 6000),
    "split-ignores-pins": Fault("thp", GuestMemory, {"pin": no_pins, "unpin": no_unpin}, "split_failed", 6, 400),
    "counter-not-raised": Fault("thp", ModelShmem, {"counters": no_counter}, "split: kernel", 4, 200),
    "collapse-does-nothing": Fault("thp", GuestMemory, {"collapse": idle_collapse}, "", 5, 400),
    "contents-survive-a-hole": Fault("thp", ModelFiles, {"_forget": remembered}, "contents of page", 5, 400),
    "huge-pages-of-zeros-stay": Fault("anon", GuestMemory, {"split_deferred": zeros_stay}, "underused: kernel", 4, 200),
    "one-1g-page-is-not-demoted": Fault("hugetlb-1g", Host, {"demote_pages": one_is_left}, "total_1g: kernel", 2, 100),
    "no-surplus-pages": Fault("hugetlb", Host, {"set_pool": no_overcommit}, "kernel", 4, 400),
    "hugetlb-rounds-inward": Fault("hugetlb", GuestMemory, {"allocate": inward}, "free: kernel", 3, 400),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    for method, altered in fault.changes.items():
        monkeypatch.setattr(fault.target, method, altered)
    result = conform_suite(find(fault.suite), fault.operations, 11, Budget(leave=6 << 30), patience=300.0)
    if result.status == SKIPPED:
        pytest.skip(result.reason)
    assert result.status == DIFFERS
    assert result.mismatch is not None
    assert any(fault.says in text for text in result.mismatch.differences), result.mismatch
    assert 1 <= result.script.count("        Step(") <= fault.most_steps, result.script
    compile(result.script, name, "exec")
