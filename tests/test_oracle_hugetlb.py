"""Known answers, worked out by hand from the rows that each test names: pools of huge pages."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    KIND_HOST,
    PRIVATE,
    PUNCH_KEEP,
    PUNCH_ZERO,
    SHARED,
    SPLIT_2M_FIRST,
    USED,
    ZEROED,
)
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
    present,
)
from world import world_fixture as world_fixture


# -- hugetlb ----------------------------------------------------------------------------------------------------------
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


def test_hugetlbfs_pool_accounting(world: MakeWorld) -> None:
    """L19: free and reserved are consumed; a punch raises free, not reserved; L18: a pinned page waits."""
    model = world(8)
    assert model.grow_pool(9, 2, False) == (0, 2)
    file = new(model, 1024, HUGETLBFS)
    assert model.observe()["pools"][9][:3] == (2, 2, 2)
    assert model.create(512, HUGETLBFS) == (errno.ENOMEM, 0)
    model.allocate(file, 0, 1024)
    assert model.observe()["pools"][9][:3] == (2, 0, 0)
    model.pin(file, 0, 1)
    model.punch(file, 0, 512)
    assert model.observe()["pools"][9][:3] == (2, 0, 0)
    model.unpin(file, 0, 1)
    assert model.observe()["pools"][9][:3] == (2, 1, 0)
    other = new(model, 512, HUGETLBFS)
    assert model.allocate(file, 0, 1024) == (errno.ENOSPC, 0)
    model.destroy(other)
    assert model.allocate(file, 0, 1024) == (0, 1024)


def test_pool_is_a_stack(world: MakeWorld) -> None:
    model = world(8)
    model.grow_pool(9, 2, False)
    assert model.observe()["pools"][9] == (2, 2, 0, [1024, 4096])
    file = new(model, 512, HUGETLBFS)
    model.allocate(file, 0, 512)
    assert model.observe()["pools"][9] == (2, 1, 0, [4096])


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
    assert model.observe()["pools"][18] == (1, 1, 0, [512 * 512])
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
