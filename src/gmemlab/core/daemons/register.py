"""What the daemons work for: khugepaged's list of files, what kcompactd is asked for, and which page cache is reclaimed."""

from gmemlab.core import decisions
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import KIND_CACHE, ZONE_MOVABLE, ZONE_NORMAL
from gmemlab.core.state import State


@jit
def wake_kcompactd(state: State, node: int, order: int, highest: int) -> None:
    """A chunk of this order is wanted in a zone of a node up to a kind (`wakeup_kcompactd`)."""
    if order == 0:
        return
    record = state.nodes[node]
    record.max_order = max(int(record.max_order), order)
    if highest < ZONE_MOVABLE:
        record.highest_zone = ZONE_NORMAL


@jit
def unlink(state: State, file: int) -> None:
    """Take a file out of the list that it is in, between its neighbours; head and tail of the list are the caller's."""
    record = state.files[file]
    if record.scan_prev:
        state.files[record.scan_prev].scan_next = record.scan_next
    if record.scan_next:
        state.files[record.scan_next].scan_prev = record.scan_prev
    record.scan_next = 0
    record.scan_prev = 0


@jit
def list_cache(state: State, file: int) -> None:
    """A file of page cache came: it is reclaimed last."""
    daemons = state.daemons[0]
    record = state.files[file]
    record.scan_next = 0
    record.scan_prev = int(daemons.lru_tail)
    if daemons.lru_tail:
        state.files[daemons.lru_tail].scan_next = file
    else:
        daemons.lru_head = file
    daemons.lru_tail = file


@jit
def unlist_cache(state: State, file: int) -> None:
    """A file of page cache goes: hands that stand in it move on to the next."""
    daemons = state.daemons[0]
    record = state.files[file]
    after, before = int(record.scan_next), int(record.scan_prev)
    for node in range(int(state.host[0].nr_nodes)):
        if state.nodes[node].lru_file == file:
            state.nodes[node].lru_file = after
            state.nodes[node].lru_page = 0
    unlink(state, file)
    if before == 0:
        daemons.lru_head = after
    if after == 0:
        daemons.lru_tail = before


@inline
def note_cache(state: State, file: int) -> None:
    """Something comes into a file, or to other nodes: where that is page cache, reclaim has something to look at."""
    if state.files[file].kind == KIND_CACHE:
        look_again(state)


@jit
def look_again(state: State) -> None:
    """No node's page cache is known to be gone any more."""
    for node in range(int(state.host[0].nr_nodes)):
        state.nodes[node].lru_dry = 0


@jit
def enter(state: State, file: int) -> None:
    """A file came: it is scanned last (`__khugepaged_enter`), and khugepaged sleeps once more before it scans a first one."""
    daemons = state.daemons[0]
    record = state.files[file]
    policy = state.policies[record.policy]
    if record.kind == KIND_CACHE:
        list_cache(state, file)
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
    if record.kind == KIND_CACHE:
        unlist_cache(state, file)
    if not decisions.has_khugepaged(policy):
        return
    after, before = int(record.scan_next), int(record.scan_prev)
    if daemons.file == file:
        daemons.file = after
        daemons.page = 0
    unlink(state, file)
    if before == 0:
        daemons.head = after
    if after == 0:
        daemons.tail = before
