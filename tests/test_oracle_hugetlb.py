"""Known answers, worked out by hand from the rows that each test names: pools of huge pages."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    HOST,
    KIND_HOST,
    PRIVATE,
    PUNCH_KEEP,
    PUNCH_ZERO,
    SHARED,
    SPLIT_2M_FIRST,
    USED,
    ZEROED,
)
from gmemlab.errors import NotSupported, OperationError, OutOfMemory
from gmemlab.model.host import Host
from world import (
    FREE_OF_8,
    GIGA,
    HUGE_1G,
    HUGE_2M,
    HUGETLBFS,
    MakeWorld,
    Policy,
    attributes,
    contents,
    count,
    free_pages,
    layout,
    mapped,
    new,
    pool,
    present,
)
from world import world_fixture as world_fixture


# -- hugetlb: ranges --------------------------------------------------------------------------------------------------
def test_hugetlbfs_rounds_outward_and_inward(world: MakeWorld) -> None:
    """L18."""
    model = world(8)
    model.grow_pool(9, 2, False)
    file = new(model, 1024, HUGETLBFS)
    assert model.allocate(file, 500, 20) == (0, 20)
    assert layout(model, file) == [(0, 512), (512, 512)]
    assert model.punch(file, 10, 600) == (0, 600)
    assert contents(model, file)[ZEROED] == list(range(10, 610))
    assert model.punch(file, 400, 624) == (0, 624)
    assert layout(model, file) == [(0, 512)]
    assert contents(model, file)[ZEROED] == list(range(10, 512))


# -- hugetlb: what is promised (all of L19, and all seen on a live 6.18 with eight pages) ---------------------------------
def test_mapping_promises_what_was_not_promised_yet(world: MakeWorld) -> None:
    """A file of six pages: mapped from 1 to 4, from 3 to 6, and as a whole, twice; a fault uses a promise up."""
    model = world(16)
    model.grow_pool(9, 8, False)
    file = new(model, 6 * 512, HUGETLBFS)
    assert pool(model) == (8, 8, 0)
    for first, pages, promised in ((512, 3 * 512, 3), (3 * 512, 3 * 512, 5), (0, 6 * 512, 6), (0, 6 * 512, 6)):
        assert model.reserve(file, first, pages) == (0, pages)
        assert pool(model) == (8, 8, promised)
    assert model.access(file, 1200, 1, HOST) == (0, 1)
    assert pool(model) == (8, 7, 5)
    assert model.observe()["promised"][file] == [0, 1, 2, 3, 4, 5]
    model.destroy(file)
    assert pool(model) == (8, 8, 0)


def test_mapping_promises_only_what_is_absent(world: MakeWorld) -> None:
    """fallocate first: its three pages are in the map already."""
    model = world(16)
    model.grow_pool(9, 8, False)
    file = new(model, 6 * 512, HUGETLBFS)
    assert model.allocate(file, 0, 3 * 512) == (0, 3 * 512)
    assert pool(model) == (8, 5, 0)
    assert model.reserve(file, 0, 5 * 512) == (0, 5 * 512)
    assert pool(model) == (8, 5, 2)
    assert model.allocate(file, 2 * 512, 4 * 512) == (0, 4 * 512)
    assert pool(model) == (8, 2, 0)


def test_punch_keeps_only_the_promises_of_absent_pages(world: MakeWorld) -> None:
    """A punched page is promised no more: its refault takes from what is left over, the fault of a promised page does not."""
    model = world(16)
    model.grow_pool(9, 8, False)
    file = new(model, 4 * 512, HUGETLBFS)
    model.reserve(file, 0, 4 * 512)
    model.allocate(file, 0, 2 * 512)
    assert pool(model) == (8, 6, 2)
    for first, pages, free in ((0, 512, 7), (2 * 512, 2 * 512, 7), (512, 3 * 512, 8), (2 * 512, 1, 8)):
        assert model.punch(file, first, pages) == (0, pages)
        assert pool(model) == (8, free, 2)
    assert model.observe()["promised"][file] == [2, 3]
    model.access(file, 0, 1, HOST)
    assert pool(model) == (8, 7, 2)
    model.access(file, 2 * 512, 1, HOST)
    assert pool(model) == (8, 6, 1)
    assert model.reserve(file, 0, 4 * 512) == (0, 4 * 512)
    assert pool(model) == (8, 6, 2)
    model.destroy(file)
    assert pool(model) == (8, 8, 0)


def test_two_files_compete_for_a_pool(world: MakeWorld) -> None:
    """A is promised six pages of eight, B two; what B was not promised it gets only when A has given a page back."""
    model = world(16)
    model.grow_pool(9, 8, False)
    a, b = new(model, 6 * 512, HUGETLBFS), new(model, 6 * 512, HUGETLBFS)
    assert model.reserve(a, 0, 6 * 512) == (0, 6 * 512)
    assert model.reserve(b, 0, 3 * 512) == (errno.ENOMEM, 0)
    assert model.observe()["promised"] == {a: [0, 1, 2, 3, 4, 5], b: []}
    assert model.reserve(b, 0, 2 * 512) == (0, 2 * 512)
    assert model.allocate(b, 0, 4 * 512) == (errno.ENOSPC, 2 * 512)
    assert pool(model) == (8, 6, 6)
    assert model.access(b, 2 * 512, 1, HOST) == (errno.ENOSPC, 0)
    assert model.allocate(a, 0, 6 * 512) == (0, 6 * 512)
    assert pool(model) == (8, 0, 0)
    model.punch(a, 0, 512)
    assert model.access(b, 2 * 512, 1, HOST) == (0, 1)
    assert model.access(a, 0, 1, HOST) == (errno.ENOSPC, 0)
    assert model.reserve(a, 0, 6 * 512) == (errno.ENOMEM, 0)
    model.punch(b, 2 * 512, 512)
    assert pool(model) == (8, 1, 0)
    assert model.access(a, 0, 1, HOST) == (0, 1)
    assert pool(model) == (8, 0, 0)


def test_mapping_is_all_or_nothing_and_fallocate_is_not(world: MakeWorld) -> None:
    """A has three pages, B is promised four, one is left."""
    model = world(16)
    model.grow_pool(9, 8, False)
    a, b = new(model, 8 * 512, HUGETLBFS), new(model, 8 * 512, HUGETLBFS)
    model.allocate(a, 0, 3 * 512)
    model.reserve(b, 0, 4 * 512)
    assert model.reserve(a, 0, 5 * 512) == (errno.ENOMEM, 0)
    assert pool(model) == (8, 5, 4)
    assert model.reserve(a, 0, 4 * 512) == (0, 4 * 512)
    assert pool(model) == (8, 5, 5)
    assert model.allocate(a, 0, 8 * 512) == (errno.ENOSPC, 4 * 512)
    assert pool(model) == (8, 4, 4)
    assert model.allocate(b, 0, 8 * 512) == (errno.ENOSPC, 4 * 512)
    assert pool(model) == (8, 0, 0)


def test_mapping_starts_at_a_huge_page_and_is_rounded_up(world: MakeWorld) -> None:
    model = world(8)
    model.grow_pool(9, 4, False)
    file = new(model, 4 * 512, HUGETLBFS)
    for first, pages, error in ((1, 512, errno.EINVAL), (4 * 512, 1, errno.EINVAL), (1 << 51, 1, errno.EOVERFLOW)):
        assert model.reserve(file, first, pages) == (error, 0)
    assert model.reserve(file, 512, 1) == (0, 1)
    assert model.observe()["promised"][file] == [1]
    assert model.reserve(file, 0, 513) == (0, 513)
    assert model.observe()["promised"][file] == [0, 1]
    assert pool(model) == (4, 4, 2)


def test_pinned_page_is_missing_from_the_pool_until_it_is_let_go(world: MakeWorld) -> None:
    """L18: a full punch of it raises Free only then; meanwhile the page is absent, and promised to nobody."""
    model = world(8)
    model.grow_pool(9, 4, False)
    file = new(model, 2 * 512, HUGETLBFS)
    model.reserve(file, 0, 2 * 512)
    assert model.pin(file, 0, 1) == (0, 1)
    assert pool(model) == (4, 3, 1)
    model.punch(file, 0, 512)
    assert pool(model) == (4, 3, 1)
    model.access(file, 0, 1, HOST)
    assert pool(model) == (4, 2, 1)
    model.punch(file, 0, 512)
    assert pool(model) == (4, 3, 1)
    model.unpin(file, 0, 1)
    assert pool(model) == (4, 4, 1)
    model.pin(file, 512, 1)
    model.destroy(file)
    assert pool(model) == (4, 4, 0)


def test_hugetlb_beside_a_guest_memfd(world: MakeWorld) -> None:
    """G70: what one was promised at its creation is not to be had by the other, and stays promised when it is punched."""
    model = world(8)
    model.grow_pool(9, 3, False)
    guest, file = new(model, 2 * 512, replace(HUGE_2M, hvo=False)), new(model, 3 * 512, HUGETLBFS)
    assert model.reserve(guest, 0, 512) == (errno.EOPNOTSUPP, 0)
    assert model.reserve(file, 0, 2 * 512) == (errno.ENOMEM, 0)
    assert model.allocate(file, 0, 3 * 512) == (errno.ENOSPC, 512)
    assert pool(model) == (3, 2, 2)
    model.allocate(guest, 0, 2 * 512)
    model.punch(guest, 0, 512)
    assert pool(model) == (3, 1, 1)
    assert model.allocate(file, 512, 512) == (errno.ENOSPC, 0)


def test_giga_page_of_hugetlb_memory_is_promised_as_one(world: MakeWorld) -> None:
    model = world(1100)
    model.grow_pool(18, 1, False)
    giga = replace(HUGETLBFS, sizes=(18,))
    file, other = new(model, GIGA, giga), new(model, GIGA, giga)
    assert model.reserve(file, 512, 512) == (errno.EINVAL, 0)
    assert model.reserve(file, 0, 1) == (0, 1)
    assert model.observe()["promised"] == {file: [0], other: []}
    assert model.allocate(other, 7, 1) == (errno.ENOSPC, 0)
    assert pool(model, 18) == (1, 1, 1)
    assert model.allocate(file, 7, 1) == (0, 1)
    assert pool(model, 18) == (1, 0, 0)
    model.punch(file, 0, GIGA)
    assert pool(model, 18) == (1, 1, 0)
    assert model.allocate(other, 7, 1) == (0, 1)


def test_object_api_promises() -> None:
    """By default all of the memory; with the kernel's errors."""
    host = Host("1G")
    host.grow_pool("2M", 4)
    with host.memory("8M", "hugetlbfs") as memory, host.memory("2M", "shmem-thp") as other:
        memory.reserve("2M", "2M")
        with pytest.raises(NotSupported):
            other.reserve()
        with pytest.raises(OperationError) as beyond:
            memory.reserve(1 << 62, 1 << 62)
        assert beyond.value.errno == errno.EOVERFLOW
        memory.reserve()
        assert host.state.pools[0].reserved == 4
        with host.memory("2M", "hugetlbfs") as late, pytest.raises(OutOfMemory, match="reserve 2097152 at 0"):
            late.reserve()
    assert host.state.pools[0].reserved == 0
    host.audit()


# -- pools, and guest_memfd from them ---------------------------------------------------------------------------------
def test_huge_guest_memfd_wants_whole_pages_and_reserves_them(world: MakeWorld) -> None:
    """G68, G69, G70."""
    model = world(8)
    model.grow_pool(9, 3, False)
    policy = replace(HUGE_2M, hvo=False)
    assert model.create(1023, policy) == (errno.EINVAL, 0)
    file = new(model, 1024, policy)
    assert model.create(1024, policy) == (errno.ENOMEM, 0)
    assert model.observe()["pools"][9][:3] == (3, 3, 2)
    assert model.allocate(file, 0, 1) == (errno.EINVAL, 0)
    assert model.allocate(file, 1, 512) == (errno.EINVAL, 0)
    assert model.allocate(file, 0, 1024) == (0, 1024)
    assert model.punch(file, 0, 1) == (errno.EINVAL, 0)
    assert model.punch(file, 4096, 1) == (errno.EINVAL, 0)
    assert model.punch(file, 512, 512) == (0, 512)
    assert model.observe()["pools"][9][:3] == (3, 2, 1)
    model.destroy(file)
    assert model.observe()["pools"][9][:3] == (3, 3, 0)


@pytest.mark.parametrize(("rule", "content"), [(PUNCH_ZERO, ZEROED), (PUNCH_KEEP, USED)])
def test_huge_guest_memfd_zeroes_any_range(world: MakeWorld, rule: int, content: int) -> None:
    """G66: frees nothing, also when the huge page is split."""
    model = world(8)
    model.grow_pool(9, 1, False)
    file = new(model, 512, replace(HUGE_2M, hvo=False, punch=rule))
    model.access(file, 0, 512, PRIVATE)
    model.convert(file, 0, 1, True)
    assert model.punch(file, 7, 2) == (0, 2)
    assert present(model, file) == 512
    assert contents(model, file)[content][:9] == ([7, 8] if content == ZEROED else list(range(9)))


def test_huge_page_is_born_split_where_a_page_is_shared(world: MakeWorld) -> None:
    """G71."""
    model = world(8)
    model.grow_pool(9, 2, False)
    file = new(model, 1024, replace(HUGE_2M, hvo=False))
    model.convert(file, 3, 1, True)
    assert model.access(file, 3, 1, SHARED) == (0, 1)
    model.allocate(file, 512, 512)
    assert layout(model, file) == [*((index, 1) for index in range(512)), (512, 512)]


def test_conversion_to_private_goes_huge_page_by_huge_page(world: MakeWorld) -> None:
    """G72: partial progress, merged as soon as a huge page is private."""
    model = world(8)
    model.grow_pool(9, 3, False)
    file = new(model, 1536, replace(HUGE_2M, hvo=False))
    model.allocate(file, 0, 1536)
    assert model.convert(file, 0, 1536, True) == (0, 1536)
    assert len(layout(model, file)) == 1536
    model.pin(file, 700, 1)
    assert model.convert(file, 0, 1536, False) == (errno.EAGAIN, 700)
    assert attributes(model, file) == set(range(512, 1536))
    assert layout(model, file)[:2] == [(0, 512), (512, 1)]
    assert [count(model, name) for name in ("split_convert", "healed_backing", "eagain")] == [3, 1, 1]


def test_merge_needs_the_rest_to_be_private(world: MakeWorld) -> None:
    """G72."""
    model = world(8)
    model.grow_pool(9, 1, False)
    file = new(model, 512, replace(HUGE_2M, hvo=False))
    model.allocate(file, 0, 512)
    model.convert(file, 10, 2, True)
    model.convert(file, 10, 1, False)
    assert len(layout(model, file)) == 512
    model.convert(file, 11, 1, False)
    assert layout(model, file) == [(0, 512)]


def test_split_huge_page_with_a_held_page_is_not_punched(world: MakeWorld) -> None:
    """G73: unmap, reference check, merge, truncate."""
    model = world(8)
    model.grow_pool(9, 2, False)
    file = new(model, 1024, replace(HUGE_2M, hvo=False))
    model.access(file, 0, 1024, PRIVATE)
    model.convert(file, 600, 1, True)
    model.pin(file, 600, 1)
    assert model.punch(file, 0, 1024) == (errno.EAGAIN, 512)
    assert present(model, file) == 512
    assert mapped(model, file) == (0, 511)
    model.unpin(file, 600, 1)
    assert model.punch(file, 0, 1024) == (0, 1024)
    assert model.observe()["pools"][9][:3] == (2, 2, 2)
    assert attributes(model, file) == {600}


def test_split_restores_page_structs_of_2m(world: MakeWorld) -> None:
    """G74, K5: seven frames per 2M page; a merge frees them again."""
    model = world(8)
    assert model.grow_pool(9, 1, True) == (0, 1)
    assert free_pages(model) == FREE_OF_8 - 512 + 7
    assert model.observe()["pools"][9][3] == [4096]
    file = new(model, 512, HUGE_2M)
    model.allocate(file, 0, 512)
    model.convert(file, 0, 1, True)
    assert free_pages(model) == FREE_OF_8 - 512
    model.convert(file, 0, 1, False)
    assert free_pages(model) == FREE_OF_8 - 512 + 7
    model.convert(file, 0, 1, True)
    model.destroy(file)
    assert free_pages(model) == FREE_OF_8 - 512 + 7


def test_split_without_memory_for_page_structs_is_rolled_back(world: MakeWorld) -> None:
    """G74: ENOMEM with three free pages; the folio stays whole, the three stay free."""
    model = world(8)
    model.grow_pool(9, 1, True)
    file = new(model, 512, HUGE_2M)
    model.allocate(file, 0, 512)
    rest = FREE_OF_8 - 512 + 7 - 3
    host = new(model, rest, Policy(kind=KIND_HOST))
    assert model.allocate(host, 0, rest) == (0, rest)
    assert model.convert(file, 5, 1, True) == (errno.ENOMEM, 0)
    assert (layout(model, file), attributes(model, file), free_pages(model)) == ([(0, 512)], set(), 3)
    model.destroy(host)
    assert model.convert(file, 5, 1, True) == (0, 1)


def test_giga_page_is_split_to_2m_first(world: MakeWorld) -> None:
    """Q6, Q7: 511 and 7 frames for one shared page; 4095 when split straight to 4K."""
    model = world(1100)
    before = free_pages(model)
    assert model.grow_pool(18, 2, True) == (errno.ENOMEM, 1)
    assert model.observe()["pools"][18][:4] == (1, 1, 0, [512 * 512])
    pooled = free_pages(model)
    assert pooled == before - GIGA + 4095
    file = new(model, GIGA, replace(HUGE_1G, split=SPLIT_2M_FIRST))
    model.access(file, 0, GIGA, PRIVATE)
    assert mapped(model, file) == (GIGA, 0)
    model.convert(file, 1000, 1, True)
    assert free_pages(model) == pooled - 511 - 7
    assert layout(model, file)[:2] == [(0, 512), (512, 1)]
    assert len(layout(model, file)) == 511 + 512
    assert mapped(model, file) == (GIGA - 512, 511)
    assert [count(model, name) for name in ("split_convert", "shattered_convert")] == [2, 1]
    model.convert(file, 1000, 1, False)
    assert (layout(model, file), free_pages(model)) == ([(0, GIGA)], pooled)


def test_giga_page_is_split_straight_to_4k(world: MakeWorld) -> None:
    """G65, G72, K5: the other 511 mappings of 2M stay; 16 MiB less one page go to page structs."""
    model = world(1100)
    model.grow_pool(18, 1, True)
    pooled = free_pages(model)
    file = new(model, GIGA, HUGE_1G)
    model.access(file, 0, GIGA, PRIVATE)
    model.convert(file, 1000, 1, True)
    assert free_pages(model) == pooled - 4095
    assert len(layout(model, file)) == GIGA
    assert mapped(model, file) == (GIGA - 512, 511)
    assert model.destroy(file) == (0, GIGA)
    assert free_pages(model) == pooled
