"""Timings of the running kernel: what is timed really happens, and every operation is timed or named as missing."""

import ctypes
import errno
import os
import time
from collections.abc import Callable

import pytest

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import abi, timed_memory, timing
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.files import ShmemMemory
from gmemlab.kernel.observe.cache import count_present
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.timed_memory import AT_ONCE, GROUPS, Group, Operation, Round, measure
from gmemlab.kernel.timing import PUNCH, fallocate_ns, madvise_ns, null_call_ns, touch_ns
from gmemlab.units import MIB, MILLISECOND
from settings_world import LIVE, needs_root

SIZE = 16 * MIB
PATIENCE = 120.0
THP = "sys/kernel/mm/transparent_hugepage"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
HELD = {
    f"{THP}/khugepaged/scan_sleep_millisecs": "20000",
    f"{THP}/shmem_enabled": "never",
    f"{THP}/hugepages-2048kB/shmem_enabled": "inherit",
    f"{THP}/enabled": "madvise",
    POOL: "1",
}


def test_a_call_that_does_nothing() -> None:
    assert 10 < null_call_ns() < MILLISECOND


def test_fallocate_is_called_for_every_range() -> None:
    with ShmemMemory(SIZE) as memory:
        pages = SIZE // abi.PAGE
        assert fallocate_ns(memory.fd, abi.KEEP_SIZE, (0,), SIZE, 0.0) > pages * 10
        assert count_present(memory.fd, 0, SIZE) == pages
        assert fallocate_ns(memory.fd, PUNCH, range(0, SIZE, 2 * abi.PAGE), abi.PAGE, 0.0) > pages // 2 * 100
        assert memory.present() == [False, True] * (pages // 2)
        with pytest.raises(OSError, match="Bad file descriptor"):
            fallocate_ns(-1, PUNCH, (0,), abi.PAGE, 0.0)


def test_what_python_takes_is_taken_off_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter((1000, 6000))
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(ticks))
    with ShmemMemory(SIZE) as memory:
        assert fallocate_ns(memory.fd, PUNCH, range(0, 10 * abi.PAGE, abi.PAGE), abi.PAGE, 300.0) == 5000 - 10 * 300
        ticks = iter((0, 100))
        assert fallocate_ns(memory.fd, PUNCH, (0,), abi.PAGE, 300.0) == 0.0


def test_interrupted_calls_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted(_fd: int, _mode: int, offset: int, _size: int) -> int:
        calls.append(offset)
        ctypes.set_errno(errno.EINTR)
        return -1 if calls.count(1) < 3 and offset == 1 else 0

    monkeypatch.setattr(timing, "_fallocate", interrupted)
    fallocate_ns(0, abi.KEEP_SIZE, (0, 1, 2), abi.PAGE, 0.0)
    assert calls == [0, 1, 2, 1, 1]


def test_touching_backs_every_page() -> None:
    with AnonymousMemory(SIZE) as memory:
        first = touch_ns(memory.address, SIZE, abi.PAGE)
        assert all(memory.present())
        assert first > 5 * touch_ns(memory.address, SIZE, abi.PAGE)
        assert madvise_ns((memory.address,), SIZE, abi.MADV_DONTNEED, 0.0) > 0
        assert not any(memory.present())


@needs_root
def test_every_operation_is_timed_or_named() -> None:
    shares: list[float] = []
    # Values of our own, under which no other process can change them, so that what comes back is what measure() found.
    with Settings(patience=PATIENCE) as held:
        for path, value in HELD.items():
            if not (LIVE / path).exists():
                pytest.skip(f"/{path}")
            assert held.set(path, value) == value
        with Settings() as settings:
            timings = measure(settings, SIZE, 2, lambda _, share: shares.append(share))
            assert int(settings.get(POOL)) * 2 * MIB >= (AT_ONCE - 1) * SIZE or "hugetlb-2m-punch" in timings.skipped
        assert {path: held.get(path) for path in HELD} == HELD
    names = {name for group in GROUPS for name in group.operations}
    assert timings.samples.keys() | timings.skipped.keys() == names
    assert not timings.samples.keys() & timings.skipped.keys()
    assert all(len(samples) in (1, 2) for samples in timings.samples.values())
    assert shares == sorted(shares)
    assert (shares[0], len(shares)) == (0.0, 3 * len(GROUPS))
    median = {name: min(samples) for name, samples in timings.samples.items()}
    assert median["anon-2m-write-fault"] > 10 * median["anon-write-fault"]
    assert median["anon-2m-write-fault"] < 512 * median["anon-write-fault"]
    assert median["shmem-punch-page"] > median["shmem-punch"]
    if "hugetlb-2m-fallocate" in median:
        assert median["hugetlb-2m-fallocate"] > 3 * median["hugetlb-2m-punch-page"]  # zeroes 2M, not 4K (L18)


def test_what_fails_is_named_and_the_rest_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: Round) -> dict[str, float]:
        raise UnsupportedError("KVM_CAP_GUEST_MEMFD", "this kernel lacks it")

    def failing(_: Round) -> dict[str, float]:
        raise OSError(28, os.strerror(28))

    fallbacks = iter((False, True, False))

    def sometimes(_: Round) -> dict[str, float]:
        if next(fallbacks):
            raise UnsupportedError("2M folios", "fragmented")
        return {"sometimes": 7.0}

    def group(name: str, run: Callable[[Round], dict[str, float]]) -> Group:
        return Group({name: Operation("ns per call", name)}, run)

    groups = (group("lacking", lacking), group("failing", failing), group("sometimes", sometimes))
    monkeypatch.setattr(timed_memory, "GROUPS", groups)
    monkeypatch.setattr(timed_memory, "read_thp", lambda: None)
    with Settings() as settings:
        timings = measure(settings, SIZE, 2)
    assert timings.samples == {"sometimes": [7.0]}
    assert timings.skipped["lacking"] == "KVM_CAP_GUEST_MEMFD: this kernel lacks it"
    assert "No space left on device" in timings.skipped["failing"]
