"""Compiled loops around the core's functions, so that a benchmark times them and not Python's calls."""

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import tables
from gmemlab.core.buddy import free_block, free_chunk
from gmemlab.core.frames import clear_frames
from gmemlab.core.jit import entry, inline
from gmemlab.core.layout import BLOCK_ORDER, FRAME_USED, UNMOVABLE, WHOLE
from gmemlab.core.lists import slot_of
from gmemlab.core.nodes import alloc_easily_near
from gmemlab.core.operations.populate import allocate
from gmemlab.core.operations.punch import punch
from gmemlab.core.state import Records, State
from gmemlab.model import machine

Pfns = NDArray[np.int64]


@entry
def count(steps: int) -> int:
    """The probe of `full_speed`: six sums that do not wait for one another, without memory. Returns what keeps them."""
    a, b, c, d, e, f = 1, 2, 3, 4, 5, 6
    for step in range(steps):
        a = a ^ (a << 3)
        b = (b + step) ^ (b >> 2)
        c = c + (c ^ step)
        d = (d ^ (d >> 1)) + step
        e = e * 3 + step
        f = (f ^ step) + (f >> 3)
    return a + b + c + d + e + f


@entry
def chase(nexts: NDArray[np.int64], row: int, steps: int) -> int:
    """Go from a row to the one that it names, and on: every read waits for the one before. Returns the last row."""
    for _ in range(steps):
        row = nexts[row, 0]
    return row


@entry
def touch(table: Records) -> None:
    """The reference: write one 16-byte record per page, in order."""
    for row in range(len(table)):
        record = table[row]
        record.index = row
        record.owner = 1
        record.kind = FRAME_USED


@inline
def take(state: State, order: int) -> int:
    """Allocate one chunk and mark it as used, as `own_folio` would for a nameless owner."""
    pfn = alloc_easily_near(state, order, UNMOVABLE, 0, 0)
    if order == BLOCK_ORDER:
        state.blocks[pfn >> BLOCK_ORDER].kind = WHOLE
    else:
        state.frames[slot_of(state, pfn)].kind = FRAME_USED
    return pfn


@inline
def give(state: State, pfn: int, order: int) -> None:
    """Free one chunk."""
    if order == BLOCK_ORDER:
        free_block(state, pfn >> BLOCK_ORDER)
    else:
        clear_frames(state, slot_of(state, pfn), order)
        free_chunk(state, pfn, order)


@entry
def allocate_order(state: State, pfns: Pfns, order: int) -> None:
    """Allocate as many chunks as `pfns` has rows."""
    for row in range(len(pfns)):
        pfns[row] = take(state, order)


@entry
def free_order(state: State, pfns: Pfns, order: int) -> None:
    """Free the chunks of `pfns`."""
    for row in range(len(pfns)):
        give(state, int(pfns[row]), order)


@entry
def free_and_allocate(state: State, pfns: Pfns, order: int) -> None:
    """Free each chunk of `pfns` and allocate one in its place, in turn."""
    for row in range(len(pfns)):
        give(state, int(pfns[row]), order)
        pfns[row] = take(state, order)


@entry
def populate_each(state: State, file: int, first: int, end: int) -> None:
    """Fallocate pages [first, end), one with each call."""
    for index in range(first, end):
        allocate(state, file, index, 1)


@entry
def punch_each_page(state: State, file: int, first: int, end: int) -> None:
    """Punch pages [first, end), one with each call."""
    for index in range(first, end):
        punch(state, file, index, 1)


def compile_all() -> None:
    """Compile the loops on a small state."""
    state = machine.empty(64)
    one = np.zeros(1, dtype=np.int64)
    allocate_order(state, one, 0)
    free_and_allocate(state, one, 0)
    free_order(state, one, 0)
    touch(np.zeros(1, tables.FRAME).view(np.recarray))
