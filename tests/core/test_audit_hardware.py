"""The audit of page states can fail: each is broken by hand in a sound state."""

from collections.abc import Callable

import pytest

from core_world import CoreWorld
from gmemlab.core.audit import audit
from gmemlab.core.audit_hardware import BROKEN
from gmemlab.core.audit_hostmap import MAPPED_FOR_HOST
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_4K,
    BLOCK_PAGES,
    GUEST_SNP,
    GUEST_TDX,
    HOST,
    PRIVATE,
    RMP_WHOLE,
    ZAPPED,
)
from gmemlab.core.page_details import ACCEPTED, ASSIGNED, HOST_MAPPED
from world import SMALL, SMALL_IN_PLACE, THP_IN_PLACE, synthetic


@pytest.fixture
def sound(built: CoreWorld) -> CoreWorld:
    """A copy to break."""
    return built.copy()


@pytest.fixture(scope="module", name="built")
def built_fixture() -> CoreWorld:
    """An SNP guest with a whole block, a uniform one and one with details; a TDX guest with the same; a generic one."""
    world = CoreWorld(*synthetic(40))
    for guest in (GUEST_SNP, GUEST_TDX, 0):
        for policy in (THP_IN_PLACE, SMALL_IN_PLACE):
            world.create(1024, policy, None, guest)
            world.access(world.created, 0, 512, PRIVATE, ACCEPT_2M)
            world.access(world.created, 512, 300, PRIVATE, ACCEPT_4K)
            world.convert(world.created, 700, 2, True)
    world.check()
    return world


def row_of(world: CoreWorld, file: int, block: int) -> int:
    """Row of a 2 MiB of a file, in `file_blocks` and in `hardware`."""
    return int(world.state.files[world.files[file]].first_block) + block


def details_of(world: CoreWorld, file: int) -> int:
    """Row in `pages` of the first page of a file's second 2 MiB, which has details."""
    return int(world.state.file_blocks[row_of(world, file, 1)].detail) * BLOCK_PAGES


def change(table: str, row: Callable[[CoreWorld], int], **values: int) -> Callable[[CoreWorld], None]:
    """What sets fields of one record."""

    def break_it(world: CoreWorld) -> None:
        for field, value in values.items():
            getattr(world.state, table)[row(world)][field] = value

    return break_it


def put_mark(world: CoreWorld, slot: int, mark: int, value: int) -> None:
    """As the core's, which only compiled code may call."""
    pages = world.state.pages
    pages[slot] = pages[slot] | mark if value else pages[slot] & ~mark


def mark(slot: Callable[[CoreWorld], int], bit: int, value: int) -> Callable[[CoreWorld], None]:
    """What marks a page with details, or takes a mark away."""

    def break_it(world: CoreWorld) -> None:
        put_mark(world, slot(world), bit, value)

    return break_it


def forget_orphan(world: CoreWorld) -> None:
    """An orphan's entry that nobody counts."""
    world.reference(2, 5, 1)
    world.punch(2, 5, 1)
    assert world.state.host[0].kept_entries == 1
    world.state.host[0].kept_entries = 0


BREAKS = {
    "entry-of-an-orphan": forget_orphan,
    "validated-but-not-assigned": mark(lambda world: details_of(world, 2) + 5, ASSIGNED, 0),
    "shared-and-assigned": mark(lambda world: details_of(world, 2) + 188, ASSIGNED, 1),
    "assigned-and-absent": mark(lambda world: details_of(world, 2) + 400, ASSIGNED, 1),
    "assigned-under-tdx": mark(lambda world: details_of(world, 4) + 5, ASSIGNED, 1),
    "accepted-and-not-mapped": mark(lambda world: details_of(world, 4) + 400, ACCEPTED, 1),
    "count-of-assigned": change("hardware", lambda world: row_of(world, 2, 1), nr_assigned=7),
    "count-of-accepted": change("hardware", lambda world: row_of(world, 4, 1), nr_accepted=7),
    "uniform-in-part": change("hardware", lambda world: row_of(world, 2, 0), nr_accepted=7),
    "uniform-validated-but-not-assigned": change("hardware", lambda world: row_of(world, 2, 0), nr_assigned=0),
    "uniform-accepted-and-not-there": change("file_blocks", lambda world: row_of(world, 3, 0), nr_mapped=0, marks=0),
    "zapped-and-not-mended": change("hardware", lambda world: row_of(world, 1, 0), marks=RMP_WHOLE | ZAPPED),
    "huge-mapping-of-small-entries": change("hardware", lambda world: row_of(world, 1, 0), marks=0),
    "one-entry-for-a-part": change("hardware", lambda world: row_of(world, 2, 1), marks=RMP_WHOLE),
    "states-of-a-generic-guest": change("hardware", lambda world: row_of(world, 5, 0), nr_accepted=BLOCK_PAGES),
    "marks-of-a-generic-guest": change("hardware", lambda world: row_of(world, 5, 0), marks=RMP_WHOLE),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_page_states_are_told(sound: CoreWorld, name: str) -> None:
    BREAKS[name](sound)
    assert audit(sound.state)[0] == BROKEN


def map_all(world: CoreWorld) -> None:
    """The VMM maps all of a guest's first 2 MiB."""
    world.convert(2, 0, 512, True)
    world.access(2, 0, 512, HOST)


def map_private(world: CoreWorld) -> None:
    """Pages 512 to 811 are private, and 700 and 701 were shared."""
    world.access(2, 701, 1, HOST)
    base = details_of(world, 2)
    put_mark(world, base + 189, HOST_MAPPED, 0)
    put_mark(world, base + 5, HOST_MAPPED, 1)


def map_absent(world: CoreWorld) -> None:
    """A shared page that has no frame."""
    world.convert(2, 900, 1, True)
    put_mark(world, details_of(world, 2) + 388, HOST_MAPPED, 1)
    world.state.file_blocks[row_of(world, 2, 1)].nr_host_mapped = 1


def map_a_private_block(world: CoreWorld) -> None:
    """All of it is mapped, and private."""
    map_all(world)
    world.convert(2, 0, 512, False)
    world.state.file_blocks[row_of(world, 2, 0)].nr_host_mapped = 512


def map_part_of_a_uniform_block(world: CoreWorld) -> None:
    """Without details."""
    map_all(world)
    world.state.file_blocks[row_of(world, 2, 0)].nr_host_mapped = 7


def map_of_two_sources(world: CoreWorld) -> None:
    """The private file of such a guest."""
    world.create(512, SMALL)
    world.state.file_blocks[row_of(world, world.created, 0)].nr_host_mapped = 512


HOST_BREAKS = {
    "private": map_private,
    "absent": map_absent,
    "private-block": map_a_private_block,
    "part-of-a-uniform-block": map_part_of_a_uniform_block,
    "two-sources": map_of_two_sources,
    "count": change("file_blocks", lambda world: row_of(world, 2, 1), nr_host_mapped=3),
}


@pytest.mark.parametrize("name", HOST_BREAKS)
def test_broken_mappings_of_the_host_are_told(sound: CoreWorld, name: str) -> None:
    HOST_BREAKS[name](sound)
    assert audit(sound.state)[0] == MAPPED_FOR_HOST
