"""The event runner: slices of any size, samples, guests that cannot start or run short, and the host's own memory."""

from dataclasses import replace
from random import Random
from typing import Any, Final

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from core_world import CoreWorld
from gmemlab.core import layout, run
from gmemlab.core.layout import (
    ASKED_TOGETHER,
    BLOCK_ORDER,
    BLOCK_PAGES,
    HOST_MOVABLE,
    HOST_UNMOVABLE,
    MAX_SLOTS,
    OP_ACCESS,
    OP_ALLOCATE,
    OP_CREATE,
    OP_DESTROY,
    OP_HOST_ALLOCATE,
    OP_HOST_FREE,
    OP_KCOMPACTD,
    OP_KHUGEPAGED,
    OP_PUNCH,
    OP_READY,
    OP_SAMPLE,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    PRIVATE,
    REPAIR_COLLAPSE,
    ROWS_KEPT,
    SHARED,
    TALLY_COLLAPSED,
    TALLY_HOST_FAILED,
    TALLY_LAUNCH_FAILED,
    TALLY_LAUNCHED,
    TALLY_LAUNCHED_PAGES,
    TALLY_PUNCH_REFUSED,
    TALLY_RUNTIME_FAILED,
    VM_FAILED,
    VM_GONE,
    VM_LAUNCHING,
    VM_NONE,
    VM_READY,
)
from long_trace import GUESTS, ODD_SIZES, SIZES, stream
from oracle_files import OraclePolicy
from players import BACKGROUND, POLICIES, oracle_policy
from world import FREE_OF_8, HUGE_2M, SMALL, THP_IN_PLACE, synthetic

NO_VM: Final = -3
Event = tuple[int, int, int, int]  # vm, operation, first page, pages
EVERYTHING: Final = 1 << 60  # a budget
BACKGROUND_PAGES: Final = 3072
INTERPRETED: Final = bool(numba.config.DISABLE_JIT)
COMPILED_ONLY: Final = pytest.mark.skipif(INTERPRETED, reason="half a million pages, one by one")
RUNNER_POLICIES: Final = ("thp-inplace[merge=eager]", "4k", "thp", "hugetlb-2m")


def table(events: list[Event], arg: int = 0) -> NDArray[Any]:
    """A stream of events."""
    rows = [(time, vm, op, arg, first, count) for time, (vm, op, first, count) in enumerate(events)]
    return np.array(rows, dtype=layout.EVENT)


class Runner:
    """A host with a background, guests of given sizes under one policy, and a cursor into a stream of events."""

    def __init__(self, policy: OraclePolicy, sizes: tuple[int, ...], nr_blocks: int = 8, pool: int = 0) -> None:
        self.world = CoreWorld(*synthetic(nr_blocks))
        if pool:
            assert self.world.grow_pool(9, pool, True) == (0, pool)
        files = [self.world.create(BACKGROUND_PAGES, BACKGROUND[movable])[1] for movable in (False, True)]
        self.background = np.array([self.world.files[file] for file in files], dtype=np.int64)
        self.policy = self.world.policy(policy)
        self.guests = np.zeros(len(sizes), layout.GUEST).view(np.recarray)
        self.guests.pages = sizes
        self.guests.slot_count[:, 0] = sizes
        self.vms = np.zeros(len(sizes), layout.VM).view(np.recarray)
        self.cursor = np.zeros(1, layout.CURSOR).view(np.recarray)

    def run(self, events: NDArray[Any], budget: int = EVERYTHING) -> bool:
        """One slice."""
        stream = events.view(np.recarray)
        arguments = (stream, self.vms, self.guests, self.background, self.policy, 0, self.cursor, budget)
        return bool(run.run(self.world.state, *arguments))

    def finish(self, events: NDArray[Any], budget: int = EVERYTHING) -> int:
        """Slices until the end, over all samples. Returns how many slices."""
        slices = 0
        while self.cursor[0].event < len(events):
            stopped = self.run(events, budget)  # moves the cursor
            self.cursor[0].event += stopped
            slices += 1
        self.world.check()
        return slices

    def play(self, events: list[Event], arg: int = 0) -> None:
        """A whole stream, from its start."""
        self.cursor[0].event = 0
        self.finish(table(events, arg))

    def tally(self, name: int) -> int:
        """A counter."""
        return int(self.world.state.tally[name])

    def status(self, vm: int) -> int:
        """What became of a guest."""
        return int(self.vms[vm].status)

    def free(self) -> int:
        """Free pages."""
        return int(self.world.state.zones.free.sum())

    def present(self, file: int) -> int:
        """Pages that a file of the core holds."""
        record = self.world.state.files[file]
        rows = range(int(record.first_block), int(record.first_block) + -(-int(record.pages) // BLOCK_PAGES))
        return sum(int(self.world.state.file_blocks[row].nr_present) for row in rows)

    def everything(self) -> tuple[Any, ...]:
        """All that can be seen, and who is who."""
        self.world.files = {file: file for file in range(1, len(self.vms) * 4) if self.world.state.files[file].alive}
        seen = self.world.observe()
        return seen, self.vms.tolist(), self.world.state.tally.tolist()


@pytest.mark.parametrize("name", RUNNER_POLICIES[:1] if INTERPRETED else RUNNER_POLICIES)
def test_slices_of_any_size_do_the_same(name: str) -> None:
    """One large slice, slices of some events, and one event at a time."""
    pooled = POLICIES[name].source == "pool"
    sizes = tuple((SIZES if pooled else ODD_SIZES)[vm % 4] for vm in range(GUESTS))
    events = stream(Random(name), 40 if INTERPRETED else 300)
    found = []
    for budget in (EVERYTHING, 5000, 1):
        runner = Runner(oracle_policy(POLICIES[name]), sizes, 24, 8 if pooled else 0)
        slices = runner.finish(events, budget)
        assert slices == {EVERYTHING: 1, 1: len(events)}.get(budget, slices)
        found.append(runner.everything())
    assert found[0] == found[1] == found[2]
    assert found[0][2][TALLY_LAUNCHED] > (0 if INTERPRETED else GUESTS)  # some places are used again, where events are many


def test_stream_does_what_the_calls_do() -> None:
    """The runner and the object API carry out the same operations."""
    runner = Runner(THP_IN_PLACE, (1300,), 16)
    ranges = ((OP_ACCESS, 0, 1300), (OP_TO_SHARED, 500, 30), (OP_PUNCH, 100, 50), (OP_TO_PRIVATE, 505, 5), (OP_ACCESS, 90, 40))
    runner.play([(0, OP_CREATE, 0, 0), *((0, op, first, count) for op, first, count in ranges)])
    beside = Runner(THP_IN_PLACE, (1300,), 16)
    error, file = beside.world.create(1300, THP_IN_PLACE)
    assert error == 0
    for op, first, count in ranges:
        beside.world.run(op, file, first, count)
    whole, calls = runner.everything()[0], beside.everything()[0]
    assert whole == calls


@COMPILED_ONLY
def test_large_events_are_done_in_chunks() -> None:
    """Up to a 1 GiB border of the file at a time, so that the caller is asked often enough."""
    pages = 600_000
    runner = Runner(SMALL, (pages,), 1300)
    events = table([(0, OP_CREATE, 0, 0), (0, OP_ALLOCATE, 100, pages - 100), (0, OP_PUNCH, 0, pages)])
    found = []
    while runner.cursor[0].event < len(events):
        assert not runner.run(events, 1)
        found.append((int(runner.cursor[0].event), int(runner.cursor[0].done)))
    once, twice = run.CHUNK, 2 * run.CHUNK
    assert found == [(1, 0), (1, once - 100), (1, twice - 100), (2, 0), (2, once), (2, twice), (3, 0)]
    assert runner.present(int(runner.vms[0].file)) == 0


@COMPILED_ONLY
def test_chunks_of_a_failed_event_stay() -> None:
    """G20: a guest that runs and finds no more memory keeps what it got, and the event is over."""
    runner = Runner(SMALL, (600_000,), 800)
    before = runner.free()
    assert run.CHUNK < before < 2 * run.CHUNK
    runner.play([(0, OP_CREATE, 0, 0), (0, OP_READY, 0, 0), (0, OP_ALLOCATE, 0, 600_000), (0, OP_PUNCH, 0, 10)])
    assert runner.present(int(runner.vms[0].file)) == before - 10
    assert runner.tally(TALLY_RUNTIME_FAILED) == 1


def test_daemons_act_between_events() -> None:
    """Time that passes for khugepaged and kcompactd is an event of no guest."""
    policy = replace(THP_IN_PLACE, movable=True, merge=0, split=0, repair=REPAIR_COLLAPSE)
    runner = Runner(policy, (1024,), 15)
    start = [(0, OP_CREATE, 0, 0), (0, OP_ACCESS, 0, 1024), (0, OP_PUNCH, 5, 1), (0, OP_PUNCH, 600, 1)]
    runner.play([*start, (NO_VM, OP_KHUGEPAGED, 0, 9_999), (NO_VM, OP_KCOMPACTD, 0, 500)])
    assert (runner.tally(TALLY_COLLAPSED), runner.present(int(runner.vms[0].file))) == (0, 1022)
    runner.play([(NO_VM, OP_KHUGEPAGED, 0, 1)])
    assert (runner.tally(TALLY_COLLAPSED), runner.present(int(runner.vms[0].file))) == (2, 1024)
    assert runner.tally(TALLY_HOST_FAILED) == 0
    assert runner.tally(layout.TALLY_KCOMPACTD_RUNS) == 0  # hardly any free page is outside of 2 MiB
    holes = [(HOST_MOVABLE, OP_HOST_FREE, page, 1) for page in range(0, 3072, 2)]
    runner.play([(HOST_MOVABLE, OP_HOST_ALLOCATE, 0, 3072), (HOST_UNMOVABLE, OP_HOST_ALLOCATE, 0, 3072), *holes])
    runner.play([(NO_VM, OP_KCOMPACTD, 0, 500)])
    assert runner.tally(layout.TALLY_KCOMPACTD_RUNS) == 1
    assert runner.tally(layout.TALLY_COMPACT_MOVED) > 0


def test_samples_stop_the_runner() -> None:
    """The cursor stands on the sample until the caller steps over it."""
    runner = Runner(SMALL, (100,))
    events = table(
        [(0, OP_CREATE, 0, 0), (0, OP_ALLOCATE, 0, 40), (0, OP_SAMPLE, 0, 0), (0, OP_SAMPLE, 0, 0), (0, OP_PUNCH, 0, 10)]
    )
    for event in (2, 2):
        assert runner.run(events)
        assert runner.cursor[0].event == event
        assert runner.present(int(runner.vms[0].file)) == 40
    runner.cursor[0].event += 1
    assert runner.run(events, 0) is False, "no budget, no look at the event"
    assert runner.run(events)
    runner.cursor[0].event += 1
    assert not runner.run(events)
    assert runner.cursor[0].event == len(events)
    assert runner.present(int(runner.vms[0].file)) == 30
    assert not runner.run(events), "nothing is left to do"


def test_guest_that_finds_no_memory_while_it_starts_is_destroyed() -> None:
    """What it had is free again, and its later events are passed over."""
    runner = Runner(SMALL, (FREE_OF_8, 2 * FREE_OF_8))
    launch = [(1, OP_CREATE, 0, 0), (1, OP_TO_SHARED, 0, 8), (1, OP_ACCESS, 8, 2 * FREE_OF_8 - 8)]
    runner.play([*launch, *((1, op, 0, 1) for op in (OP_READY, OP_ALLOCATE, OP_TO_PRIVATE, OP_DESTROY))])
    assert (runner.status(1), runner.free()) == (VM_FAILED, FREE_OF_8)
    assert [runner.tally(name) for name in (TALLY_LAUNCHED, TALLY_LAUNCH_FAILED, TALLY_RUNTIME_FAILED)] == [1, 1, 0]
    runner.play([(0, OP_CREATE, 0, 0), (0, OP_ALLOCATE, 0, FREE_OF_8), (0, OP_READY, 0, 0)])
    assert (runner.status(0), runner.free()) == (VM_READY, 0)


def test_guest_that_no_pool_has_room_for_is_not_created() -> None:
    """G70: and what it would have done is passed over."""
    runner = Runner(HUGE_2M, (1500, 512, 512), pool=3)
    runner.play([(vm, op, 0, 512) for vm in (0, 1, 2) for op in (OP_CREATE, OP_ALLOCATE, OP_READY)])
    assert [runner.status(vm) for vm in (0, 1, 2)] == [VM_READY, VM_FAILED, VM_FAILED]
    assert [runner.tally(name) for name in (TALLY_LAUNCHED, TALLY_LAUNCH_FAILED)] == [3, 2]
    assert runner.tally(TALLY_LAUNCHED_PAGES) == 1500 + 512 + 512
    assert runner.world.state.files[runner.vms[0].file].pages == 1536, "rounded up to whole huge pages (G68)"


def test_running_guest_that_finds_no_memory_goes_on() -> None:
    """Every operation that found none is counted."""
    runner = Runner(SMALL, (FREE_OF_8 + 100,))
    start = [(0, OP_CREATE, 0, 0), (0, OP_ALLOCATE, 0, FREE_OF_8), (0, OP_READY, 0, 0)]
    runner.play([*start, (0, OP_ALLOCATE, 0, FREE_OF_8 + 1), (0, OP_ACCESS, FREE_OF_8, 5), (0, OP_PUNCH, 0, 4)])
    runner.play([(0, OP_ACCESS, FREE_OF_8, 5)])
    assert (runner.status(0), runner.tally(TALLY_RUNTIME_FAILED), runner.free()) == (VM_READY, 3, 0)
    assert runner.tally(TALLY_LAUNCH_FAILED) == 0


def test_other_errors_are_no_shortage() -> None:
    """A refused punch is counted; contradicted attributes and held pages are the guest's business."""
    runner = Runner(HUGE_2M, (1024,), pool=2)
    runner.play([(0, OP_CREATE, 0, 0), (0, OP_PUNCH, 0, 1), (0, OP_TO_SHARED, 0, 5), (0, OP_ACCESS, 0, 9)], PRIVATE)
    runner.play([(0, OP_PUNCH, 7, 512), (0, OP_ALLOCATE, 0, 1), (0, OP_ACCESS, 512, 9)], SHARED)
    assert (runner.status(0), runner.tally(TALLY_PUNCH_REFUSED)) == (VM_LAUNCHING, 2)
    assert (runner.tally(TALLY_LAUNCH_FAILED), runner.tally(TALLY_RUNTIME_FAILED)) == (0, 0)


def test_guests_that_are_not_there() -> None:
    """Before their creation and after their end nothing happens to them; they may come again."""
    runner = Runner(SMALL, (100,))
    runner.play([(0, op, 0, 10) for op in (OP_ALLOCATE, OP_READY, OP_DESTROY)])
    assert (runner.status(0), runner.free()) == (VM_NONE, FREE_OF_8)
    runner.play([(0, op, 0, 10) for op in (OP_CREATE, OP_ALLOCATE, OP_DESTROY, OP_ALLOCATE, OP_READY)])
    assert (runner.status(0), runner.free()) == (VM_GONE, FREE_OF_8)
    runner.play([(0, op, 0, 10) for op in (OP_CREATE, OP_READY, OP_ALLOCATE)])
    assert (runner.status(0), runner.free(), runner.tally(TALLY_LAUNCHED)) == (VM_READY, FREE_OF_8 - 10, 2)


def test_guests_have_their_memslots() -> None:
    """K10."""
    runner = Runner(SMALL, (1024,))
    guest = runner.guests[0]
    guest.slot_gfn[:3], guest.slot_count[:3], guest.slot_offset[:3] = (0, 256, 4096), (160, 352, 512), (0, 160, 512)
    runner.play([(0, OP_CREATE, 0, 0)])
    first = int(runner.vms[0].file) * MAX_SLOTS
    slots = runner.world.state.slots[first : first + MAX_SLOTS]
    assert slots.tolist() == [(0, 160, 0), (256, 352, 160), (4096, 512, 512), (0, 0, 0)]


def test_the_host_takes_and_gives() -> None:
    """Both kinds of its memory, and what it could not have."""
    runner = Runner(SMALL, (100,))
    unmovable, movable = (int(file) for file in runner.background)
    runner.play([(HOST_UNMOVABLE, OP_HOST_ALLOCATE, 0, 1000), (HOST_MOVABLE, OP_HOST_ALLOCATE, 500, 2000)])
    assert (runner.present(unmovable), runner.present(movable)) == (1000, 2000)
    runner.play([(HOST_MOVABLE, OP_HOST_FREE, 0, 700), (HOST_UNMOVABLE, OP_HOST_FREE, 10, 5000)])
    assert (runner.present(unmovable), runner.present(movable)) == (10, 1800)
    assert runner.tally(TALLY_HOST_FAILED) == 0
    runner.play([(HOST_UNMOVABLE, OP_HOST_ALLOCATE, 0, 3000), (HOST_MOVABLE, OP_HOST_ALLOCATE, 3000, 100)])
    assert runner.tally(TALLY_HOST_FAILED) == 2, "no memory; beyond the end"
    assert (runner.present(unmovable), runner.free()) == (FREE_OF_8 - 1800, 0)


def test_exhausted_model_stops() -> None:
    """Nothing is simulated with a table that is full."""
    runner = Runner(SMALL, (100,))
    runner.world.state.host[0].exhausted = 1
    assert not runner.run(table([(0, OP_CREATE, 0, 0)]))
    assert (int(runner.cursor[0].event), runner.status(0)) == (0, VM_NONE)


def test_rows_asked_ahead_stay_in_step_with_the_stream() -> None:
    """Over samples and from slice to slice: each event is asked about by its own row."""
    runner = Runner(SMALL, (BLOCK_PAGES,))
    events: list[Event] = []
    for number in range(200):
        first = number * 97 % BACKGROUND_PAGES
        events.append((0, OP_SAMPLE, 0, 0) if number % 8 == 0 else (HOST_MOVABLE, OP_HOST_ALLOCATE, first, 1))
    stream_of_all = table(events)
    for end in (70, 90, 200):
        runner.finish(stream_of_all[:end])
        asked = int(runner.cursor[0].asked)
        assert asked + 4 * ASKED_TOGETHER <= end < asked + 5 * ASKED_TOGETHER
        first_block = int(runner.world.state.files[runner.background[1]].first_block)
        for number in range(asked, asked + 4 * ASKED_TOGETHER):
            expected = 0 if number % 8 == 0 else first_block + (events[number][2] >> BLOCK_ORDER)
            assert runner.cursor[0].rows[number % ROWS_KEPT] == expected
