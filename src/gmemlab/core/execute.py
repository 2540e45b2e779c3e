"""One operation on one file: what the object API calls, and what the event runner calls for each event."""

import errno

from gmemlab.core import layout
from gmemlab.core.daemons.compaction import compact
from gmemlab.core.daemons.kcompactd import kcompactd
from gmemlab.core.daemons.khugepaged import khugepaged
from gmemlab.core.daemons.vmstat import let_decay
from gmemlab.core.jit import entry
from gmemlab.core.layout import PIN, REFERENCE
from gmemlab.core.mempolicy import set_nodes
from gmemlab.core.mounts import join, mount, unmount
from gmemlab.core.operations.access import access
from gmemlab.core.operations.collapse import collapse
from gmemlab.core.operations.convert import convert, set_attributes
from gmemlab.core.operations.deferred import free_lazily, split_deferred
from gmemlab.core.operations.lifecycle import create, destroy, set_slot
from gmemlab.core.operations.pin import hold, pin, unhold
from gmemlab.core.operations.populate import allocate
from gmemlab.core.operations.punch import punch
from gmemlab.core.operations.reserve import reserve
from gmemlab.core.pcp import drain_all
from gmemlab.core.pool_sizes import demote, grow_pool, resize_pool
from gmemlab.core.state import State


@entry
def execute(state: State, op: int, file: int, first: int, count: int, arg: int) -> tuple[int, int]:
    """Carry out one operation (OP_*) on pages [first, first + count) of a file. Returns (errno, pages done)."""
    state.host[0].operation = op
    if op == layout.OP_ALLOCATE or op == layout.OP_HOST_ALLOCATE:
        return allocate(state, file, first, count)
    if op == layout.OP_ACCESS:
        return access(state, file, first, count, arg & 3, arg >> 2)
    if op == layout.OP_PUNCH or op == layout.OP_HOST_FREE:
        return punch(state, file, first, count)
    if op == layout.OP_TO_SHARED or op == layout.OP_TO_PRIVATE:
        return convert(state, file, first, count, op == layout.OP_TO_SHARED)
    if op == layout.OP_PIN:
        return pin(state, file, first, count, arg)
    if op == layout.OP_REFERENCE:
        return hold(state, file, first, count, REFERENCE)
    if op == layout.OP_UNPIN or op == layout.OP_UNREFERENCE:
        return unhold(state, file, first, count, PIN if op == layout.OP_UNPIN else REFERENCE)
    if op == layout.OP_COLLAPSE:
        return collapse(state, file, first, count)
    if op == layout.OP_FREE_LAZILY:
        return free_lazily(state, file, first, count)
    if op == layout.OP_SPLIT_DEFERRED:
        return split_deferred(state, file, arg)
    if op == layout.OP_COMPACT:
        return 0, compact(state)
    if op == layout.OP_DRAIN:
        drain_all(state)
        return 0, 0
    if op == layout.OP_DECAY:
        let_decay(state, count)
        return 0, 0
    if op == layout.OP_KHUGEPAGED:
        return 0, khugepaged(state, count)
    if op == layout.OP_KCOMPACTD:
        return 0, kcompactd(state, count)
    if op == layout.OP_READY:
        state.files[file].phase = layout.PHASE_RUNNING
        return 0, 0
    if op == layout.OP_RESERVE:
        return reserve(state, file, first, count)
    if op == layout.OP_DESTROY:
        return destroy(state, file)
    return errno.EOPNOTSUPP, 0


@entry
def open_guest(state: State, pages: int, kind: int, policy: int, shared: int, guest: int) -> tuple[int, int]:
    """`create`, for callers in Python, for a guest of some hardware (GUEST_*). Returns (errno, file).

    With `shared`, all pages start with that attribute (G14).
    """
    error, file = create(state, pages, kind, policy)
    if error == 0:
        state.files[file].guest = guest
    if error == 0 and shared:
        set_attributes(state, file, 0, pages, 1)
    return error, file


@entry
def bind(state: State, file: int, k: int, gfn: int, count: int, offset: int) -> None:
    """`set_slot`, for callers in Python."""
    set_slot(state, file, k, gfn, count, offset)


@entry
def bind_nodes(state: State, file: int, mode: int, allowed: int, home: int) -> None:
    """`set_nodes` for a file and the ordinary memory beside it, for callers in Python."""
    set_nodes(state, file, mode, allowed, home)
    if state.files[file].shared_file:
        set_nodes(state, int(state.files[file].shared_file), mode, allowed, home)


@entry
def open_mount(state: State, order: int, most: int, least: int) -> tuple[int, int]:
    """`mount`, for callers in Python. Returns (errno, subpool)."""
    return mount(state, order, most, least)


@entry
def close_mount(state: State, subpool: int) -> int:
    """`unmount`, for callers in Python. Returns 0 or the errno."""
    return unmount(state, subpool)


@entry
def join_mount(state: State, subpool: int, file: int) -> None:
    """`join`, for callers in Python."""
    join(state, subpool, file)


@entry
def fill_pool(state: State, order: int, count: int, hvo: int, nodes: int) -> tuple[int, int]:
    """`grow_pool`, for callers in Python. Returns (errno, pages added)."""
    return grow_pool(state, order, count, hvo, nodes)


@entry
def set_pool(state: State, order: int, count: int, overcommit: int, node: int) -> int:
    """`resize_pool`, for callers in Python. Returns 0 or the errno."""
    return resize_pool(state, order, count, overcommit, node)


@entry
def demote_pages(state: State, count: int, nodes: int) -> tuple[int, int]:
    """`demote`, for callers in Python. Returns (errno, 1 GiB pages demoted)."""
    return demote(state, count, nodes)
