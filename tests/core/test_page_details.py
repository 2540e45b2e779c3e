"""Page details: frames up to the last one of the largest host, beside marks that stay."""

import numba
import pytest

from gmemlab.core.jit import OPTIONS
from gmemlab.core.layout import PAGE_SIZE
from gmemlab.core.page_details import ACCEPTED, ASSIGNED, HOST_MAPPED, frame_at, has_mark, put_frame, put_mark
from gmemlab.core.state import State, reserve_state
from gmemlab.model.checks import LARGEST

LAST = LARGEST // PAGE_SIZE - 1
SLOT = 7


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]  # Numba has no types
def write(state: State, mark: int, pfn: int) -> None:
    put_frame(state, SLOT, LAST - pfn)
    put_mark(state, SLOT, mark, 1)
    put_frame(state, SLOT, pfn)


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]  # Numba has no types
def read(state: State, slot: int) -> tuple[int, int, int, int]:
    marks = has_mark(state, slot, ASSIGNED), has_mark(state, slot, ACCEPTED), has_mark(state, slot, HOST_MAPPED)
    return frame_at(state, slot), *marks


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]  # Numba has no types
def take_away(state: State, mark: int) -> None:
    put_mark(state, SLOT, mark, 0)


@pytest.mark.parametrize("pfn", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, LAST])
def test_frames_and_marks_do_not_disturb_each_other(pfn: int) -> None:
    state = reserve_state(1, 1)
    marks = (ASSIGNED, ACCEPTED, HOST_MAPPED)
    for mark in marks:
        write(state, mark, pfn)
        assert read(state, SLOT) == (pfn, *(int(other == mark) for other in marks))
        take_away(state, mark)
        assert [read(state, slot) for slot in (SLOT - 1, SLOT, SLOT + 1)] == [(0,) * 4, (pfn, 0, 0, 0), (0,) * 4]
