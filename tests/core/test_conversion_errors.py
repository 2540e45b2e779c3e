"""Errors of conversions, pins and references: how far they got, that the state is sound, and that nothing is lost."""

import errno
from dataclasses import replace

import pytest

from error_world import (
    MakeHost,
    fill,
    free_of,
    nothing_changes,
    release,
)
from error_world import host_fixture as host_fixture
from gmemlab.core import layout
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GIGA_ORDER,
    HOST,
    PRIVATE,
    SHARED,
    SPLIT_2M_FIRST,
)
from gmemlab.core.operations.pin import MAX_BUSY
from world import (
    GIGA,
    HUGE_1G,
    HUGE_2M,
    SHMEM_THP,
    SMALL,
    SMALL_IN_PLACE,
    THP_IN_PLACE,
    attributes,
    mapped,
    new,
)
from world import layout as folios


# -- conversion -------------------------------------------------------------------------------------------------------
def test_ordinary_memory_is_not_converted(host: MakeHost) -> None:
    model = host(8)
    file = new(model, 512, SHMEM_THP)
    with nothing_changes(model):
        for first in (-1, 0, 600):
            assert model.convert(file, first, 1, True) == (errno.EOPNOTSUPP, 0)


def test_held_page_stops_a_conversion_to_private(host: MakeHost) -> None:
    """G45, G46: the offender is named and nothing changed; pool files go on until the huge page that has it (G72)."""
    model = host(16)
    model.grow_pool(9, 3, True)
    small, huge = new(model, 1536, SMALL_IN_PLACE), new(model, 1536, HUGE_2M)
    for file in (small, huge):
        model.convert(file, 0, 1536, True)
        model.access(file, 0, 1536, SHARED)
        model.pin(file, 1100, 3)
    with nothing_changes(model):
        assert model.convert(small, 1000, 500, False) == (errno.EAGAIN, 100)
    assert model.convert(huge, 100, 1436, False) == (errno.EAGAIN, 1000)
    assert attributes(model, huge) == {*range(100), *range(1024, 1536)}
    assert folios(model, huge)[511:514] == [(511, 1), (512, 512), (1024, 1)]


def test_held_folio_stops_a_conversion_to_shared(host: MakeHost) -> None:
    """K4: folio by folio."""
    model = host(16)
    model.grow_pool(9, 3, True)
    for policy in (THP_IN_PLACE, HUGE_2M):
        file = new(model, 1536, policy)
        model.access(file, 0, 1536, PRIVATE)
        model.reference(file, 1100, 3)
        assert model.convert(file, 1000, 100, True) == (errno.EAGAIN, 24)
        assert attributes(model, file) == set(range(1000, 1024))
        with nothing_changes(model):
            assert model.convert(file, 1024, 1, True) == (errno.EAGAIN, 0)


def test_split_for_sharing_needs_page_structs(host: MakeHost) -> None:
    """G74: the second huge page finds three frames of seven; they are free again, the first huge page is shared."""
    model = host(8)
    model.grow_pool(9, 2, True)
    file = new(model, 1024, HUGE_2M)
    model.access(file, 0, 1024, PRIVATE)
    rest = fill(model, 10)
    assert model.convert(file, 500, 524, True) == (errno.ENOMEM, 12)
    assert (attributes(model, file), free_of(model)) == (set(range(500, 512)), 3)
    assert (folios(model, file)[-1], mapped(model, file)) == ((512, 512), (512, 500))
    with nothing_changes(model):
        assert model.convert(file, 512, 1, True) == (errno.ENOMEM, 0)
    release(model, rest)
    assert model.convert(file, 500, 524, True) == (0, 524)


@pytest.mark.parametrize(("split", "leave", "left"), [(HUGE_1G.split, 4094, 4094), (SPLIT_2M_FIRST, 514, 3)])
def test_giga_split_needs_page_structs(host: MakeHost, split: int, leave: int, left: int) -> None:
    """G74: rolled back; with 2M first, what the first step made stays."""
    model = host(1100)
    model.grow_pool(18, 1, True)
    before = free_of(model)
    file = new(model, GIGA, replace(HUGE_1G, split=split))
    model.access(file, 0, GIGA, PRIVATE)
    rest = fill(model, leave)
    assert model.convert(file, 1000, 1, True) == (errno.ENOMEM, 0)
    model.check()
    tally = model.state.tally
    assert tally[layout.TALLY_PRESENT + (GIGA_ORDER if split == HUGE_1G.split else BLOCK_ORDER)] == GIGA
    assert free_of(model) == left
    release(model, rest)
    assert model.convert(file, 1000, 1, True) == (0, 1)
    assert free_of(model) == before - (4095 if split == HUGE_1G.split else 518)


# -- pins and references ----------------------------------------------------------------------------------------------
def test_what_cannot_be_held(host: MakeHost) -> None:
    """G25, K3: private pages for a pin, absent ones for a reference; nothing of the call stays held."""
    model = host(8)
    for policy in (SMALL, SMALL_IN_PLACE):
        file = new(model, 10, policy)
        model.convert(file, 0, 4, True)
        model.access(file, 0, 4, SHARED)
        model.access(file, 6, 2, PRIVATE)
        with nothing_changes(model):
            assert model.pin(file, 0, 6) == (errno.EFAULT, 4)
            assert model.pin(file, 6, 1) == (errno.EFAULT, 0)
            assert model.reference(file, 6, 3) == (errno.ENOENT, 2)
            assert model.unpin(file, 0, 4) == (errno.EINVAL, 0)
            assert model.unreference(file, 6, 2) == (errno.EINVAL, 0)


def test_pin_that_finds_no_memory(host: MakeHost) -> None:
    """What was faulted in before stays, and nothing is held."""
    model = host(8)
    file = new(model, 10, SHMEM_THP)
    rest = fill(model, 3)
    assert model.pin(file, 0, 10) == (errno.ENOMEM, 3)
    assert model.unpin(file, 0, 10) == (errno.EINVAL, 0)
    assert free_of(model) == 0
    release(model, rest)
    assert model.pin(file, 0, 10) == (0, 10)


def test_what_is_not_held_is_not_released(host: MakeHost) -> None:
    """Only the range of the call, once, and by the same kind of call."""
    model = host(8)
    file = new(model, 10, SHMEM_THP)
    model.allocate(file, 0, 10)
    model.pin(file, 2, 3)
    with nothing_changes(model):
        for first, count in ((2, 2), (3, 3), (0, 10), (2, -3), (1 << 51, 1)):
            assert model.unpin(file, first, count) == (errno.EINVAL, 0)
        assert model.unreference(file, 2, 3) == (errno.EINVAL, 0)
    assert model.unpin(file, 2, 3) == (0, 3)
    assert model.unpin(file, 2, 3) == (errno.EINVAL, 0)


def test_folio_is_not_held_too_often(host: MakeHost) -> None:
    """Every page of a call counts on its folio."""
    model = host(8)
    file = new(model, 260, replace(SHMEM_THP, sizes=(8, 0)))
    model.access(file, 0, 260, HOST)
    for _ in range(MAX_BUSY // 256):
        assert model.pin(file, 0, 256) == (0, 256)
    with nothing_changes(model):
        assert model.pin(file, 255, 2) == (errno.ENOMEM, 0)
        assert model.reference(file, 0, 1) == (errno.ENOMEM, 0)
    assert model.pin(file, 256, 2) == (0, 2)
    assert model.unpin(file, 0, 256) == (0, 256)
    assert model.reference(file, 0, 1) == (0, 1)
