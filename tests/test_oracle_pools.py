"""Known answers, worked out by hand: pools of huge pages that are demoted (L20), grow, shrink and overcommit (L19)."""

import errno
from dataclasses import replace

from gmemlab.core.layout import PRIVATE
from world import FREE_OF_8, GIGA, HUGE_2M, HUGETLBFS, SMALL, MakeWorld, frames, free_pages, new, pool
from world import world_fixture as world_fixture


def test_demoted_giga_page_is_512_of_2m(world: MakeWorld) -> None:
    """L20: the lowest is used first; a page that is promised, or absent, is not demoted."""
    model = world(1100)
    model.grow_pool(18, 1, False)
    owner = new(model, GIGA, replace(HUGETLBFS, sizes=(18,)))
    assert model.reserve(owner, 0, 1) == (0, 1)
    assert model.demote(1) == (0, 0)
    model.destroy(owner)
    assert model.demote(5) == (0, 1)
    assert (pool(model, 18), pool(model)) == ((0, 0, 0), (512, 512, 0))
    file = new(model, 1024, HUGETLBFS)
    assert model.allocate(file, 0, 1024) == (0, 1024)
    assert frames(model, file) == list(range(512 * 512, 514 * 512))
    assert pool(model) == (512, 510, 0)
    model.punch(file, 0, 512)
    assert model.observe()["pools"][9][3][:2] == [512 * 512, 514 * 512]


def test_demotion_of_a_giga_page_with_hvo_takes_the_structs_of_all_pieces(world: MakeWorld) -> None:
    """K5, C26: 4095 frames are restored, then 7 of each 8 go back: 511 more stay than with the 1 GiB page."""
    model = world(1100)
    model.grow_pool(18, 1, True)
    pooled = free_pages(model)
    host = new(model, pooled, SMALL)
    assert model.allocate(host, 0, pooled - 4094) == (0, pooled - 4094)
    assert model.demote(1) == (errno.ENOMEM, 0)
    assert (free_pages(model), pool(model, 18), pool(model)) == (4094, (1, 1, 0), (0, 0, 0))
    model.punch(host, 0, 1)
    assert model.demote(1) == (0, 1)
    assert (free_pages(model), pool(model, 18), pool(model)) == (4095 - 511, (0, 0, 0), (512, 512, 0))
    file = new(model, 1024, HUGE_2M)
    model.access(file, 0, 1024, PRIVATE)
    assert model.convert(file, 600, 1, True) == (0, 1)
    assert free_pages(model) == 4095 - 511 - 7
    model.destroy(file)
    assert free_pages(model) == 4095 - 511


# -- pools that grow, shrink and overcommit (L19) ------------------------------------------------------------------------


def test_surplus_pages_are_freed_first(world: MakeWorld) -> None:
    """Whatever is given back while there is a surplus goes to free memory; the pool's own pages stay in use."""
    model = world(8)
    assert model.set_pool(9, 1, 2) == 0
    file = new(model, 2048, HUGETLBFS)
    assert model.allocate(file, 0, 2048) == (errno.ENOSPC, 1536)
    assert (pool(model), free_pages(model)) == ((3, 0, 0), FREE_OF_8 - 1536)
    model.punch(file, 0, 512)
    assert (pool(model), free_pages(model)) == ((2, 0, 0), FREE_OF_8 - 1024)
    model.punch(file, 512, 1024)
    assert (pool(model), free_pages(model)) == ((1, 1, 0), FREE_OF_8 - 512)


def test_surplus_is_promised_too_and_goes_with_the_promise(world: MakeWorld) -> None:
    model = world(8)
    assert model.set_pool(9, 1, 2) == 0
    file, other = new(model, 1536, HUGETLBFS), new(model, 512, HUGETLBFS)
    assert model.reserve(other, 0, 512) == (0, 512)
    assert model.reserve(file, 0, 1536) == (errno.ENOMEM, 0)
    assert (pool(model), free_pages(model)) == ((1, 1, 1), FREE_OF_8 - 512)
    assert model.reserve(file, 0, 1024) == (0, 1024)
    assert (pool(model), free_pages(model)) == ((3, 3, 3), FREE_OF_8 - 1536)
    model.destroy(file)
    assert (pool(model), free_pages(model)) == ((1, 1, 1), FREE_OF_8 - 512)


def test_pool_that_shrinks_below_what_is_in_use(world: MakeWorld) -> None:
    """The excess becomes surplus; a pool that grows again counts it as its own first."""
    model = world(8)
    assert model.set_pool(9, 4, 0) == 0
    file = new(model, 1024, HUGETLBFS)
    model.allocate(file, 0, 1024)
    assert model.reserve(new(model, 512, HUGETLBFS), 0, 512) == (0, 512)
    assert model.set_pool(9, 1, 0) == 0
    assert (pool(model), free_pages(model)) == ((3, 1, 1), FREE_OF_8 - 1536)
    assert model.set_pool(9, 2, 0) == 0
    model.punch(file, 0, 1024)
    assert (pool(model), free_pages(model)) == ((2, 2, 1), FREE_OF_8 - 1024)
    assert model.set_pool(9, 100, 0) == 0
    assert pool(model) == (7, 7, 1)
    assert model.set_pool(9, -1, 0) == errno.EINVAL


def test_giga_pages_have_no_surplus_beyond_their_pool(world: MakeWorld) -> None:
    """`nr_overcommit_hugepages_store`, `alloc_surplus_hugetlb_folio` of 6.18. What is in use and too many is surplus."""
    model = world(1100)
    assert model.set_pool(18, 0, 1) == errno.EINVAL
    file = new(model, GIGA, replace(HUGETLBFS, sizes=(18,)))
    assert model.allocate(file, 0, 1) == (errno.ENOSPC, 0)
    assert model.reserve(file, 0, 1) == (errno.ENOMEM, 0)
    assert model.set_pool(18, 1, 0) == 0
    assert model.allocate(file, 0, 1) == (0, 1)
    assert model.set_pool(18, 0, 0) == 0
    assert pool(model, 18) == (1, 0, 0)
    model.punch(file, 0, GIGA)
    assert pool(model, 18) == (0, 0, 0)


def test_pool_with_hvo_is_not_resized(world: MakeWorld) -> None:
    model = world(8)
    model.grow_pool(9, 1, True)
    assert model.set_pool(9, 0, 0) == errno.EOPNOTSUPP
