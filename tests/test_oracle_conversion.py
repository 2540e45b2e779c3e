"""Known answers, worked out by hand from the rows that each test names: conversion and mapping."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    ACCEPT_4K,
    HOST,
    PRIVATE,
    PUNCH_REFUSE,
    SHARED,
    USED,
    VMM_PUNCHES_PRIVATE,
    VMM_PUNCHES_SHARED,
)
from world import (
    SHMEM_THP,
    SMALL_IN_PLACE,
    THP,
    THP_IN_PLACE,
    MakeWorld,
    attributes,
    contents,
    count,
    layout,
    mapped,
    new,
    present,
)
from world import world_fixture as world_fixture


# -- two sources ------------------------------------------------------------------------------------------------------
def test_double_allocation(world: MakeWorld) -> None:
    """The table of live-kernel.md, section 7: guest_memfd pages, anonymous pages."""
    model = world(16)
    file = new(model, 512, THP)
    anonymous = model.shared_side(file)
    seen = []

    def note(*results: tuple[int, int]) -> None:
        assert all(error == 0 for error, _ in results)
        seen.append((present(model, file), present(model, anonymous)))

    note()
    note(model.access(file, 0, 512, PRIVATE))
    note(model.convert(file, 0, 256, True))
    note(model.access(file, 0, 256, SHARED), model.access(file, 256, 256, PRIVATE))
    note(model.punch(file, 0, 256))
    note(model.punch(anonymous, 0, 256))
    note(model.convert(file, 0, 256, False), model.access(file, 0, 512, PRIVATE))
    assert seen == [(0, 0), (512, 0), (512, 0), (512, 512), (256, 512), (256, 256), (512, 256)]


def test_vmm_discards_the_other_side(world: MakeWorld) -> None:
    """K12: with both discards, no range is backed twice when the shared side is 4K."""
    model = world(16)
    both = VMM_PUNCHES_PRIVATE | VMM_PUNCHES_SHARED
    file = new(model, 512, replace(THP, vmm_punch=both, shared_sizes=(0,)))
    other = model.shared_side(file)
    model.access(file, 0, 512, PRIVATE)
    assert model.convert(file, 100, 3, True) == (0, 3)
    assert model.access(file, 100, 3, SHARED) == (0, 3)
    assert (present(model, file), present(model, other)) == (509, 3)
    assert model.access(file, 100, 1, PRIVATE) == (errno.EFAULT, 0)
    assert model.access(file, 99, 2, SHARED) == (errno.EFAULT, 0)
    assert model.convert(file, 100, 3, False) == (0, 3)
    assert (present(model, file), present(model, other)) == (509, 0)
    assert [count(model, name) for name in ("shattered_convert", "split_punch")] == [1, 1]


def test_refused_discard_is_ignored_by_the_vmm(world: MakeWorld) -> None:
    model = world(16)
    file = new(model, 512, replace(THP, punch=PUNCH_REFUSE, vmm_punch=VMM_PUNCHES_PRIVATE))
    model.allocate(file, 0, 512)
    assert model.convert(file, 0, 1, True) == (0, 1)
    assert (present(model, file), attributes(model, file)) == (512, {0})


# -- in place ---------------------------------------------------------------------------------------------------------
def test_pinned_page_stops_the_conversion_to_private(world: MakeWorld) -> None:
    """G45, G46, and the selftest `elevated_refcount`: nothing changed, the offender named; the others convert."""
    model = world(8)
    file = new(model, 16, SMALL_IN_PLACE)
    assert model.convert(file, 0, 16, True) == (0, 16)
    assert model.access(file, 0, 16, SHARED) == (0, 16)
    model.pin(file, 5, 1)
    assert model.convert(file, 0, 16, False) == (errno.EAGAIN, 5)
    assert attributes(model, file) == set(range(16))
    assert model.convert(file, 5, 1, False) == (errno.EAGAIN, 0)
    assert model.convert(file, 0, 5, False) == (0, 5)
    assert model.convert(file, 6, 10, False) == (0, 10)
    assert attributes(model, file) == {5}
    model.unpin(file, 5, 1)
    assert model.convert(file, 0, 16, False) == (0, 16)
    assert contents(model, file) == {USED: list(range(16))}
    assert count(model, "eagain") == 2


def test_held_private_page_stops_the_conversion_of_a_mixed_range(world: MakeWorld) -> None:
    """G45: every present folio of the range is looked at, not only what is shared."""
    model = world(4)
    file = new(model, 512, SMALL_IN_PLACE)
    model.access(file, 0, 16, PRIVATE)
    model.convert(file, 0, 4, True)
    model.reference(file, 8, 1)
    assert model.convert(file, 0, 16, False) == (errno.EAGAIN, 8)
    assert attributes(model, file) == {0, 1, 2, 3}
    assert model.convert(file, 0, 8, False) == (0, 8)
    assert model.convert(file, 0, 16, False) == (0, 16)  # all of it is private: nothing to do


def test_conversion_to_what_it_is_does_nothing(world: MakeWorld) -> None:
    """G43: no unmap, no reference check; G48: unallocated offsets convert; G42: errors."""
    model = world(8)
    file = new(model, 16, SMALL_IN_PLACE)
    model.access(file, 8, 8, PRIVATE)
    assert model.convert(file, 8, 8, False) == (0, 8)
    assert model.convert(file, 0, 8, True) == (0, 8)
    model.access(file, 0, 8, SHARED)
    model.pin(file, 0, 8)
    assert model.convert(file, 0, 8, True) == (0, 8)
    assert mapped(model, file) == (0, 8)  # the private pages: neither call touched them
    assert model.access(file, 8, 1, HOST) == (errno.EACCES, 0)
    assert model.convert(file, 0, 17, True) == (errno.EINVAL, 0)
    assert model.convert(file, 0, 0, True) == (errno.EINVAL, 0)
    assert model.convert(new(model, 4, SHMEM_THP), 0, 1, True) == (errno.EOPNOTSUPP, 0)


def test_held_folio_is_not_split_for_sharing(world: MakeWorld) -> None:
    """K4: folio by folio, EAGAIN at the held one."""
    model = world(8)
    file = new(model, 1024, THP_IN_PLACE)
    model.allocate(file, 0, 1024)
    model.reference(file, 600, 1)
    assert model.convert(file, 510, 10, True) == (errno.EAGAIN, 2)
    assert attributes(model, file) == {510, 511}
    assert layout(model, file) == [
        *((0, 256), (256, 128), (384, 64), (448, 32), (480, 16), (496, 8), (504, 4), (508, 2), (510, 1), (511, 1)),
        (512, 512),
    ]
    assert [count(model, name) for name in ("split_convert", "eagain")] == [1, 1]


def test_merged_backing_does_not_heal_the_mapping(world: MakeWorld) -> None:
    """K6: the folio is whole again, the guest still maps 4K, until all of it left and came back."""
    model = world(8)
    file = new(model, 512, THP_IN_PLACE)
    model.access(file, 0, 512, PRIVATE)
    assert mapped(model, file) == (512, 0)
    model.convert(file, 100, 10, True)
    assert mapped(model, file) == (0, 502)
    assert model.access(file, 100, 10, SHARED) == (0, 10)
    assert model.convert(file, 100, 10, False) == (0, 10)
    assert layout(model, file) == [(0, 512)]
    model.access(file, 100, 10, PRIVATE)
    assert mapped(model, file) == (0, 512)
    assert [count(model, name) for name in ("shattered_convert", "healed_backing", "healed_mapping")] == [1, 1, 0]
    model.punch(file, 0, 512)
    model.access(file, 0, 1, PRIVATE)
    assert mapped(model, file) == (512, 0)
    assert count(model, "healed_mapping") == 1


# -- mapping ----------------------------------------------------------------------------------------------------------
def test_small_accept_shatters_and_inhibits(world: MakeWorld) -> None:
    """G79: the one-way mark outlives the mapping, and goes with the last page."""
    model = world(8)
    file = new(model, 512, THP)
    model.access(file, 0, 1, PRIVATE)
    model.access(file, 3, 1, PRIVATE, ACCEPT_4K)
    assert mapped(model, file) == (0, 512)
    assert model.observe()["blocks"][file] == {0: (0, 1, 1)}
    assert count(model, "shattered_accept") == 1
    model.convert(file, 0, 512, True)
    model.convert(file, 0, 512, False)
    assert model.observe()["blocks"][file] == {0: (0, 0, 1)}
    model.access(file, 0, 1, PRIVATE)
    assert mapped(model, file) == (0, 1)
    model.punch(file, 0, 512)
    model.access(file, 0, 1, PRIVATE)
    assert mapped(model, file) == (512, 0)


@pytest.mark.parametrize(
    ("slots", "huge"),
    [
        ([(0, 1024, 0)], 1024),
        ([(512, 1024, 0)], 1024),
        ([(1, 1024, 0)], 0),
        ([(0, 160, 0), (256, 864, 160)], 0),
        ([(0, 160, 0), (672, 864, 160)], 512),
    ],
)
def test_memslots_limit_the_mapping(world: MakeWorld, slots: list[tuple[int, int, int]], huge: int) -> None:
    """K8, K10, G59: a hole below 1 MiB breaks the first 2M; an offset that is not congruent breaks all."""
    model = world(8)
    file = new(model, 1024, THP, slots)
    model.access(file, 0, 1024, PRIVATE)
    assert mapped(model, file) == (huge, 1024 - huge)
