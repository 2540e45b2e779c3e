"""Which files the daemons work for: khugepaged's list, and how many kcompactd serves."""

from gmemlab.core import decisions
from gmemlab.core.jit import jit
from gmemlab.core.state import State


@jit
def enter(state: State, file: int) -> None:
    """A file came: it is scanned last (`__khugepaged_enter`), and khugepaged sleeps once more before it scans a first one."""
    daemons = state.daemons[0]
    record = state.files[file]
    policy = state.policies[record.policy]
    daemons.nr_compacted += 1 if decisions.has_kcompactd(policy) else 0
    if not decisions.has_khugepaged(policy):
        return
    record.scan_next = 0
    record.scan_prev = int(daemons.tail)
    if daemons.tail:
        state.files[daemons.tail].scan_next = file
    else:
        daemons.head = file
        daemons.progress = 0  # a scan that slept when the last file went is over
        daemons.passed = 0
        daemons.waited = 0
        daemons.khugepaged_sleep = int(daemons.scan_sleep)
    daemons.tail = file


@jit
def leave(state: State, file: int) -> None:
    """A file goes: a cursor in it moves on to the next (`__khugepaged_exit`)."""
    daemons = state.daemons[0]
    record = state.files[file]
    policy = state.policies[record.policy]
    daemons.nr_compacted -= 1 if decisions.has_kcompactd(policy) else 0
    if not decisions.has_khugepaged(policy):
        return
    after, before = int(record.scan_next), int(record.scan_prev)
    if daemons.file == file:
        daemons.file = after
        daemons.page = 0
    if before:
        state.files[before].scan_next = after
    else:
        daemons.head = after
    if after:
        state.files[after].scan_prev = before
    else:
        daemons.tail = before
    record.scan_next = 0
    record.scan_prev = 0
