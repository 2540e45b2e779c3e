"""Known answers, worked out by hand: pools of huge pages that are demoted (L20), grow, shrink and overcommit (L19)."""

import errno
from dataclasses import replace

from gmemlab.core.layout import PRIVATE
from world import FREE_OF_8, GIGA, HUGE_2M, HUGETLBFS, SMALL, MakeWorld, World, frames, free_pages, new, pool
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


def test_pages_that_are_promised_are_demoted_with_others(world: MakeWorld) -> None:
    """`demote_store`, seen on 6.18.44: of two pages, one promised, both go; then EBUSY, and the promise cannot be kept."""
    model = world(1600)
    model.grow_pool(18, 2, False)
    owner, other = (new(model, GIGA, replace(HUGETLBFS, sizes=(18,))) for _ in range(2))
    assert model.reserve(owner, 0, 1) == (0, 1)
    assert model.demote(2) == (0, 2)
    assert pool(model, 18) == (0, 0, 1)
    assert model.demote(1) == (errno.EBUSY, 0)
    assert model.allocate(owner, 0, GIGA) == (errno.ENOSPC, 0)
    assert model.reserve(other, 0, 1)[0] == errno.ENOMEM
    model.destroy(owner)
    assert model.demote(1) == (0, 0)


def test_of_pages_that_are_demoted_together_the_first_is_used_first(world: MakeWorld) -> None:
    """`demote_free_hugetlb_folios`: what comes last from the stack is the first to lie in the new one, under the others."""
    model = world(1600)
    model.grow_pool(18, 2, False)
    first, second = model.observe()["pools"][18][3]
    assert model.demote(2) == (0, 2)
    pieces = [page + 512 * step for page in (first, second) for step in range(512)]
    assert model.observe()["pools"][9][3] == pieces


def test_of_pages_that_are_demoted_together_the_last_is_restored_first(world: MakeWorld) -> None:
    """With 6000 free frames HVO can restore 4095, of one page: that is demoted, the other goes back, and ENOMEM is said."""
    model = world(1600)
    model.grow_pool(18, 2, True)
    first, second = model.observe()["pools"][18][3]
    host = new(model, free_pages(model), SMALL)
    assert model.allocate(host, 0, free_pages(model) - 6000)[0] == 0
    assert model.demote(2) == (errno.ENOMEM, 1)
    assert model.observe()["pools"][18][3] == [first]
    assert model.observe()["pools"][9][3] == [second + 512 * step for step in range(512)]
    assert free_pages(model) == 6000 - 511


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


def test_pool_is_a_stack(world: MakeWorld) -> None:
    """Of new pages the first is on top (`prep_and_add_allocated_folios`); then what was given back last."""
    model = world(8)
    model.grow_pool(9, 2, False)
    assert model.observe()["pools"][9][:4] == (2, 2, 0, [4096, 1024])
    file = new(model, 1024, HUGETLBFS)
    model.allocate(file, 0, 512)
    assert model.observe()["pools"][9][:4] == (2, 1, 0, [1024])
    model.allocate(file, 512, 512)
    model.punch(file, 0, 512)
    model.punch(file, 512, 512)
    assert model.observe()["pools"][9][:4] == (2, 2, 0, [1024, 4096])


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


# -- HVO: 7 of 8 frames of page structs come and go with each page (K5, C25) ------------------------------------------------


def surplus(model: World) -> int:
    """Surplus pages of 2 MiB."""
    return sum(more for _, more in model.observe()["pools"][9][4])


def filled(model: World, leave: int) -> int:
    """A file of the host that has all free memory but so many pages."""
    free = free_pages(model)
    host = new(model, free, SMALL)
    assert model.allocate(host, 0, free - leave) == (0, free - leave)
    return host


def test_pool_with_hvo_shrinks_and_grows_again(world: MakeWorld) -> None:
    model = world(8)
    model.grow_pool(9, 3, True)
    assert (pool(model), free_pages(model)) == ((3, 3, 0), FREE_OF_8 - 3 * 512 + 21)
    assert model.set_pool(9, 1, 0) == 0
    assert (pool(model), free_pages(model)) == ((1, 1, 0), FREE_OF_8 - 512 + 7)
    assert model.set_pool(9, 3, 0) == 0
    assert (pool(model), free_pages(model)) == ((3, 3, 0), FREE_OF_8 - 3 * 512 + 21)
    assert model.set_pool(9, 0, 0) == 0
    assert (pool(model), free_pages(model)) == ((0, 0, 0), FREE_OF_8)


def test_what_hvo_gives_back_is_not_for_the_same_growth(world: MakeWorld) -> None:
    """All pages are taken first (`set_max_huge_pages`): 76 of 7 frames each are a block more, for the next request."""
    model = world(80)  # the page structs have two
    assert model.set_pool(9, 1, 0) == 0
    model.set_pool(9, 0, 0)
    assert model.grow_pool(9, 100, True) == (errno.ENOMEM, 78)
    assert free_pages(model) == 78 * 7
    assert free_pages(model, 9) == 0


def test_pages_that_have_their_structs_pay_for_the_others(world: MakeWorld) -> None:
    """Ten frames are enough for one page, which then has enough for all (`bulk_vmemmap_restore_error`)."""
    model = world(8)
    model.grow_pool(9, 3, True)
    filled(model, 10)
    assert model.set_pool(9, 0, 0) == 0
    assert (pool(model), surplus(model), free_pages(model)) == ((0, 0, 0), 0, 10 + 3 * (512 - 7))


def test_page_whose_structs_cannot_be_restored_stays_as_surplus(world: MakeWorld) -> None:
    """And stays idle, until the pool takes it for its own again, and gives it back when memory is there."""
    model = world(8)
    model.grow_pool(9, 3, True)
    host = filled(model, 6)
    assert model.set_pool(9, 1, 0) == 0
    assert (pool(model), surplus(model), free_pages(model)) == ((3, 3, 0), 2, 6)
    model.punch(host, 0, 10)
    assert model.set_pool(9, 1, 0) == 0
    assert (pool(model), surplus(model)) == ((3, 3, 0), 2)
    file = new(model, 512, HUGETLBFS)
    assert model.reserve(file, 0, 512) == (0, 512)
    model.destroy(file)  # one more promise than before is not needed: as many surplus pages go
    assert (pool(model), surplus(model), free_pages(model)) == ((2, 2, 0), 1, 16 + 512 - 7)
    assert model.set_pool(9, 2, 0) == 0
    assert surplus(model) == 0
    assert model.set_pool(9, 0, 0) == 0
    assert (pool(model), free_pages(model)) == ((0, 0, 0), 16 + 3 * (512 - 7))


def test_surplus_pages_of_a_pool_with_hvo(world: MakeWorld) -> None:
    """They give back their page structs when they come, and take them when they go; where they cannot, they stay idle."""
    model = world(8)
    model.grow_pool(9, 1, True)
    assert model.set_pool(9, 1, 2) == 0
    file = new(model, 3 * 512, HUGETLBFS)
    assert model.allocate(file, 0, 3 * 512) == (0, 3 * 512)
    assert free_pages(model) == FREE_OF_8 - 3 * (512 - 7)
    model.punch(file, 0, 512)
    assert (pool(model), free_pages(model)) == ((2, 0, 0), FREE_OF_8 - 2 * (512 - 7))
    filled(model, 0)
    model.punch(file, 512, 512)
    assert (pool(model), surplus(model), free_pages(model)) == ((2, 1, 0), 1, 0)
    assert model.allocate(file, 512, 512) == (0, 512)
    assert (pool(model), surplus(model)) == ((2, 0, 0), 1)


def test_promise_that_fails_with_hvo_may_cost_a_block(world: MakeWorld) -> None:
    """K5: two pages were to be had, none for the third. The first one that goes back takes 7 of the 14 frames that HVO freed;
    the second one's are unmovable, and come from the largest free chunk: the block that was just freed.
    """
    model = world(8)
    model.grow_pool(9, 1, True)
    model.set_pool(9, 0, 3)
    host = new(model, 5 * 512, SMALL)
    assert model.allocate(host, 0, 5 * 512) == (0, 5 * 512)
    file = new(model, 3 * 512, HUGETLBFS)
    assert model.reserve(file, 0, 3 * 512) == (errno.ENOMEM, 0)
    assert (pool(model), free_pages(model), free_pages(model, 9)) == ((0, 0, 0), 2 * 512, 512)
    assert model.reserve(file, 0, 2 * 512) == (errno.ENOMEM, 0)
    assert model.reserve(file, 0, 512) == (0, 512)


def test_giga_pages_with_hvo_leave_after_a_demotion_and_come_again(world: MakeWorld) -> None:
    """C26: 4095 frames for one of 1 GiB; 512 demoted ones keep a frame each, and take 7."""
    model = world(1100)
    whole = free_pages(model)
    model.grow_pool(18, 1, True)
    assert free_pages(model) == whole - GIGA + 4095
    assert model.set_pool(18, 0, 0) == 0
    assert (pool(model, 18), free_pages(model)) == ((0, 0, 0), whole)
    assert model.set_pool(18, 1, 1) == errno.EINVAL
    assert model.set_pool(18, 1, 0) == 0
    assert model.demote(1) == (0, 1)
    assert free_pages(model) == whole - GIGA + 4095 - 511
    assert model.set_pool(9, 0, 0) == 0
    assert (pool(model), free_pages(model)) == ((0, 0, 0), whole)
    assert model.set_pool(18, 1, 0) == 0
    assert (pool(model, 18), free_pages(model)) == ((1, 1, 0), whole - GIGA + 4095)
    filled(model, 4094)
    assert model.set_pool(18, 0, 0) == 0
    assert (pool(model, 18), free_pages(model)) == ((1, 1, 0), 4094)
