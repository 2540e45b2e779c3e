"""How the state's tables lie in memory."""

from pathlib import Path

import numba
import pytest

from gmemlab.core import measure
from gmemlab.core.state import prefer_huge_pages
from gmemlab.model.host import Host

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def flags_of(address: int) -> list[str]:
    """VmFlags of the mapping around an address of this process."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(end, 16) for end in first.split("-"))
            inside = low <= address < high
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    return []


@pytest.mark.skipif(not THP.exists(), reason="this kernel has no transparent huge pages")
def test_long_runs_have_their_details_in_huge_pages() -> None:
    state = Host("1G").state
    assert "hg" not in flags_of(state.frames.ctypes.data)
    prefer_huge_pages(state)
    for table in (state.frames, state.pages, state.page_frames):
        assert "hg" in flags_of(table.ctypes.data)


class Interrupted:
    """In place of a table: a signal arrives while its address is asked for, and the handler raises."""

    @property
    def ctypes(self) -> int:
        raise KeyboardInterrupt


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="only compiled code asks for the address")
def test_interrupt_on_the_way_into_compiled_code_is_an_exception() -> None:
    """Not a null pointer that is followed: live commands put their settings back then."""
    state = Host("64M").state
    with pytest.raises(KeyboardInterrupt):
        measure.limit(state._replace(table=Interrupted()), 1, 0)  # type: ignore[arg-type]  # it is no table
