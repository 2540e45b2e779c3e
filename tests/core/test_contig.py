"""Real 1 GiB pages from runs that are emptied, in the compiled core alone: few steps, so that the interpreted pass takes them.

`test_oracle_contig.py` has the same against the oracle, on smaller pages.
"""

import errno

import pytest

from core_world import CoreWorld
from gmemlab.core.layout import BLOCK_PAGES, GIGA_BLOCKS, GIGA_ORDER, HOST, KIND_SHMEM
from gmemlab.model.observe import file_pages
from oracle_files import OraclePolicy
from world import ANON_THP, SHMEM_THP, new, synthetic

MOVABLE_4K = OraclePolicy(kind=KIND_SHMEM, movable=True)
UNMOVABLE_4K = OraclePolicy()
GIGA = 1 << GIGA_ORDER
BLOCKS = 3 * GIGA_BLOCKS - 1

pytestmark = pytest.mark.skipif(GIGA_ORDER != 18, reason="test_oracle_contig.py takes it")


def host_with(policy: OraclePolicy, pages: int, rest_of: OraclePolicy = MOVABLE_4K) -> tuple[CoreWorld, int, int]:
    """All memory is in use, in 4K, with a file at the start of the first run. Returns that file and the one behind it."""
    model = CoreWorld(*synthetic(BLOCKS))
    below = (GIGA_BLOCKS - 1 - len(synthetic(BLOCKS)[1])) * BLOCK_PAGES
    model.allocate(new(model, below, MOVABLE_4K), 0, below)
    file = new(model, pages, policy)
    assert model.allocate(file, 0, pages) == (0, pages)
    rest = int(model.state.zones.free.sum())
    behind = new(model, rest, rest_of)
    model.allocate(behind, 0, rest)
    return model, file, behind


def backing(model: CoreWorld, file: int) -> list[tuple[int, int]]:
    """Frame and order of each page that is present."""
    return [(page.pfn, page.order) for page in file_pages(model.state, model.files[file]) if page.pfn]


def empty_the_rest(model: CoreWorld, behind: int, own_blocks: int) -> None:
    """Free the run's other blocks, and in the next run as many single pages as two blocks have halves."""
    model.punch(behind, 0, (GIGA_BLOCKS - own_blocks) * BLOCK_PAGES)
    first = (GIGA_BLOCKS - own_blocks) * BLOCK_PAGES
    for page in range(first, first + 2 * BLOCK_PAGES, 2):
        model.punch(behind, page, 1)


@pytest.mark.parametrize("policy", [MOVABLE_4K, SHMEM_THP], ids=["4k", "thp"])
def test_a_block_moves_as_it_is_where_there_is_room(policy: OraclePolicy) -> None:
    model, file, behind = host_with(policy, BLOCK_PAGES)
    model.punch(behind, 0, (GIGA_BLOCKS + 2) * BLOCK_PAGES)  # the rest of the run, and three blocks of the next
    before = backing(model, file)
    assert before[0][0] == GIGA
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    after = backing(model, file)
    assert model.observe_pool(GIGA_ORDER)[3] == [GIGA]
    assert [order for _, order in after] == [order for _, order in before]
    assert all(frame >= 2 * GIGA for frame, _ in after)
    model.check()


@pytest.mark.parametrize(("policy", "left"), [(SHMEM_THP, BLOCK_PAGES), (ANON_THP, 0)], ids=["shmem", "anon"])
def test_a_huge_folio_moves_in_pieces_where_no_block_is_free(policy: OraclePolicy, left: int) -> None:
    """Zeros of anonymous memory are freed by the split (L17)."""
    model, file, behind = host_with(policy, BLOCK_PAGES)
    empty_the_rest(model, behind, 1)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    after = backing(model, file)
    assert len(after) == left
    assert all(frame >= 2 * GIGA and order == 0 for frame, order in after)
    model.check()


@pytest.mark.parametrize("cpus", [0, 1])
def test_zeros_that_a_split_frees_are_no_targets(cpus: int) -> None:
    """The lower half of an anonymous folio is zeros, freed by its split; the upper half goes elsewhere all the same."""
    model, file, behind = host_with(ANON_THP, BLOCK_PAGES)
    model.access(file, 256, 256, HOST)
    empty_the_rest(model, behind, 1)
    if cpus:
        model.set_cpus(1, 15, 4000, 4000)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    model.check()
    after = backing(model, file)
    assert len(after) == 256
    assert all(frame >= 2 * GIGA and order == 0 for frame, order in after)


def test_a_folio_between_the_sizes_is_split_too() -> None:
    """64K folios find single pages, but for the few places of their size that compaction makes."""
    model, file, behind = host_with(OraclePolicy(kind=KIND_SHMEM, sizes=(4, 0), movable=True), BLOCK_PAGES)
    empty_the_rest(model, behind, 1)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (0, 1)
    assert {order for _, order in backing(model, file)} == {0, 4}
    model.check()


def test_giga_run_is_given_back_but_for_what_could_not_be_moved() -> None:
    """A CPU takes the last frames for its list, and may not have them then: the run is given back."""
    model, file, behind = host_with(MOVABLE_4K, BLOCK_PAGES)
    empty_the_rest(model, behind, 1)
    model.set_cpus(1, 15, 60, 60)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    model.drain()
    assert int(model.state.zones.free.sum()) == GIGA
    assert len(backing(model, file)) == BLOCK_PAGES
    model.check()


@pytest.mark.parametrize("what", ["pin", "unmovable"])
def test_one_page_that_cannot_move_defeats_a_run(what: str) -> None:
    """K21. The memory behind it is unmovable, so that the next run is none, either."""
    model, file, behind = host_with(MOVABLE_4K if what == "pin" else UNMOVABLE_4K, BLOCK_PAGES, UNMOVABLE_4K)
    if what == "pin":
        model.pin(file, 7, 1)
    empty_the_rest(model, behind, 1)
    assert model.grow_pool(GIGA_ORDER, 1, False) == (errno.ENOMEM, 0)
    assert backing(model, file)[0][0] == GIGA
    model.check()
