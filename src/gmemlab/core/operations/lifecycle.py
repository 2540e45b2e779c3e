"""Creating and destroying files."""

import errno

from gmemlab.core import decisions
from gmemlab.core.daemons.register import enter, leave
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CONVERT_TWO_SOURCES,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    KIND_HUGETLB,
    MAX_SLOTS,
    OP_DESTROY,
    PHASE_TEAR_DOWN,
    SOURCE_POOL,
)
from gmemlab.core.mapping import drop_details
from gmemlab.core.mempolicy import forget_nodes
from gmemlab.core.operations.checks import MAX_INDEX
from gmemlab.core.operations.pin import drop_all_holds
from gmemlab.core.operations.punch import punch
from gmemlab.core.operations.release import release_unit
from gmemlab.core.parts import part
from gmemlab.core.pools import pool_of, withdraw
from gmemlab.core.state import NR_EXTENT_CLASSES, State
from gmemlab.core.subpools import put_pages


@jit
def extent_class(blocks: int) -> int:
    """The smallest k with 2**k >= blocks: room in `file_blocks` is handed out in powers of two."""
    k = 0
    while (1 << k) < blocks:
        k += 1
    return k


@jit
def take_extent(state: State, k: int) -> int:
    """A zeroed run of 2**k rows of `file_blocks`. Returns its first row; 0 and `host.exhausted` when the table is full."""
    if k >= NR_EXTENT_CLASSES:
        state.host[0].exhausted = 1
        return 0
    row = int(state.extents[k])
    if row:
        state.extents[k] = state.file_blocks[row].block
        state.file_blocks[row].block = 0
        return row
    host = state.host[0]
    row = int(host.next_extent)
    if row + (1 << k) > host.max_file_blocks:
        host.exhausted = 1
        return 0
    host.next_extent = row + (1 << k)
    return row


@jit
def take_file(state: State) -> int:
    """An unused file record; 0 and `host.exhausted` when the table is full."""
    host = state.host[0]
    file = int(host.free_file)
    if file:
        host.free_file = state.files[file].next
        return file
    file = int(host.next_file)
    if file >= host.max_files:
        host.exhausted = 1
        return 0
    host.next_file = file + 1
    return file


@jit
def open_file(state: State, pages: int, kind: int, policy: int) -> int:
    """A new, empty file seen through one memslot from guest address 0.

    Returns 0 when a table of the model is full, which `host.exhausted` says, and for a file that it could never hold, which
    says nothing about what is there.
    """
    k = extent_class((pages + BLOCK_PAGES - 1) >> BLOCK_ORDER)
    if (1 << k) >= state.host[0].max_file_blocks:
        return 0
    row = take_extent(state, k)
    if row == 0:
        return 0
    file = take_file(state)
    if file == 0:
        return 0
    record = state.files[file]
    record.pages = pages
    record.first_block = row
    record.reserved = 0
    record.kind = kind
    record.policy = policy
    record.shared_file = 0
    record.pins = 0
    record.next = 0
    record.extent = k
    record.alive = 1
    record.subpool = 0
    forget_nodes(state, file)
    record.guest = 0
    record.phase = 0
    for slot_row in range(file * MAX_SLOTS, (file + 1) * MAX_SLOTS):
        slot = state.slots[slot_row]
        slot.gfn = 0
        slot.offset = 0
        slot.count = 0
    state.slots[file * MAX_SLOTS].count = pages
    enter(state, file)
    return file


@part
def create(state: State, pages: int, kind: int, policy: int) -> tuple[int, int]:
    """Create a file (and the ordinary memory beside a two-source guest). Returns (errno, file).

    EINVAL: no pages, or not a multiple of the smallest page size (G11, G68). ENOMEM: the pool cannot promise them (G70); to
    hugetlb memory it promises nothing before a mapping asks (L19).
    """
    choices = state.policies[policy]
    if pages <= 0 or pages & ((1 << int(choices.unit)) - 1):
        return errno.EINVAL, 0
    if pages > MAX_INDEX:
        return errno.EFBIG, 0
    units = pages >> int(choices.unit)
    promised = choices.source == SOURCE_POOL and kind != KIND_HUGETLB
    if promised:
        pool = state.pools[pool_of(int(choices.unit))]
        if pool.free - pool.reserved < units:
            return errno.ENOMEM, 0
    file = open_file(state, pages, kind, policy)
    if file == 0:
        return errno.ENFILE, 0
    if kind == KIND_GUEST_MEMFD and choices.conversion == CONVERT_TWO_SOURCES:
        state.files[file].shared_file = open_file(state, pages, KIND_ANON, int(choices.shared_policy))
    if promised:
        state.files[file].reserved = units
        state.pools[pool_of(int(choices.unit))].reserved += units
    return 0, file


@jit
def set_slot(state: State, file: int, k: int, gfn: int, count: int, offset: int) -> None:
    """Bind pages [offset, offset + count) of a file at guest frame `gfn` as memslot `k`."""
    slot = state.slots[file * MAX_SLOTS + k]
    slot.gfn = gfn
    slot.count = count
    slot.offset = offset


@jit
def close_file(state: State, file: int) -> None:
    """Free everything that one file without holds has, and its record."""
    record = state.files[file]
    policy = state.policies[record.policy]
    pages = int(record.pages)
    leave(state, file)
    if decisions.works_in_units(policy):
        unit = int(policy.unit)
        for base in range(0, pages, 1 << unit):
            release_unit(state, file, base, unit)
    else:
        punch(state, file, 0, pages)  # no rule refuses a hole of all of a file
    if policy.source == SOURCE_POOL:
        withdraw(state, int(policy.unit), put_pages(state, int(record.subpool), int(record.reserved)))
        state.subpools[int(record.subpool)].files -= 1 if record.subpool else 0
    first = int(record.first_block)
    for row in range(first, first + ((pages + BLOCK_PAGES - 1) >> BLOCK_ORDER)):
        block = state.file_blocks[row]
        if block.detail:
            drop_details(state, row)
        block.block = 0
        block.nr_present = 0
        block.nr_shared = 0
        block.nr_mapped = 0
        block.nr_stranded = 0
        block.marks = 0
        block.content = 0
        state.hardware[row].marks = 0
    state.file_blocks[first].block = state.extents[record.extent]
    state.extents[record.extent] = first
    record.alive = 0
    record.pages = 0
    record.next = state.host[0].free_file
    state.host[0].free_file = file


@part
def destroy(state: State, file: int) -> tuple[int, int]:
    """The VMM exits: its pins go, then its memory, then the ordinary memory beside it."""
    state.host[0].operation = OP_DESTROY
    shared = int(state.files[file].shared_file)
    pages = int(state.files[file].pages)
    state.files[file].phase = PHASE_TEAR_DOWN
    drop_all_holds(state, file)
    if shared:
        drop_all_holds(state, shared)
    close_file(state, file)
    if shared:
        close_file(state, shared)
    return 0, pages
