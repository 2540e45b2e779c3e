"""The event runner: executes a stream of events in slices, with the same operations as the object API."""

import errno

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.daemons.vmstat import let_decay
from gmemlab.core.execute import execute
from gmemlab.core.jit import entry, jit
from gmemlab.core.layout import (
    GIGA_ORDER,
    KIND_GUEST_MEMFD,
    MAX_SLOTS,
    NODES_INTERLEAVE,
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
    PHASE_RUNNING,
    VM_FAILED,
    VM_GONE,
    VM_LAUNCHING,
    VM_READY,
)
from gmemlab.core.mempolicy import set_nodes
from gmemlab.core.nodes import all_nodes
from gmemlab.core.operations.lifecycle import create, destroy, set_slot
from gmemlab.core.read_ahead import read_ahead
from gmemlab.core.state import Records, State

CHUNK = 1 << GIGA_ORDER  # pages of one event that are done before the budget is asked again
SECOND = 1_000_000_000  # ns
EVENT_COST = 64  # an event counts as this many pages of work, besides its pages


@jit
def place_guest(state: State, file: int, vm: int) -> None:
    """Give a guest its home node, one after the other, and the policy that the scenario has for all of them."""
    home = vm % int(state.host[0].nr_nodes)
    mode = int(state.host[0].guest_nodes)
    allowed = (1 << home) if mode != NODES_INTERLEAVE else all_nodes(state)
    set_nodes(state, file, mode, allowed, home)
    if state.files[file].shared_file:
        set_nodes(state, int(state.files[file].shared_file), mode, allowed, home)


@jit
def launch(state: State, vms: Records, guests: Records, vm: int, policy: int, hardware: int) -> None:
    """Create a guest of some hardware (GUEST_*) with its memslots."""
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
    place_guest(state, file, vm)
    state.files[file].guest = hardware
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
def is_tick(op: int) -> bool:
    """Whether an event lets time pass for a daemon; it belongs to no file, and cannot fail."""
    return op == OP_KHUGEPAGED or op == OP_KCOMPACTD


@jit
def in_chunks(op: int) -> bool:
    """Whether an operation may be done 1 GiB at a time without changing its result."""
    return op == OP_ALLOCATE or op == OP_ACCESS or op == OP_PUNCH or op == OP_HOST_ALLOCATE or op == OP_HOST_FREE


@jit
def prepare(
    state: State,
    event: Records,
    vms: Records,
    guests: Records,
    background: NDArray[np.int64],
    policy: int,
    hardware: int,
) -> int:
    """The file that an event's operation is on; 0 where there is none, or where all of the event is done here."""
    op = int(event.op)
    vm = int(event.vm)
    if vm < 0:
        return int(background[-1 - vm])
    status = int(vms[vm].status)
    if op == OP_CREATE:
        launch(state, vms, guests, vm, policy, hardware)
        return 0
    if status != VM_LAUNCHING and status != VM_READY:
        return 0
    if op == OP_READY:
        vms[vm].status = VM_READY
        state.files[vms[vm].file].phase = PHASE_RUNNING
        return 0
    if op == OP_DESTROY:
        destroy(state, int(vms[vm].file))
        vms[vm].status = VM_GONE
        return 0
    return int(vms[vm].file)


@jit
def choose_cpu(state: State, time: int, vm: int) -> None:
    """The CPU that works for a guest, or (the first one) for the host itself, once the vmstat worker has had its seconds.

    A guest's is one of its home node, where that has any.
    """
    host = state.host[0]
    if host.nr_cpus:
        host.cpu = 0
        if vm > 0:
            node = state.nodes[vm % host.nr_nodes]
            turn = vm // int(host.nr_nodes)
            host.cpu = int(node.first_cpu) + turn % int(node.nr_cpus) if node.nr_cpus else vm % host.nr_cpus
        seconds = (time - int(host.decayed)) // SECOND
        if seconds > 0:
            let_decay(state, 1000 * seconds)
            host.decayed += seconds * SECOND


@jit
def reclaimed(state: State) -> int:
    """Pages of the page cache that were dropped so far, which count as the host's already."""
    return int(state.tally[layout.TALLY_PGSTEAL_KSWAPD] + state.tally[layout.TALLY_PGSTEAL_DIRECT])


@jit
def note_host_traffic(state: State, allocated: int, released: int) -> None:
    """Count what the host's own memory got and gave back since, but for what was reclaimed; it has base pages only."""
    state.tally[layout.TALLY_HOST_ALLOCATED] += state.tally[layout.TALLY_ALLOCATED] - allocated
    state.tally[layout.TALLY_HOST_RELEASED] += state.tally[layout.TALLY_RELEASED] - reclaimed(state) - released


@jit
def conclude(state: State, event: Records, vms: Records, error: int) -> None:
    """Count what failed, and of whom."""
    if int(event.vm) < 0:
        state.tally[layout.TALLY_HOST_FAILED] += 1
    else:
        note_failure(state, vms, int(event.vm), int(event.op), error)


@entry
def run(
    state: State,
    events: Records,
    vms: Records,
    guests: Records,
    background: NDArray[np.int64],
    policy: int,
    hardware: int,
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
        if place.done == 0:
            read_ahead(state, events, vms, background, place)
        choose_cpu(state, int(event.time), int(event.vm))
        if is_tick(int(event.op)):
            budget -= EVENT_COST + int(event.count)
            execute(state, int(event.op), 0, 0, int(event.count), 0)
            place.event += 1
            continue
        chunked = in_chunks(int(event.op))
        budget -= EVENT_COST + (min(int(event.count), CHUNK) if chunked else int(event.count))
        reached = int(event.count)
        file = prepare(state, event, vms, guests, background, policy, hardware)
        if file:
            first = int(event.first + place.done)
            count = int(event.count - place.done)
            if chunked:
                count = min(count, CHUNK - first % CHUNK)
            allocated = int(state.tally[layout.TALLY_ALLOCATED])
            released = int(state.tally[layout.TALLY_RELEASED]) - reclaimed(state)
            error, _ = execute(state, int(event.op), file, first, count, int(event.arg))
            if event.vm < 0:
                note_host_traffic(state, allocated, released)
            if error:
                conclude(state, event, vms, error)
            else:
                reached = int(place.done) + count
        place.done = reached
        if reached >= event.count:
            place.done = 0
            place.event += 1
    return False
