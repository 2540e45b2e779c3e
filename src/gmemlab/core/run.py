"""The event runner: executes a stream of events in slices, with the same operations as the object API."""

import errno

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.execute import execute
from gmemlab.core.jit import entry, jit
from gmemlab.core.layout import (
    GIGA_ORDER,
    KIND_GUEST_MEMFD,
    MAX_SLOTS,
    OP_ACCESS,
    OP_ALLOCATE,
    OP_CREATE,
    OP_DESTROY,
    OP_HOST_ALLOCATE,
    OP_HOST_FREE,
    OP_PUNCH,
    OP_READY,
    OP_SAMPLE,
    VM_FAILED,
    VM_GONE,
    VM_LAUNCHING,
    VM_READY,
)
from gmemlab.core.operations.lifecycle import create, destroy, set_slot
from gmemlab.core.state import Records, State

CHUNK = 1 << GIGA_ORDER  # pages of one event that are done before the budget is asked again
EVENT_COST = 64  # an event counts as this many pages of work, besides its pages


@jit
def launch(state: State, vms: Records, guests: Records, vm: int, policy: int) -> None:
    """Create a guest with its memslots."""
    guest = guests[vm]
    pages = int(guest.pages)
    state.tally[layout.TALLY_LAUNCHED] += 1
    state.tally[layout.TALLY_LAUNCHED_PAGES] += pages
    unit = 1 << int(state.policies[policy].unit)
    error, file = create(state, (pages + unit - 1) // unit * unit, KIND_GUEST_MEMFD, policy)
    if error:
        vms[vm].status = VM_FAILED
        state.tally[layout.TALLY_LAUNCH_FAILED] += 1
        return
    vms[vm].file = file
    vms[vm].status = VM_LAUNCHING
    for k in range(MAX_SLOTS):
        set_slot(state, file, k, int(guest.slot_gfn[k]), int(guest.slot_count[k]), int(guest.slot_offset[k]))


@jit
def note_failure(state: State, vms: Records, vm: int, op: int, error: int) -> None:
    """Count what an operation of a guest could not do; a guest that is short of memory before it is ready, fails."""
    if error == errno.EINVAL and op == OP_PUNCH:
        state.tally[layout.TALLY_PUNCH_REFUSED] += 1
    if error != errno.ENOMEM and error != errno.ENOSPC:
        return
    if vms[vm].status == VM_LAUNCHING:
        state.tally[layout.TALLY_LAUNCH_FAILED] += 1
        destroy(state, int(vms[vm].file))
        vms[vm].status = VM_FAILED
    else:
        state.tally[layout.TALLY_RUNTIME_FAILED] += 1


@jit
def in_chunks(op: int) -> bool:
    """Whether an operation may be done 1 GiB at a time without changing its result."""
    return op == OP_ALLOCATE or op == OP_ACCESS or op == OP_PUNCH or op == OP_HOST_ALLOCATE or op == OP_HOST_FREE


@jit
def apply(state: State, event: Records, vms: Records, background: NDArray[np.int64], done: int) -> tuple[int, int]:
    """Carry out (the next chunk of) one event on an existing file. Returns (errno, pages of the event done so far)."""
    op = int(event.op)
    vm = int(event.vm)
    file = int(background[-1 - vm]) if vm < 0 else int(vms[vm].file)
    first = int(event.first) + done
    count = int(event.count) - done
    if in_chunks(op):
        count = min(count, CHUNK - first % CHUNK)
    allocated, released = state.tally[layout.TALLY_ALLOCATED], state.tally[layout.TALLY_RELEASED]
    error, pages = execute(state, op, file, first, count, int(event.arg))
    if vm < 0:  # the host's own memory has base pages only
        state.tally[layout.TALLY_HOST_ALLOCATED] += state.tally[layout.TALLY_ALLOCATED] - allocated
        state.tally[layout.TALLY_HOST_RELEASED] += state.tally[layout.TALLY_RELEASED] - released
    if error == 0:
        return 0, done + count
    if vm < 0:
        state.tally[layout.TALLY_HOST_FAILED] += 1
    else:
        note_failure(state, vms, vm, op, error)
    return error, done + pages


@jit
def step(
    state: State, event: Records, vms: Records, guests: Records, background: NDArray[np.int64], policy: int, done: int
) -> int:
    """Carry out (the next chunk of) one event. Returns the pages of it that are done, or -1 when it is over."""
    op = int(event.op)
    vm = int(event.vm)
    if vm >= 0:
        status = int(vms[vm].status)
        if op == OP_CREATE:
            launch(state, vms, guests, vm, policy)
            return -1
        if status != VM_LAUNCHING and status != VM_READY:
            return -1
        if op == OP_READY:
            vms[vm].status = VM_READY
            return -1
        if op == OP_DESTROY:
            destroy(state, int(vms[vm].file))
            vms[vm].status = VM_GONE
            return -1
    error, reached = apply(state, event, vms, background, done)
    if error or reached >= event.count:
        return -1
    return reached


@entry
def run(
    state: State,
    events: Records,
    vms: Records,
    guests: Records,
    background: NDArray[np.int64],
    policy: int,
    cursor: Records,
    budget: int,
) -> bool:
    """Execute events from the cursor on, until about `budget` pages of work are done or an OP_SAMPLE is reached.

    Returns whether the cursor stands on an OP_SAMPLE, for the caller to measure and step over.
    """
    place = cursor[0]
    while place.event < len(events) and budget > 0 and state.host[0].exhausted == 0:
        event = events[place.event]
        if event.op == OP_SAMPLE:
            return True
        done = int(place.done)
        reached = step(state, event, vms, guests, background, policy, done)
        budget -= EVENT_COST + (min(int(event.count), CHUNK) if in_chunks(int(event.op)) else int(event.count))
        if reached < 0:
            place.done = 0
            place.event += 1
        else:
            place.done = reached
    return False
