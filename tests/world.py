"""What a model must offer to take the known-answer tests, and the models that take them.

To add a model, add a line to `WORLDS`: a name, and a function (zones, reserved blocks, number of blocks, types of blocks that
are not MOVABLE) -> model.
Test modules import `world_fixture` and take the fixture `world`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from core_world import CoreWorld
from gmemlab.core.layout import (
    BLOCK_PAGES,
    CONVERT_IN_PLACE,
    CONVERT_TWO_SOURCES,
    GUEST_GENERIC,
    KIND_ANON,
    KIND_HOST,
    KIND_HUGETLB,
    KIND_SHMEM,
    MERGE_EAGER,
    PUNCH_DEFER,
    PUNCH_REFUSE,
    SOURCE_POOL,
    SPLIT_BUDDY,
    TOUCH,
    ZONE_NORMAL,
)
from oracle import OracleHost
from oracle_files import Observation, OraclePolicy

Zones = list[tuple[int, int, int, int]]
Policy = OraclePolicy


class World(Protocol):
    """A host of blocks 1 .. n and its files. Units: 4 KiB pages; every operation returns (errno or 0, pages done)."""

    def create(
        self, pages: int, policy: Policy, slots: list[tuple[int, int, int]] | None = None, guest: int = GUEST_GENERIC
    ) -> tuple[int, int]: ...
    def ready(self, file: int) -> tuple[int, int]: ...
    def shared_side(self, file: int) -> int: ...
    def destroy(self, file: int) -> tuple[int, int]: ...
    def allocate(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def collapse(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def free_lazily(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def split_deferred(self, file: int, max_none: int = 511) -> tuple[int, int]: ...
    def reserve(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def punch(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def access(self, file: int, first: int, count: int, kind: int, accept: int = TOUCH) -> tuple[int, int]: ...
    def convert(self, file: int, first: int, count: int, to_shared: bool) -> tuple[int, int]: ...
    def pin(self, file: int, first: int, count: int, duration: int = 0) -> tuple[int, int]: ...
    def unpin(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def reference(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def unreference(self, file: int, first: int, count: int) -> tuple[int, int]: ...
    def grow_pool(self, order: int, count: int, hvo: bool, nodes: int = 0) -> tuple[int, int]: ...
    def set_pool(self, order: int, count: int, overcommit: int, node: int = -1) -> int: ...
    def demote(self, count: int, nodes: int = 0) -> tuple[int, int]: ...
    def set_nodes(self, distances: list[list[int]], of_zone: list[int]) -> None: ...
    def bind(self, file: int, mode: int, allowed: int, home: int) -> tuple[int, int]: ...
    def mount(self, order: int, most: int, least: int) -> tuple[int, int]: ...
    def unmount(self, mount: int) -> tuple[int, int]: ...
    def join(self, mount: int, file: int) -> tuple[int, int]: ...
    def compact(self) -> tuple[int, int]: ...
    def set_cpus(self, count: int, batch: int, high_min: int, high_max: int, in_batches: bool = False) -> None: ...
    def run_on(self, cpu: int) -> None: ...
    def set_watermarks(self, low: int, high: int, nofragment: bool) -> None: ...
    def set_min(self, least: int) -> None: ...
    def drain(self) -> tuple[int, int]: ...
    def decay(self) -> tuple[int, int]: ...
    def khugepaged(self, milliseconds: int, pages_to_scan: int = 4096, max_ptes_none: int = 511) -> tuple[int, int]: ...
    def kcompactd(self, milliseconds: int, proactiveness: int = 20) -> tuple[int, int]: ...
    def observe(self) -> Observation: ...
    def check(self) -> None: ...


WORLDS: dict[str, Callable[..., World]] = {"oracle": OracleHost, "core": CoreWorld}
MakeWorld = Callable[[int], World]

SMALL = Policy(conversion=CONVERT_TWO_SOURCES)
SMALL_IN_PLACE = Policy(conversion=CONVERT_IN_PLACE)
THP = Policy(sizes=(9, 0), conversion=CONVERT_TWO_SOURCES, split=SPLIT_BUDDY, shared_sizes=(9, 0))
THP_IN_PLACE = Policy(sizes=(9, 0), conversion=CONVERT_IN_PLACE, split=SPLIT_BUDDY, merge=MERGE_EAGER)
SHMEM_THP = Policy(kind=KIND_SHMEM, sizes=(9, 0), movable=True, split=SPLIT_BUDDY, fallocate_sizes=tuple(range(9, -1, -1)))
ANON_THP = Policy(kind=KIND_ANON, sizes=(9, 0), movable=True, punch=PUNCH_DEFER)
KERNEL = Policy(kind=KIND_HOST)
HUGETLBFS = Policy(kind=KIND_HUGETLB, sizes=(9,), source=SOURCE_POOL)
HUGE_2M = Policy(sizes=(9,), source=SOURCE_POOL, punch=PUNCH_REFUSE, conversion=CONVERT_IN_PLACE, merge=MERGE_EAGER, hvo=True)
HUGE_1G = replace(HUGE_2M, sizes=(18,))

FREE_OF_8 = 7 * 512  # pages; of eight blocks, the first holds page structs
GIGA = 1 << 18  # pages


@pytest.fixture(name="world", params=sorted(WORLDS))
def world_fixture(request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    """A function that makes a host of so many blocks; whatever it made is audited at the end."""
    yield from makers(request.param)


def makers(name: str) -> Iterator[MakeWorld]:
    """A function that makes hosts of one model; all are audited when the generator goes on."""
    made: list[World] = []

    def make(nr_blocks: int) -> World:
        made.append(WORLDS[name](*synthetic(nr_blocks)))
        return made[-1]

    yield make
    for model in made:
        model.check()


def synthetic(nr_blocks: int) -> tuple[Zones, set[int], int]:
    """One Normal zone; the first blocks hold the page structs, 8 frames per block (C23)."""
    structs = -(-8 * (nr_blocks + 1) // BLOCK_PAGES)
    return [(1, nr_blocks + 1, ZONE_NORMAL, 0)], set(range(1, structs + 1)), nr_blocks


def free_pages(model: World, least_order: int = 0) -> int:
    """Pages in free chunks of at least this order."""
    free = model.observe()["free"]
    return sum(len(pfns) << order for (_, _, order), pfns in free.items() if order >= least_order)


def present(model: World, file: int) -> int:
    """Pages that the file holds."""
    return sum(1 for page in model.observe()["files"][file].values() if page[1] >= 0)


def layout(model: World, file: int) -> list[tuple[int, int]]:
    """(first index, pages) of every folio of the file, ascending."""
    found: list[tuple[int, int]] = []
    for index, (_, order, *_) in sorted(model.observe()["files"][file].items()):
        if order >= 0 and (not found or index >= sum(found[-1])):
            found.append((index, 1 << order))
    return found


def frames(model: World, file: int) -> list[int]:
    """The frames of the file's present pages, by index."""
    return [page[0] for _, page in sorted(model.observe()["files"][file].items()) if page[1] >= 0]


def contents(model: World, file: int) -> dict[int, list[int]]:
    """Indexes of present pages by content."""
    found: dict[int, list[int]] = {}
    for index, (_, order, _, content, _) in sorted(model.observe()["files"][file].items()):
        if order >= 0:
            found.setdefault(content, []).append(index)
    return found


def mapped(model: World, file: int) -> tuple[int, int]:
    """Pages that the guest maps: (at 2 MiB, at 4 KiB)."""
    seen = model.observe()
    pages = sum(page[4] for page in seen["files"][file].values())
    huge = sum(block[0] for block in seen["blocks"][file].values()) * BLOCK_PAGES
    return huge, pages - huge


def count(model: World, name: str) -> int:
    """A counter."""
    return model.observe()["counters"][name]


def pool(model: World, order: int = 9) -> tuple[int, int, int]:
    """Huge pages of a pool: all, free, and promised to somebody who has not taken them yet."""
    return model.observe()["pools"][order][:3]


def new(model: World, pages: int, policy: Policy, slots: list[tuple[int, int, int]] | None = None) -> int:
    error, file = model.create(pages, policy, slots)
    assert error == 0
    return file


def attributes(model: World, file: int) -> set[int]:
    """Indexes of shared pages."""
    return {index for index, page in model.observe()["files"][file].items() if page[2]}
