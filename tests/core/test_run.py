"""The event runner: slices, samples, launches that fail, failures at run time, the host's own memory."""

import numpy as np
import pytest

from core_world import CoreWorld
from gmemlab.core import layout, run
from gmemlab.core.layout import (
    HOST_MOVABLE,
    HOST_UNMOVABLE,
    KIND_HOST,
    OP_ACCESS,
    OP_ALLOCATE,
    OP_CREATE,
    OP_DESTROY,
    OP_HOST_ALLOCATE,
    OP_HOST_FREE,
    OP_PUNCH,
    OP_READY,
    OP_SAMPLE,
    OP_TO_SHARED,
    VM_FAILED,
    VM_GONE,
    VM_READY,
)
from gmemlab.core.state import records
from oracle_memory import OraclePolicy
from world import HUGE_2M, SMALL, THP, synthetic

Event = tuple[int, int, int, int, int]  # vm, op, arg, first, count


class Stream:
    """A host of 40 blocks, background files, and a stream of events on it."""

    def __init__(self, policy: OraclePolicy, pages: list[int], events: list[Event]) -> None:
        self.world = CoreWorld(*synthetic(40))
        for movable in (False, True):
            self.world.create(4096, OraclePolicy(kind=KIND_HOST, movable=movable))
        self.policy = self.world.policy(policy)
        self.events = records(np.zeros(len(events), layout.EVENT))
        for row, (vm, op, arg, first, count) in enumerate(events):
            self.events[row] = (row, vm, op, arg, first, count)
        self.guests = records(np.zeros(len(pages), layout.GUEST))
        self.guests.pages = pages
        self.guests.slot_count[:, 0] = pages
        self.vms = records(np.zeros(len(pages), layout.VM))
        self.cursor = records(np.zeros(1, layout.CURSOR))

    def play(self, budget: int) -> list[int]:
        """Run to the end in slices. Returns the samples' event numbers."""
        samples = []
        while self.cursor[0].event < len(self.events):
            if run.run(
                self.world.state,
                self.events,
                self.vms,
                self.guests,
                np.array([1, 2], dtype=np.int64),
                self.policy,
                self.cursor,
                budget,
            ):
                samples.append(int(self.cursor[0].event))
                self.cursor[0].event += 1
        self.world.check()
        return samples

    def tally(self, counter: int) -> int:
        """One counter."""
        return int(self.world.state.tally[counter])


LIFE: list[Event] = [
    (HOST_UNMOVABLE, OP_HOST_ALLOCATE, 0, 0, 700),
    (0, OP_CREATE, 0, 0, 0),
    (0, OP_ACCESS, 8, 0, 1500),
    (0, OP_TO_SHARED, 0, 600, 3),
    (0, OP_READY, 0, 0, 0),
    (0, OP_SAMPLE, 1, 0, 0),
    (1, OP_CREATE, 0, 0, 0),
    (1, OP_ALLOCATE, 0, 0, 1024),
    (1, OP_READY, 0, 0, 0),
    (HOST_UNMOVABLE, OP_HOST_FREE, 0, 100, 50),
    (HOST_MOVABLE, OP_HOST_ALLOCATE, 0, 0, 300),
    (0, OP_PUNCH, 0, 0, 700),
    (-3, OP_SAMPLE, 0, 0, 0),
    (1, OP_DESTROY, 0, 0, 0),
    (1, OP_ALLOCATE, 0, 0, 5),
]


@pytest.mark.parametrize("policy", [SMALL, THP])
def test_slices_give_the_same_state_as_one(policy: OraclePolicy) -> None:
    whole = Stream(policy, [1500, 1024], LIFE)
    sliced = Stream(policy, [1500, 1024], LIFE)
    assert whole.play(1 << 40) == sliced.play(1) == [5, 12]
    assert whole.world.state.tally.tolist() == sliced.world.state.tally.tolist()
    assert whole.world.observe_free() == sliced.world.observe_free()
    assert whole.vms.status.tolist() == [VM_READY, VM_GONE]
    assert whole.tally(layout.TALLY_LAUNCHED) == 2


def test_launch_without_memory_fails_and_leaves_nothing() -> None:
    events: list[Event] = [
        (0, OP_CREATE, 0, 0, 0),
        (0, OP_ACCESS, 0, 0, 40 * 512),
        (0, OP_READY, 0, 0, 0),
        (0, OP_ALLOCATE, 0, 0, 9),
    ]
    stream = Stream(SMALL, [40 * 512], events)
    before = stream.world.observe_free()
    stream.play(1 << 40)
    assert stream.vms[0].status == VM_FAILED
    assert stream.tally(layout.TALLY_LAUNCH_FAILED) == 1
    assert sum(map(len, stream.world.observe_free().values())) == sum(map(len, before.values()))


def test_pool_that_is_too_small_refuses_the_launch() -> None:
    stream = Stream(HUGE_2M, [512], [(0, OP_CREATE, 0, 0, 0), (0, OP_ACCESS, 0, 0, 512)])
    stream.play(1 << 40)
    assert (stream.vms[0].status, stream.tally(layout.TALLY_LAUNCH_FAILED)) == (VM_FAILED, 1)


def test_running_guests_survive_what_fails() -> None:
    events: list[Event] = [
        (0, OP_CREATE, 0, 0, 0),
        (0, OP_READY, 0, 0, 0),
        (0, OP_ACCESS, 0, 0, 40 * 512),
        (HOST_MOVABLE, OP_HOST_ALLOCATE, 0, 0, 4096),
        (0, OP_PUNCH, 0, -1, 5),
    ]
    stream = Stream(SMALL, [40 * 512], events)
    stream.play(1 << 40)
    assert stream.vms[0].status == VM_READY
    failures = (layout.TALLY_RUNTIME_FAILED, layout.TALLY_HOST_FAILED, layout.TALLY_PUNCH_REFUSED)
    assert [stream.tally(counter) for counter in failures] == [1, 1, 1]
