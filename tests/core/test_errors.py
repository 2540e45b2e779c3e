"""Every error that the core returns: how far the operation got, that the state is sound, and that nothing is lost."""

import errno
from dataclasses import replace

import pytest

from error_world import (
    EOF_OF_10,
    INTERPRETED,
    MakeHost,
    call,
    fill,
    free_of,
    nothing_changes,
    release,
)
from error_world import host_fixture as host_fixture
from gmemlab.core import execute, layout
from gmemlab.core.layout import (
    GIGA_ORDER,
    HOST,
    KIND_HOST,
    PRIVATE,
    PUNCH_REFUSE,
    SHARED,
    SPLIT_2M_FIRST,
    ZEROED,
)
from world import (
    GIGA,
    HUGE_1G,
    HUGE_2M,
    HUGETLBFS,
    SHMEM_THP,
    SMALL,
    SMALL_IN_PLACE,
    THP,
    THP_IN_PLACE,
    Policy,
    contents,
    mapped,
    new,
    present,
)
from world import layout as folios

# -- ranges -----------------------------------------------------------------------------------------------------------
RANGED = ("allocate", "punch", "access", "convert", "pin", "reference")


@pytest.mark.parametrize("name", RANGED)
def test_ranges_that_are_none(host: MakeHost, name: str) -> None:
    """L2, G18, G19, G42."""
    model = host(8)
    file = new(model, 10, SMALL_IN_PLACE)
    model.allocate(file, 0, 10)
    too_big = errno.EINVAL if name == "convert" else errno.EFBIG
    with nothing_changes(model):
        for first, count in ((-1, 5), (0, 0), (3, -2), (-(1 << 40), 1 << 50)):
            assert call(model, name, file, first, count) == (errno.EINVAL, 0)
        for first, count in ((1 << 51, 1), (1, 1 << 51), ((1 << 51) - 1, 1), (1 << 62, 1 << 62), (1, (1 << 63) - 1)):
            assert call(model, name, file, first, count) == (too_big, 0)


@pytest.mark.parametrize("name", RANGED)
def test_ranges_beyond_the_end(host: MakeHost, name: str) -> None:
    """L2: EINVAL; but a punch is clipped (L6), and a pin faults."""
    model = host(8)
    file = new(model, 10, SMALL_IN_PLACE)
    model.allocate(file, 0, 9)
    with nothing_changes(model):
        for first, count in EOF_OF_10:
            expected = {"punch": (0, count), "pin": (errno.EFAULT, 0)}.get(name, (errno.EINVAL, 0))
            assert call(model, name, file, first, count) == expected


def test_operation_that_is_none(host: MakeHost) -> None:
    model = host(8)
    file = new(model, 10, SMALL)
    with nothing_changes(model):
        for op in (0, layout.OP_CREATE, layout.OP_SAMPLE, 99):
            assert model.run(op, file, 0, 1) == (errno.EOPNOTSUPP, 0)


# -- creation ---------------------------------------------------------------------------------------------------------
def test_sizes_that_cannot_be(host: MakeHost) -> None:
    """G11, G68, L2."""
    model = host(8)
    model.grow_pool(9, 2, False)
    with nothing_changes(model):
        for pages in (0, -512, (1 << 51) + 1):
            assert model.create(pages, SMALL)[0] == (errno.EFBIG if pages > 0 else errno.EINVAL)
        for policy in (replace(THP, sizes=(9,)), HUGE_2M, HUGETLBFS):
            assert model.create(513, policy) == (errno.EINVAL, 0)


def test_pool_promises_no_more_than_it_has(host: MakeHost) -> None:
    """G70 at creation, L19 at a mapping: all or nothing."""
    model = host(8)
    model.grow_pool(9, 2, False)
    new(model, 512, HUGE_2M)
    file = new(model, 1024, HUGETLBFS)
    with nothing_changes(model):
        assert model.create(1024, HUGE_2M) == (errno.ENOMEM, 0)
        assert model.reserve(file, 0, 1024) == (errno.ENOMEM, 0)
    assert model.reserve(file, 512, 512) == (0, 512)
    with nothing_changes(model):
        assert model.create(512, HUGE_2M) == (errno.ENOMEM, 0)
        assert model.reserve(file, 0, 1024) == (errno.ENOMEM, 0)


def test_reservations_that_cannot_be(host: MakeHost) -> None:
    """L19: hugetlb memory alone has them, in ranges that start at a huge page and lie within the file."""
    model = host(8)
    model.grow_pool(9, 2, False)
    file, guest, small = new(model, 1024, HUGETLBFS), new(model, 512, HUGE_2M), new(model, 10, SMALL)
    with nothing_changes(model):
        for other in (guest, small):
            for first, count in ((0, 512), (-1, 5), (1 << 51, 1)):
                assert model.reserve(other, first, count) == (errno.EOPNOTSUPP, 0)
        for first, count in ((-1, 5), (0, 0), (-512, 512), (1, 511), (511, 1), (1024, 1), (512, 513), (1 << 50, 512)):
            assert model.reserve(file, first, count) == (errno.EINVAL, 0)
        for first, count in ((1 << 51, 1), (1, 1 << 51), (1 << 62, 1 << 62)):
            assert model.reserve(file, first, count) == (errno.EOVERFLOW, 0)


def test_tables_of_the_model_run_out(host: MakeHost) -> None:
    """Not memory of the host: the state says that it is exhausted, and stays sound."""
    model = host(8)
    file = new(model, 10, SMALL)
    row = model.policy(Policy(kind=KIND_HOST))
    assert execute.open_guest(model.state, 1 << 31, KIND_HOST, row, 0, 0)[0] == 0
    assert model.state.host[0].exhausted == 0
    assert execute.open_guest(model.state, 1 << 31, KIND_HOST, row, 0, 0) == (errno.ENFILE, 0)
    assert model.state.host[0].exhausted == 1
    assert model.allocate(file, 0, 10) == (0, 10)


@pytest.mark.parametrize("pages", [(1 << 31) + 1, 1 << 50, (1 << 51) - 1])
def test_file_that_the_tables_could_never_hold(host: MakeHost, pages: int) -> None:
    """It takes nothing, and says nothing about the tables."""
    model = host(8)
    file = new(model, 10, SMALL)
    before = model.state.host.copy()
    assert execute.open_guest(model.state, pages, KIND_HOST, model.policy(Policy(kind=KIND_HOST)), 0, 0) == (errno.ENFILE, 0)
    assert model.state.host.tobytes() == before.tobytes()
    assert model.allocate(file, 0, 10) == (0, 10)


def test_pools_grow_as_far_as_they_can(host: MakeHost) -> None:
    """K21."""
    model = host(8)
    fill(model, 1024)
    assert model.grow_pool(9, 3, True) == (errno.ENOMEM, 2)
    with nothing_changes(model):
        assert model.grow_pool(9, 1, True) == (errno.ENOMEM, 0)
        assert model.grow_pool(18, 1, True) == (errno.ENOMEM, 0)


# -- allocation and access --------------------------------------------------------------------------------------------
def test_allocation_ends_where_memory_does(host: MakeHost) -> None:
    """G20: what was got, stays; the next page tells the same."""
    model = host(8)
    fill(model, 700)
    file = new(model, 2048, THP)
    assert model.allocate(file, 100, 1900) == (errno.ENOMEM, 600)  # 2 MiB around page 100, then single pages
    assert (present(model, file), free_of(model)) == (700, 0)
    with nothing_changes(model):
        assert model.allocate(file, 0, 2048) == (errno.ENOMEM, 700)


def test_allocation_in_units_only(host: MakeHost) -> None:
    """G69, G89: nothing smaller helps."""
    model = host(8)
    model.grow_pool(9, 1, False)
    fill(model, 700)
    huge, strict = new(model, 512, HUGE_2M), new(model, 1024, replace(THP_IN_PLACE, sizes=(9,), punch=PUNCH_REFUSE))
    with nothing_changes(model):
        assert model.allocate(huge, 0, 511) == (errno.EINVAL, 0)
        assert model.allocate(huge, 1, 512) == (errno.EINVAL, 0)
    assert model.allocate(strict, 0, 1024) == (errno.ENOMEM, 512)
    assert (present(model, strict), free_of(model)) == (512, 188)


def test_hugetlbfs_fails_with_another_number(host: MakeHost) -> None:
    """L19: a hole of a file that was punched is promised to nobody, and then to another."""
    model = host(8)
    model.grow_pool(9, 2, False)
    file = new(model, 1024, HUGETLBFS)
    model.reserve(file, 0, 1024)
    model.access(file, 0, 1024, HOST)
    model.punch(file, 512, 512)
    assert model.reserve(new(model, 512, HUGETLBFS), 0, 512) == (0, 512)
    with nothing_changes(model):
        assert model.allocate(file, 500, 100) == (errno.ENOSPC, 12)
        assert model.access(file, 500, 100, HOST) == (errno.ENOSPC, 12)
        assert model.pin(file, 600, 1) == (errno.EFAULT, 0)  # what a pin makes of SIGBUS


@pytest.mark.parametrize("split", [SPLIT_2M_FIRST] if INTERPRETED else [HUGE_1G.split, SPLIT_2M_FIRST])
def test_huge_page_born_split_needs_page_structs(host: MakeHost, split: int) -> None:
    """G71, G74: without memory for them the page goes back to the pool, and is still promised."""
    model = host(1100)
    model.grow_pool(18, 1, True)
    file = new(model, GIGA, replace(HUGE_1G, split=split))
    model.convert(file, 3, 1, True)
    before = free_of(model)
    for leave in (510, 513):
        rest = fill(model, leave)
        assert model.access(file, 3, 1, SHARED) == (errno.ENOMEM, 0)
        pool = model.state.pools[1]
        assert (pool.free, pool.reserved, free_of(model)) == (1, 1, leave)
        assert model.state.tally[layout.TALLY_PRESENT + GIGA_ORDER] == 0
        release(model, rest)
        assert free_of(model) == before
    assert model.access(file, 3, 1, SHARED) == (0, 1)
    assert free_of(model) == before - (518 if split == SPLIT_2M_FIRST else 4095)


def test_small_huge_page_born_split_needs_page_structs(host: MakeHost) -> None:
    """G71, G74 with 2M pages."""
    model = host(8)
    model.grow_pool(9, 1, True)
    file = new(model, 512, HUGE_2M)
    model.convert(file, 3, 1, True)
    rest = fill(model, 6)
    with nothing_changes(model):
        assert model.access(file, 3, 2, SHARED) == (errno.ENOMEM, 0)
        assert model.allocate(file, 0, 512) == (errno.ENOMEM, 0)
    release(model, rest)
    assert model.access(file, 3, 1, SHARED) == (0, 1)


def test_access_against_the_attribute(host: MakeHost) -> None:
    """G39: a memory-fault exit at the first page that differs; what lies before it was touched."""
    model = host(8)
    for policy in (SMALL, SMALL_IN_PLACE, THP):
        file = new(model, 1024, policy)
        model.convert(file, 600, 100, True)
        model.access(file, 0, 600, PRIVATE)
        assert model.access(file, 500, 200, PRIVATE) == (errno.EFAULT, 100)
        assert model.access(file, 600, 200, SHARED) == (errno.EFAULT, 100)
        with nothing_changes(model):
            assert model.access(file, 650, 1, PRIVATE) == (errno.EFAULT, 0)
            assert model.access(file, 0, 1, SHARED) == (errno.EFAULT, 0)
    assert model.state.tally[layout.TALLY_MEMORY_EXITS] == 12


def test_host_cannot_touch_private_memory_in_place(host: MakeHost) -> None:
    """G26: SIGBUS; with two sources it writes beside it (K13)."""
    model = host(8)
    file, beside = new(model, 20, SMALL_IN_PLACE), new(model, 20, SMALL)
    model.convert(file, 0, 5, True)
    assert model.access(file, 2, 10, HOST) == (errno.EACCES, 3)
    assert contents(model, file) == {layout.USED: [2, 3, 4]}
    with nothing_changes(model):
        assert model.access(file, 5, 1, HOST) == (errno.EACCES, 0)
    assert model.access(beside, 0, 5, HOST) == (0, 5)
    assert (present(model, beside), present(model, model.shared_side(beside))) == (0, 5)


def test_accesses_find_no_memory(host: MakeHost) -> None:
    """G20 for faults: private, shared beside it, and the host's."""
    model = host(8)
    file = new(model, 100, SMALL)
    model.convert(file, 50, 50, True)
    fill(model, 30)
    assert model.access(file, 0, 50, PRIVATE) == (errno.ENOMEM, 30)
    assert mapped(model, file) == (0, 30)
    model.punch(file, 0, 20)
    assert model.access(file, 60, 40, SHARED) == (errno.ENOMEM, 20)
    assert present(model, model.shared_side(file)) == 20
    with nothing_changes(model):
        assert model.access(file, 0, 3, HOST) == (errno.ENOMEM, 0)
        assert model.access(new(model, 8, SHMEM_THP), 0, 8, HOST) == (errno.ENOMEM, 0)
        model.destroy(max(model.files))


# -- punch ------------------------------------------------------------------------------------------------------------
def test_punches_that_are_refused(host: MakeHost) -> None:
    """Q5, G69."""
    model = host(8)
    model.grow_pool(9, 2, False)
    refusing, huge = new(model, 1024, replace(THP, punch=PUNCH_REFUSE)), new(model, 1024, HUGE_2M)
    model.allocate(refusing, 0, 1024)
    model.allocate(huge, 0, 1024)
    with nothing_changes(model):
        for first, count in ((1, 511), (0, 513), (511, 1), (511, 513)):
            assert model.punch(refusing, first, count) == (errno.EINVAL, 0)
            assert model.punch(huge, first, count) == (errno.EINVAL, 0)


def test_split_huge_page_that_is_held_is_not_punched(host: MakeHost) -> None:
    """G73: the huge pages before it are gone, it and those after it are not."""
    model = host(8)
    model.grow_pool(9, 3, True)
    file = new(model, 1536, HUGE_2M)
    model.access(file, 0, 1536, PRIVATE)
    model.convert(file, 700, 1, True)
    model.pin(file, 700, 1)
    assert model.punch(file, 0, 1536) == (errno.EAGAIN, 512)
    with nothing_changes(model):
        assert model.punch(file, 512, 512) == (errno.EAGAIN, 0)
    assert sorted({first // 512 for first, _ in folios(model, file)}) == [1, 2]


def test_partial_punch_of_a_held_hugetlb_page_zeroes(host: MakeHost) -> None:
    """L18: no error there."""
    model = host(8)
    model.grow_pool(9, 1, False)
    file = new(model, 512, HUGETLBFS)
    model.access(file, 0, 512, HOST)
    model.pin(file, 0, 1)
    assert model.punch(file, 0, 8) == (0, 8)
    assert contents(model, file)[ZEROED] == list(range(8))
