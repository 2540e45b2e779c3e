"""What breaks a rule of the audit by hand, most often one field of one record; and worlds in which some rules can break."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from core_world import CoreWorld
from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES, PRIVATE, STRUCT_FRAMES
from world import ANON_THP, HUGE_2M, synthetic

Breaker = Callable[[CoreWorld], None]


def block_of_kind(world: CoreWorld, kind: int) -> int:
    """The first host block of a kind."""
    return int((world.state.blocks.kind == kind).argmax())


def slot_of_kind(world: CoreWorld, kind: int) -> int:
    """The first frame slot of a kind in use."""
    kinds = world.state.frames.kind[BLOCK_PAGES : int(world.state.host[0].next_frame_slab) * BLOCK_PAGES].tolist()
    return BLOCK_PAGES + int(kinds.index(kind))


def file_row(world: CoreWorld, file: int, block: int = 0) -> int:
    """Row of a file's block."""
    return int(world.state.files[world.files[file]].first_block) + block


def set_field(table: str, row: Callable[[CoreWorld], int], field: str, change: Callable[[int], int]) -> Breaker:
    def breaker(world: CoreWorld) -> None:
        record = getattr(world.state, table)[row(world)]
        setattr(record, field, change(int(getattr(record, field))))

    return breaker


# -- the queue of the deferred-split shrinker --------------------------------------------------------------------------------


def queued() -> CoreWorld:
    """Three folios to be split: a huge page that nobody looked at, one that is mapped in part, and a small one that is."""
    world = CoreWorld(*synthetic(6))
    ladder = replace(ANON_THP, sizes=(9, 4, 0))
    _, file = world.create(1536, ladder)
    world.access(file, 0, 1024, layout.SHARED)
    world.punch(file, 512, 7)
    world.access(file, 1024, 512, layout.SHARED)
    for first in (1024, 1280):
        world.punch(file, first, 256)
    world.access(file, 1024, 16, layout.SHARED)
    world.punch(file, 1030, 1)
    world.check()
    return world


def _small(world: CoreWorld) -> int:
    """Slot of the second frame of the small folio, where its links are."""
    return int(np.flatnonzero(world.state.frames.order == 4)[1])


QUEUE_BREAKERS: list[tuple[int, Breaker]] = [
    (36, set_field("nodes", lambda w: 0, "split_queue_len", lambda n: n + 1)),
    (36, set_field("nodes", lambda w: 0, "split_tail", lambda n: n + 1)),
    (36, set_field("nodes", lambda w: 0, "split_head", lambda n: 0)),
    (36, set_field("nodes", lambda w: 0, "nr_deferred", lambda n: -1)),
    (36, set_field("blocks", lambda w: block_of_kind(w, layout.WHOLE), "next", lambda n: 0)),
    (36, set_field("blocks", lambda w: block_of_kind(w, layout.WHOLE), "next", lambda n: -1)),
    (36, set_field("blocks", lambda w: block_of_kind(w, layout.WHOLE), "prev", lambda n: 7)),
    (36, set_field("frames", _small, "next", lambda n: 1 << (layout.BLOCK_ORDER - 2))),
    (36, set_field("frames", _small, "prev", lambda n: -1)),
    (36, set_field("file_blocks", lambda w: file_row(w, 1), "marks", lambda n: 0)),
]


# -- page structs --------------------------------------------------------------------------------------------------------------


def with_structs() -> CoreWorld:
    """A huge page of a pool with HVO that is split, so that seven frames have its page structs; two are idle."""
    world = CoreWorld(*synthetic(40))
    world.grow_pool(9, 3, True)
    _, file = world.create(512, HUGE_2M)
    world.access(file, 0, 512, PRIVATE)
    world.convert(file, 3, 1, True)
    world.check()
    return world


def _forget_struct(world: CoreWorld) -> None:
    world.state.vmemmap[np.flatnonzero(world.state.vmemmap)[0]] = 0


def _forget_last_struct(world: CoreWorld) -> None:
    world.state.vmemmap[np.flatnonzero(world.state.vmemmap)[-1]] = 0


def _lend_struct(world: CoreWorld) -> None:
    """An idle huge page has a frame that HVO had freed."""
    last = int(np.flatnonzero(world.state.vmemmap)[-1])
    slot = int(world.state.vmemmap[last])
    idle = block_of_kind(world, layout.POOL)
    world.state.vmemmap[last] = 0
    world.state.frames[slot].index = idle
    world.state.vmemmap[idle * STRUCT_FRAMES] = slot


STRUCT_BREAKERS: list[tuple[int, Breaker]] = [
    (37, _forget_struct),
    (37, _forget_last_struct),
    (37, _lend_struct),
    (37, set_field("frames", lambda w: slot_of_kind(w, layout.FRAME_VMEMMAP), "index", lambda n: n + 1)),
]
