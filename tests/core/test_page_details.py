"""Page details: what a page holds and its marks share a byte, without disturbing each other; and details that go again."""

import itertools
from typing import Any

import numba
import pytest

from core_world import CoreWorld
from gmemlab.core import layout
from gmemlab.core.jit import OPTIONS
from gmemlab.core.layout import FRESH, PRIVATE, STALE, UNIFORM, UNSPECIFIED, USED, ZEROED, ZONE_NORMAL
from gmemlab.core.page_details import (
    ACCEPTED,
    ASSIGNED,
    HOST_MAPPED,
    MAPPED,
    SHARED,
    content_at,
    has_mark,
    put_content,
    put_mark,
)
from gmemlab.core.state import State, reserve_state
from oracle_files import OraclePolicy
from world import SMALL_IN_PLACE, THP_IN_PLACE

SLOT = 7
MARKS = (SHARED, MAPPED, ASSIGNED, ACCEPTED, HOST_MAPPED)


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]  # Numba has no types
def write(state: State, content: int, mark: int, value: int) -> None:
    put_content(state, SLOT, content)
    put_mark(state, SLOT, mark, value)


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]  # Numba has no types
def read(state: State, slot: int, mark: int) -> tuple[int, int]:
    return content_at(state, slot), has_mark(state, slot, mark)


@pytest.mark.parametrize("content", [FRESH, USED, ZEROED, STALE, UNSPECIFIED])
def test_content_and_marks_do_not_disturb_each_other(content: int) -> None:
    state = reserve_state(1, 1)
    for mark, before in itertools.product(MARKS, (FRESH, UNSPECIFIED)):
        write(state, before, mark, 1)
        assert [read(state, SLOT, other) for other in MARKS] == [(before, int(other == mark)) for other in MARKS]
        write(state, content, mark, 1)
        assert [read(state, SLOT, other) for other in MARKS] == [(content, int(other == mark)) for other in MARKS]
        assert [read(state, slot, mark) for slot in (SLOT - 1, SLOT + 1)] == [(0, 0), (0, 0)]
        write(state, content, mark, 0)
        assert [read(state, SLOT, other) for other in MARKS] == [(content, 0)] * len(MARKS)


def test_all_marks_together_fit() -> None:
    state = reserve_state(1, 1)
    for mark in MARKS:
        write(state, UNSPECIFIED, mark, 1)
    assert [read(state, SLOT, mark) for mark in MARKS] == [(UNSPECIFIED, 1)] * len(MARKS)


def new_guest(policy: OraclePolicy) -> tuple[CoreWorld, int, Any]:
    """A guest that used all of its 2 MiB, its number, and its file block."""
    world = CoreWorld([(1, 9, ZONE_NORMAL, 0)], {1}, 9)
    _, file = world.create(512, policy)
    world.access(file, 0, 512, PRIVATE)
    return world, file, world.state.file_blocks[int(world.state.files[world.files[file]].first_block)]


@pytest.mark.parametrize("policy", [SMALL_IN_PLACE, THP_IN_PLACE], ids=["base-pages", "huge"])
@pytest.mark.parametrize("pages", [(0,), (100,), (511,), (0, 511), (200, 300)])
def test_details_go_when_converted_pages_are_as_the_others_again(policy: OraclePolicy, pages: tuple[int, ...]) -> None:
    world, file, block = new_guest(policy)
    for page in pages:
        world.convert(file, page, 1, True)
        world.access(file, page, 1, layout.SHARED)
    for page in pages:
        world.convert(file, page, 1, False)
    for page in pages:
        assert block.detail
        world.access(file, page, 1, PRIVATE)
        world.check()
    assert (block.detail, block.nr_present, block.nr_mapped, block.nr_shared, block.content) == (0, 512, 512, 0, USED)


def test_details_go_when_the_vmm_maps_the_last_shared_page() -> None:
    world, file, block = new_guest(SMALL_IN_PLACE)
    world.convert(file, 0, 512, True)
    for page in range(512):
        world.access(file, page, 1, layout.HOST)
    assert (block.detail, block.nr_host_mapped) == (0, 512)
    world.check()


def test_details_go_with_the_last_page_that_comes_or_goes_alone() -> None:
    world = CoreWorld([(1, 9, ZONE_NORMAL, 0)], {1}, 9)
    _, file = world.create(512, SMALL_IN_PLACE)
    block = world.state.file_blocks[int(world.state.files[world.files[file]].first_block)]
    for page in range(512):
        assert world.allocate(file, page, 1) == (0, 1)
        assert (block.detail == 0) == (page == 511)
    assert world.state.blocks[block.block].kind == UNIFORM
    for page in range(512):
        assert world.punch(file, page, 1) == (0, 1)
        assert (block.detail == 0) == (page == 511)
    world.check()


def test_frames_of_details_that_were_used_before_are_not_taken_for_new_ones() -> None:
    """Rows of frames keep what an earlier file block left in them."""
    world, file, block = new_guest(SMALL_IN_PLACE)
    world.punch(file, 7, 1)
    slab = int(block.detail)
    assert slab and world.state.page_frames[slab * 512 + 8]
    world.punch(file, 0, 512)
    assert block.detail == 0
    world.access(file, 300, 1, PRIVATE)
    assert (block.detail, block.nr_present) == (slab, 1)
    world.check()
    assert [row for row in range(512) if world.state.page_frames[slab * 512 + row]] == [300]
