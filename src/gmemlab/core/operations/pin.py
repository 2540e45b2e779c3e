"""Pins on shared and ordinary memory, and transient references on private memory (K3).

Both are counted on folios. A record remembers which frames a call holds, so that it can be undone also when the pages have
left the file since (L10).
"""

import errno

from gmemlab.core.frames import add_busy, folio_busy, folio_head, folio_order, free_folio
from gmemlab.core.hardware import rmp
from gmemlab.core.hostmap import map_for_host
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CONVERT_TWO_SOURCES,
    FRAME_ORPHAN,
    GUEST_SNP,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    ORPHAN,
    PIN,
    PIN_SHORT,
    SPLIT,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of, settle
from gmemlab.core.operations.access import run_of_attribute, use_range
from gmemlab.core.operations.checks import check_range, check_within
from gmemlab.core.operations.longterm import leave_movable
from gmemlab.core.operations.populate import populate
from gmemlab.core.parts import part
from gmemlab.core.pools import return_page
from gmemlab.core.state import State

MAX_BUSY = 16384  # pins on one small folio; the kernel refuses with ENOMEM long after


@jit
def pinned_file(state: State, file: int) -> int:
    """The file whose pages a pin on `file` holds: of a two-source guest, the ordinary memory beside it (K13)."""
    record = state.files[file]
    if record.kind == KIND_GUEST_MEMFD and state.policies[record.policy].conversion == CONVERT_TWO_SOURCES:
        return int(record.shared_file)
    return file


@jit
def all_present(state: State, file: int, first: int, end: int) -> bool:
    """Whether every page of a range is there."""
    for index in range(first, end):
        row = block_row(state, file, index)
        if state.file_blocks[row].nr_present < BLOCK_PAGES and frame_of(state, row, index) == 0:
            return False
    return True


@part
def fault_in(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """What a pin does before it holds anything: it faults the pages in for writing.

    That clears folios at their first use (G27); anonymous ones are clear, and still zeros afterwards (L17): what the shrinker
    takes meanwhile is faulted in again, where Linux holds each page as soon as it is there. Returns (errno,
    pages that are there): ENOMEM; EFAULT at the first private page (G25, K3), and where an access would end in SIGBUS: beyond
    the end, and where a hugetlb pool is empty (L19).
    """
    record = state.files[file]
    end = first + count
    beyond = end > record.pages
    error = check_range(first, count) if beyond else check_within(state, file, first, count, 1)
    if error:
        return error, 0
    if first >= record.pages:
        return errno.EFAULT, 0
    reach = min(end, int(record.pages))
    stop = run_of_attribute(state, file, first, reach, True) if record.kind == KIND_GUEST_MEMFD else reach
    target = pinned_file(state, file)
    if state.files[target].kind == KIND_ANON:
        error, done = populate(state, target, first, stop, False)
        while error == 0 and not all_present(state, target, first, stop):
            error, done = populate(state, target, first, stop, False)
    else:
        error, done = use_range(state, target, first, stop, 0, False)
        if state.files[target].kind == KIND_GUEST_MEMFD and done:
            map_for_host(state, target, first, first + done)
    if error == errno.ENOSPC or (error == 0 and (beyond or stop < reach)):
        error = errno.EFAULT
    return error, done


@jit
def holdable(state: State, target: int, first: int, end: int) -> tuple[int, int]:
    """Whether all pages of a range may be held. Returns (errno, first page that may not)."""
    for index in range(first, end):
        pfn = frame_of(state, block_row(state, target, index), index)
        if pfn == 0:
            return errno.ENOENT, index
        if folio_order(state, pfn) < BLOCK_ORDER and folio_busy(state, pfn) >= MAX_BUSY:
            return errno.ENOMEM, index
    return 0, end


@jit
def take_record(state: State) -> int:
    """An unused pin record; 0 and `host.exhausted` when the table is full."""
    host = state.host[0]
    row = int(host.free_pin)
    if row:
        host.free_pin = state.pins[row].next
        return row
    row = int(host.next_pin)
    if row >= host.max_pins:
        host.exhausted = 1
        return 0
    host.next_pin = row + 1
    return row


@jit
def hold_run(state: State, file: int, frame: int, frames: int, first: int, count: int, kind: int) -> None:
    """Hold `frames` consecutive frames on behalf of a call on pages [first, first + count)."""
    row = take_record(state)
    if row == 0:
        return
    record = state.pins[row]
    record.first = first
    record.count = count
    record.frame = frame
    record.frames = frames
    record.serial = state.host[0].pin_serial
    record.kind = kind
    record.next = state.files[file].pins
    state.files[file].pins = row
    for pfn in range(frame, frame + frames):
        add_busy(state, pfn, 1)


@part
def hold(state: State, file: int, first: int, count: int, kind: int) -> tuple[int, int]:
    """Pin every page of a range, which `fault_in` did fault in, or reference them. ENOENT: an absent page."""
    error = check_within(state, file, first, count, 1)
    if error:
        return error, 0
    target = file
    end = first + count
    if kind == PIN:
        target = pinned_file(state, file)
    error, reached = holdable(state, target, first, end)
    if error:
        return error, reached - first
    state.host[0].pin_serial += 1
    while end > first:  # the newest record stands first in the file's chain, so that the lowest run is released first
        index = end - 1
        frame = frame_of(state, block_row(state, target, index), index)
        while index > first and frame_of(state, block_row(state, target, index - 1), index - 1) == frame - 1:
            index -= 1
            frame -= 1
        hold_run(state, target, frame, end - index, first, count, kind)
        end = index
    return 0, count


@jit
def newest_serial(state: State, file: int, first: int, count: int, kind: int) -> int:
    """Serial number of the newest call that still holds exactly this range; 0 if none does."""
    row = int(state.files[file].pins)
    while row:
        record = state.pins[row]
        if record.first == first and record.count == count and record.kind == kind:
            return int(record.serial)
        row = int(record.next)
    return 0


@jit
def drop_frame(state: State, file: int, pfn: int) -> None:
    """Release a file's hold on a frame; an orphaned folio is freed with its last one."""
    add_busy(state, pfn, -1)
    if folio_busy(state, pfn):
        return
    block = pfn >> BLOCK_ORDER
    record = state.blocks[block]
    if record.kind == ORPHAN:
        order = int(record.order)
        if state.files[file].guest == GUEST_SNP:
            rmp.leave_orphan(state, file, pfn, order)
        return_page(state, folio_head(pfn, order) >> BLOCK_ORDER, order, record.owner < 0, int(record.index))
    elif record.kind == SPLIT and state.frames[slot_of(state, pfn)].kind == FRAME_ORPHAN:
        order = folio_order(state, pfn)
        if state.files[file].guest == GUEST_SNP:
            rmp.leave_orphan(state, file, pfn, order)
        free_folio(state, folio_head(pfn, order), order)


@jit
def settle_around(state: State, file: int, first: int, count: int) -> None:
    """Settle the blocks of a range whose frames nobody holds any more."""
    index = first & ~(BLOCK_PAGES - 1)
    while index < min(first + count, int(state.files[file].pages)):
        settle(state, file, index)
        index += BLOCK_PAGES


@part
def release_serial(state: State, file: int, serial: int) -> None:
    """Undo one call: release all the frames that it holds."""
    before = 0
    row = int(state.files[file].pins)
    while row:
        record = state.pins[row]
        after = int(record.next)
        if record.serial == serial:
            for pfn in range(int(record.frame), int(record.frame + record.frames)):
                drop_frame(state, file, pfn)
            if before:
                state.pins[before].next = after
            else:
                state.files[file].pins = after
            record.serial = 0
            record.next = state.host[0].free_pin
            state.host[0].free_pin = row
        else:
            before = row
        row = after


@part
def unhold(state: State, file: int, first: int, count: int, kind: int) -> tuple[int, int]:
    """Undo the newest pin (or reference) call on exactly this range; EINVAL if there is none."""
    record = state.files[file]
    target = file
    if kind == PIN and record.kind == KIND_GUEST_MEMFD and record.shared_file:
        target = int(record.shared_file)
    serial = newest_serial(state, target, first, count, kind)
    if serial == 0:
        return errno.EINVAL, 0
    release_serial(state, target, serial)
    settle_around(state, target, first, count)
    return 0, count


@jit
def drop_all_holds(state: State, file: int) -> None:
    """Its owner exits: every pin and reference on a file goes."""
    while state.files[file].pins:
        release_serial(state, file, int(state.pins[state.files[file].pins].serial))


@part
def pin(state: State, file: int, first: int, count: int, duration: int) -> tuple[int, int]:
    """Pin a range for long or (PIN_SHORT) for the time of one I/O, which faults its pages in.

    For long (`__gup_longterm_locked`), nothing that it allocates is movable, and what lies in CMA or ZONE_MOVABLE moves first;
    then all of it is faulted in once more, as zeros of huge pages that were split are gone.
    """
    long_term = duration != PIN_SHORT
    state.host[0].pinning = 1 if long_term else 0
    error, done = fault_in(state, file, first, count)
    found = 1 if long_term and error == 0 else 0
    while found:
        target = pinned_file(state, file)
        error, found = leave_movable(state, target, first, first + count)
        settle_around(state, target, first, count)
        if error:
            found, done = 0, 0
        elif found:
            error, done = fault_in(state, file, first, count)
            found = 0 if error else found
    state.host[0].pinning = 0
    return (error, done) if error else hold(state, file, first, count, PIN)
