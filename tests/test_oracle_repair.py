"""Known answers, worked out by hand: collapse (L15), and anonymous folios that are mapped in part (L16)."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import EFFORT_LIGHT, EFFORT_NONE, EFFORT_ONCE, EFFORT_RETRY
from oracle_files import OraclePolicy
from world import ANON_THP, FREE_OF_8, SHMEM_THP, SMALL, MakeWorld, Policy, World, count, free_pages, layout, new
from world import world_fixture as world_fixture


def punched_anon(model: World) -> int:
    """A mapping of one 2 MiB folio without its first 100 pages; nothing of it is free yet."""
    file = new(model, 512, ANON_THP)
    model.access(file, 0, 512, 1)
    assert model.punch(file, 0, 100) == (0, 100)
    assert free_pages(model) == FREE_OF_8 - 512
    return file


def test_collapse_refills_holes(world: MakeWorld) -> None:
    """Charge is back to 512, in one folio; what was there stays, holes read zero."""
    model = world(8)
    file = new(model, 512, SHMEM_THP)
    model.allocate(file, 0, 512)
    model.punch(file, 100, 3)
    assert len(layout(model, file)) == 8
    assert model.collapse(file, 0, 512) == (0, 512)
    assert layout(model, file) == [(0, 512)]
    assert free_pages(model) == FREE_OF_8 - 512
    assert model.collapse(file, 0, 512) == (0, 512)  # it is whole already


def test_what_cannot_be_collapsed(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 1100, SHMEM_THP)
    assert model.collapse(file, 0, 512) == (errno.EINVAL, 0)  # empty
    assert model.collapse(file, 1, 600) == (errno.EINVAL, 0)  # no aligned 2 MiB in it
    assert model.collapse(file, 1024, 512) == (errno.EINVAL, 0)  # beyond the end
    model.access(file, 5, 1, 1)
    assert model.punch(file, 0, 5) == (0, 5)
    assert model.pin(file, 5, 1) == (0, 1)
    assert model.collapse(file, 0, 1024) == (errno.EINVAL, 0)  # the last error counts
    assert model.collapse(file, 0, 512) == (errno.EAGAIN, 0)
    assert model.unpin(file, 5, 1) == (0, 1)
    assert model.collapse(file, 0, 1024) == (errno.EINVAL, 512)
    private = new(model, 512, SMALL)
    assert model.collapse(private, 0, 512) == (errno.EINVAL, 0)  # L7


def test_collapse_needs_a_huge_page(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 512, OraclePolicy(kind=SHMEM_THP.kind, movable=True))
    model.access(file, 0, 400, 1)
    rest = new(model, 4096, SMALL)
    free = free_pages(model, 9) // 512 * 512
    assert model.allocate(rest, 0, free) == (0, free)
    assert model.collapse(file, 0, 512) == (errno.ENOMEM, 0)
    assert len(layout(model, file)) == 400


@pytest.mark.parametrize("effort", [EFFORT_NONE, EFFORT_LIGHT, EFFORT_ONCE, EFFORT_RETRY])
def test_collapse_compacts_whatever_faults_do(world: MakeWorld, effort: int) -> None:
    """`alloc_charge_folio` takes GFP_TRANSHUGE for MADV_COLLAPSE, which `defrag` does not change."""
    model = world(8)
    file = new(model, 512, replace(SHMEM_THP, effort=effort, fallocate_sizes=(0,)))
    model.allocate(file, 0, 512)
    rest = new(model, 3072, Policy(kind=SHMEM_THP.kind, movable=True))
    model.allocate(rest, 0, 3072)
    for page in range(0, 3072, 2):
        model.punch(rest, page, 1)
    assert free_pages(model, 9) == 0
    assert model.collapse(file, 0, 512) == (0, 512)
    assert layout(model, file) == [(0, 512)]


def test_shrinker_frees_what_is_not_mapped(world: MakeWorld) -> None:
    """The rest of the folio is base pages then."""
    model = world(8)
    file = punched_anon(model)
    assert model.split_deferred(file) == (0, 512)
    assert free_pages(model) == FREE_OF_8 - 412
    assert layout(model, file) == [(index, 1) for index in range(100, 512)]
    assert count(model, "split_punch") == 1
    assert model.split_deferred(file) == (0, 512)
    assert count(model, "split_punch") == 1
    assert model.split_deferred(new(model, 512, SHMEM_THP)) == (errno.EOPNOTSUPP, 0)


def test_block_given_back_piece_by_piece_gets_no_huge_page(world: MakeWorld) -> None:
    """Its table of 4 KiB entries stays, until one call gives back all of it. Seen on Linux 6.18.44."""
    model = world(8)
    file = new(model, 1024, ANON_THP)
    model.access(file, 0, 1024, 1)
    for first in (0, 256):
        assert model.punch(file, first, 256) == (0, 256)
    model.access(file, 5, 1, 1)
    assert layout(model, file) == [(5, 1), (512, 512)]
    model.punch(file, 5, 1)
    assert model.collapse(file, 0, 512) == (0, 512)  # an empty table is enough, where nothing at all is EINVAL
    assert layout(model, file) == [(0, 512), (512, 512)]
    model.punch(file, 0, 300)
    model.punch(file, 300, 212)
    model.punch(file, 0, 1024)
    model.access(file, 5, 1, 1)
    assert layout(model, file) == [(0, 512)]


def test_pinned_folio_stays(world: MakeWorld) -> None:
    model = world(8)
    file = punched_anon(model)
    model.pin(file, 300, 1)
    assert model.split_deferred(file) == (0, 512)
    assert (free_pages(model), count(model, "split_failed")) == (FREE_OF_8 - 512, 1)
    model.unpin(file, 300, 1)
    model.split_deferred(file)
    assert free_pages(model) == FREE_OF_8 - 412


def test_what_lies_in_the_hole_of_a_pinned_folio_is_split(world: MakeWorld) -> None:
    """A folio of 64K came where the huge page was given back, and lost a part itself."""
    model = world(8)
    file = new(model, 512, replace(ANON_THP, sizes=(9, 4, 0)))
    model.access(file, 0, 512, 1)
    model.pin(file, 500, 1)
    model.punch(file, 100, 100)
    model.access(file, 112, 16, 1)
    model.punch(file, 113, 3)
    assert free_pages(model) == FREE_OF_8 - 512 - 16
    assert model.split_deferred(file) == (0, 512)
    assert (free_pages(model), count(model, "split_failed")) == (FREE_OF_8 - 512 - 13, 1)
    assert model.free_lazily(file, 0, 511) == (0, 511)
    assert count(model, "split_failed") == 2


def test_lazy_free_splits_what_it_covers_in_part(world: MakeWorld) -> None:
    """Nothing is freed that is mapped; a folio that it covers as a whole stays one."""
    model = world(8)
    file = new(model, 1024, ANON_THP)
    model.access(file, 0, 1024, 1)
    assert model.free_lazily(file, 0, 512) == (0, 512)
    assert layout(model, file) == [(0, 512), (512, 512)]
    assert model.free_lazily(file, 512, 7) == (0, 7)
    assert layout(model, file) == [(0, 512), *((index, 1) for index in range(512, 1024))]
    assert free_pages(model) == FREE_OF_8 - 1024
    assert model.free_lazily(file, 1000, 100) == (errno.EINVAL, 0)
    assert model.free_lazily(new(model, 512, SHMEM_THP), 0, 512) == (errno.EINVAL, 0)


def test_huge_page_of_zeros_is_split_once(world: MakeWorld) -> None:
    """Pages that were never written are freed; 511 never splits; the shrinker looks once, and a pinned folio stays (L17)."""
    model = world(8)
    file = new(model, 2048, ANON_THP)
    model.allocate(file, 0, 2048)
    for first, pages in ((0, 100), (512, 412), (1024, 100), (1536, 100)):
        model.access(file, first, pages, 1)
    model.pin(file, 1030, 1)
    assert model.split_deferred(file, 412) == (0, 2048)
    assert layout(model, file) == [(0, 512), (512, 512), (1024, 512), (1536, 512)]
    assert model.split_deferred(file, 0) == (0, 2048)  # all were looked at
    assert (count(model, "underused"), count(model, "split_failed")) == (0, 0)
    model.punch(file, 0, 2048)  # but for the pinned one, which is an orphan
    model.unpin(file, 1030, 1)
    model.allocate(file, 0, 2048)
    for first, pages in ((0, 100), (512, 412), (1024, 100), (1536, 100)):
        model.access(file, first, pages, 1)
    model.pin(file, 1030, 1)
    assert model.split_deferred(file, 411) == (0, 2048)
    assert (count(model, "underused"), count(model, "split_failed"), count(model, "split_punch")) == (2, 1, 2)
    assert free_pages(model) == FREE_OF_8 - 100 - 512 - 512 - 100
    assert layout(model, file) == [
        *((index, 1) for index in range(100)), (512, 512), (1024, 512), *((index, 1) for index in range(1536, 1636))
    ]  # fmt: skip
    model.access(file, 200, 1, 1)  # a table of 4 KiB entries is there: a base page
    assert layout(model, file)[100] == (200, 1)
    assert model.split_deferred(file, 512) == (errno.EINVAL, 0)


def test_zeros_of_a_folio_that_is_split_anyway_are_freed(world: MakeWorld) -> None:
    """By the shrinker as by MADV_FREE: `try_to_map_unused_to_zeropage` looks at every page of it."""
    model = world(8)
    file = new(model, 1024, ANON_THP)
    model.allocate(file, 0, 1024)
    for first in (0, 512):
        model.access(file, first + 50, 7, 1)
    model.punch(file, 0, 1)
    model.split_deferred(file, 511)
    assert layout(model, file) == [*((index, 1) for index in range(50, 57)), (512, 512)]
    model.free_lazily(file, 512, 1)
    assert layout(model, file) == [(index, 1) for first in (50, 562) for index in range(first, first + 7)]
    assert free_pages(model) == FREE_OF_8 - 14


def test_collapse_keeps_what_is_zero(world: MakeWorld) -> None:
    """Holes of anonymous memory become zeros of a folio that the shrinker has not seen."""
    model = world(8)
    file = new(model, 512, ANON_THP)
    model.access(file, 0, 512, 1)
    model.punch(file, 0, 300)
    assert model.collapse(file, 0, 512) == (0, 512)
    assert layout(model, file) == [(0, 512)]
    model.split_deferred(file, 299)
    assert layout(model, file) == [(index, 1) for index in range(300, 512)]
