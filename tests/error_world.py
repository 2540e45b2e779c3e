"""What the tests of errors share: hosts that are audited and emptied at their end, and checks that nothing changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import pytest

from core_world import CoreWorld
from gmemlab.core import layout
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GIGA_ORDER,
    KIND_HOST,
    PRIVATE,
)
from gmemlab.core.state import nr_free_lists
from world import (
    Policy,
    new,
    synthetic,
)

MakeHost = Callable[[int], CoreWorld]
INTERPRETED = bool(numba.config.DISABLE_JIT)  # 1 GiB takes its time
EOF_OF_10 = [(9, 2), (10, 1), (100, 5)]


def free_of(model: CoreWorld) -> int:
    """Free pages, as the zones count them."""
    return int(model.state.zones.free.sum())


def pooled(model: CoreWorld) -> int:
    """Pages that pools hold, less those of page structs that they gave back."""
    tally = model.state.tally
    structs = int(tally[layout.TALLY_VMEMMAP_RETURNED] - tally[layout.TALLY_VMEMMAP_TAKEN])
    return int(model.state.pools[0].nr << BLOCK_ORDER) + int(model.state.pools[1].nr << GIGA_ORDER) - structs


@pytest.fixture(name="host")
def host_fixture() -> Iterator[MakeHost]:
    """A function that makes a host of so many blocks. At the end it is audited, emptied, and must have all its memory."""
    made: list[tuple[CoreWorld, int]] = []

    def make(nr_blocks: int) -> CoreWorld:
        model = CoreWorld(*synthetic(nr_blocks))
        made.append((model, free_of(model)))
        return model

    yield make
    for model, before in made:
        model.check()  # with what is there after the errors
        for file in [file for file in model.files if file > 0]:
            model.destroy(file)
        model.check()
        assert free_of(model) == before - pooled(model)
        for pool in model.state.pools:
            assert (pool.free, pool.reserved) == (pool.nr, 0)


@contextmanager
def nothing_changes(model: CoreWorld) -> Iterator[None]:
    """What happens inside changes nothing but counters, and what the VMM maps: faults and zaps come before errors (G46)."""
    before = model.observe()
    yield
    model.check()
    after = model.observe()
    assert after == before | {name: after[name] for name in ("counters", "operations", "host_mapped")}


def fill(model: CoreWorld, leave: int) -> list[int]:
    """The host's own memory takes all free pages but so many: first what is in pieces, then whole blocks. Returns its files."""
    total = free_of(model) - leave
    listed = model.state.free_lists.count[: nr_free_lists(len(model.state.zones))].reshape(-1, layout.NR_ORDERS).sum(axis=0)
    pieces = min(total, sum(int(listed[order]) << order for order in range(BLOCK_ORDER)))
    files = []
    for pages in (pieces, total - pieces):
        if pages:
            files.append(new(model, pages, Policy(kind=KIND_HOST, movable=True)))
            assert model.allocate(files[-1], 0, pages) == (0, pages)
    return files


def release(model: CoreWorld, files: list[int]) -> None:
    """The host's own memory is free again."""
    for file in files:
        model.destroy(file)


def call(model: CoreWorld, name: str, file: int, first: int, count: int) -> tuple[int, int]:
    """An operation by name."""
    more = {"access": (PRIVATE,), "convert": (True,)}.get(name, ())
    result: tuple[int, int] = getattr(model, name)(file, first, count, *more)
    return result
