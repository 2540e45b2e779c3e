"""Known answers, worked out by hand: khugepaged, kcompactd, and the scan for zeros in shmem (T1, T4, L15, L17)."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    CONVERT_IN_PLACE,
    EFFORT_ONCE,
    FRESH,
    HOST,
    KIND_SHMEM,
    PRIVATE,
    REPAIR_COLLAPSE,
    SHARED,
    USED,
    ZEROED,
)
from world import (
    ANON_THP,
    FREE_OF_8,
    SHMEM_THP,
    SMALL,
    THP,
    THP_IN_PLACE,
    MakeWorld,
    Policy,
    World,
    contents,
    count,
    free_pages,
    layout,
    mapped,
    new,
)
from world import world_fixture as world_fixture

SCANNED_SHMEM = replace(SHMEM_THP, repair=REPAIR_COLLAPSE)
SCANNED_ANON = replace(ANON_THP, repair=REPAIR_COLLAPSE)
BASE_PAGES = replace(SCANNED_SHMEM, sizes=(0,), fallocate_sizes=(0,))
MIGRATABLE = replace(THP_IN_PLACE, movable=True, merge=0, split=0, repair=REPAIR_COLLAPSE)
MOVED = Policy(kind=KIND_SHMEM, movable=True)
SLEEP = 10_000  # ms


def huge(model: World, file: int) -> list[int]:
    """First pages of the file's 2 MiB folios."""
    return [first for first, pages in layout(model, file) if pages == 512]


@pytest.mark.parametrize("holes", [0, 1, 60, 61, 511])
@pytest.mark.parametrize("most", [0, 60, 511])
def test_holes_are_filled_up_to_max_ptes_none(world: MakeWorld, holes: int, most: int) -> None:
    """Of 512 base pages of shmem, k are punched: they become one folio where k <= max_ptes_none, and are charged in full."""
    model = world(8)
    file = new(model, 512, BASE_PAGES)
    model.allocate(file, 0, 512)
    for page in range(holes):
        model.punch(file, page, 1)
    filled = holes <= most
    assert model.khugepaged(SLEEP, max_ptes_none=most) == (0, 512 * filled)
    assert free_pages(model) == FREE_OF_8 - 512 + holes * (not filled)
    assert [count(model, f"scan_{result}") for result in ("collapsed", "holes", "held")] == [filled, not filled, 0]
    assert count(model, "copied") == (512 - holes) * filled
    if filled:
        assert layout(model, file) == [(0, 512)]
        assert contents(model, file) == {
            content: pages for content, pages in ((ZEROED, [*range(holes)]), (USED, [*range(holes, 512)])) if pages
        }


def test_pages_to_scan_bounds_each_wake(world: MakeWorld) -> None:
    """Each 2 MiB of shmem counts 513, as its locks are dropped each time: 1,026 pages are two of them, ten seconds apart."""
    model = world(16)
    file = new(model, 5 * 512, BASE_PAGES)
    model.allocate(file, 0, 5 * 512)
    assert model.khugepaged(SLEEP - 1, 1026) == (0, 0)
    assert model.khugepaged(1, 1026) == (0, 1024)
    assert huge(model, file) == [0, 512]
    assert model.khugepaged(SLEEP, 1025) == (0, 1024)
    assert model.khugepaged(3 * SLEEP, 1026) == (0, 512)
    # The fifth, then the end and from the head; thrice round: each time the end of the file counts one.
    assert count(model, "scan_huge") == 1 + 2 + 2


def test_default_rate_is_eight_huge_pages_a_wake(world: MakeWorld) -> None:
    model = world(32)
    file = new(model, 12 * 512, BASE_PAGES)
    model.allocate(file, 0, 12 * 512)
    assert model.khugepaged(SLEEP) == (0, 8 * 512)
    assert model.khugepaged(SLEEP) == (0, 4 * 512)


def test_anonymous_memory_goes_on_under_one_lock(world: MakeWorld) -> None:
    """Only an attempt to collapse ends a call: three huge pages and a first attempt count 1 + 4 * 512."""
    model = world(16)
    file = new(model, 5 * 512, SCANNED_ANON)
    model.access(file, 0, 5 * 512, HOST)
    model.punch(file, 3 * 512, 7)
    model.punch(file, 4 * 512, 7)
    assert model.khugepaged(SLEEP, 4 * 512) == (0, 512)
    assert [count(model, f"scan_{result}") for result in ("huge", "collapsed", "absent")] == [3, 1, 0]
    assert huge(model, file) == [0, 512, 1024, 1536, 4 * 512 + 7]  # the last is still what it was


def test_what_comes_first_counts_for_anonymous_memory(world: MakeWorld) -> None:
    """Of shmem a held page counts before any number of holes."""
    model = world(8)
    for policy, results in ((SCANNED_ANON, (1, 0)), (SCANNED_SHMEM, (1, 1))):
        file = new(model, 512, policy)
        model.access(file, 0, 512, HOST)
        model.punch(file, 0, 5)
        model.pin(file, 300, 1)
        assert model.khugepaged(SLEEP, max_ptes_none=4) == (0, 0)
        assert (count(model, "scan_holes"), count(model, "scan_held")) == results
        model.destroy(file)


def test_pinned_pages_are_skipped(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 1024, BASE_PAGES)
    model.allocate(file, 0, 1024)
    model.pin(file, 7, 1)
    assert model.khugepaged(SLEEP) == (0, 512)
    assert huge(model, file) == [512]
    model.unpin(file, 7, 1)
    assert model.khugepaged(SLEEP) == (0, 512)


def test_no_huge_page_to_be_had(world: MakeWorld) -> None:
    """It sleeps a minute once in a scan, and tries the next one; a second failure ends the scan."""
    model = world(8)
    file = new(model, 3 * 512, replace(BASE_PAGES, movable=False))
    model.allocate(file, 0, 3 * 512)
    for first in (0, 512, 1024):
        model.punch(file, first, 100)
    rest = new(model, 4096, SMALL)
    pages = free_pages(model, 9)
    model.allocate(rest, 0, pages)
    assert model.khugepaged(SLEEP) == (0, 0)
    assert count(model, "scan_memory") == 1
    assert model.khugepaged(59_999) == (0, 0)
    assert count(model, "scan_memory") == 1
    assert model.khugepaged(1) == (0, 0)
    assert count(model, "scan_memory") == 2
    model.destroy(rest)
    assert model.khugepaged(SLEEP) == (0, 3 * 512)


def test_failure_that_ends_a_file_ends_no_scan(world: MakeWorld) -> None:
    """Where the next call finds the end of its file, nothing failed in it: the scan goes on with the next file."""
    model = world(8)
    files = [new(model, 512, replace(BASE_PAGES, movable=False)) for _ in range(2)]
    for file in files:
        model.allocate(file, 0, 512)
        model.punch(file, 0, 100)
    rest = new(model, 4096, SMALL)
    pages = free_pages(model, 9)
    model.allocate(rest, 0, pages)
    assert model.khugepaged(SLEEP) == (0, 0)
    model.punch(rest, 0, pages)
    assert model.khugepaged(60_000) == (0, 512)
    assert [len(huge(model, file)) for file in files] == [0, 1]


def test_it_compacts_for_its_huge_page(world: MakeWorld) -> None:
    """Whatever the effort of the policy."""
    model = world(8)
    other = new(model, 6 * 512, Policy(kind=KIND_SHMEM, movable=True))
    model.allocate(other, 0, 6 * 512)
    file = new(model, 512, BASE_PAGES)
    model.allocate(file, 0, 512)
    for page in range(0, 6 * 512, 2):
        model.punch(other, page, 1)
    assert free_pages(model, 9) == 0
    assert model.khugepaged(SLEEP) == (0, 512)
    assert count(model, "moved") > 0


def test_files_are_scanned_in_the_order_in_which_they_came(world: MakeWorld) -> None:
    """The cursor moves on when its file goes; what comes is scanned last; memory without the daemon never is."""
    model = world(16)
    quiet = new(model, 512, replace(BASE_PAGES, repair=0))
    files = [new(model, 1024, BASE_PAGES) for _ in range(3)]
    for file in (quiet, *files):
        model.allocate(file, 0, 512)
    assert model.khugepaged(SLEEP, 1) == (0, 512)
    model.destroy(files[0])
    files[0] = new(model, 512, BASE_PAGES)
    model.allocate(files[0], 0, 512)
    done = []
    for _ in range(7):  # a 2 MiB each, or the end of a file
        model.khugepaged(SLEEP, 1)
        done.append([files.index(file) for file in files if huge(model, file)])
    assert done == [[1], [1], [1], [1, 2], [1, 2], [1, 2], [0, 1, 2]]
    assert huge(model, quiet) == []
    for file in files:
        model.destroy(file)
    assert model.khugepaged(60 * SLEEP) == (0, 0)  # it has nothing to do, and its time starts with the next file
    file = new(model, 512, BASE_PAGES)
    model.allocate(file, 0, 512)
    assert model.khugepaged(SLEEP - 1) == (0, 0)
    assert model.khugepaged(1) == (0, 512)


def test_private_memory_is_copied_by_firmware(world: MakeWorld) -> None:
    """An upper bound (K16): the backing is whole again, the mapping stays at 4 KiB (K6); shared pages are in the way."""
    model = world(8)
    file = new(model, 512, MIGRATABLE)
    model.access(file, 0, 512, PRIVATE)
    assert mapped(model, file) == (512, 0)
    model.convert(file, 100, 4, True)
    assert model.khugepaged(SLEEP) == (0, 0)
    assert count(model, "scan_shared") == 1
    model.convert(file, 100, 4, False)
    model.punch(file, 200, 8)
    assert model.khugepaged(SLEEP) == (0, 512)
    assert count(model, "firmware_copies") == 504
    assert mapped(model, file) == (0, 500)
    assert contents(model, file) == {FRESH: [*range(200, 208)], USED: [*range(200), *range(208, 512)]}
    model.access(file, 0, 512, PRIVATE)
    assert mapped(model, file) == (0, 512)


def test_shared_side_is_scanned_with_its_guest(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 512, replace(THP, movable=True, repair=REPAIR_COLLAPSE))
    side = model.shared_side(file)
    model.convert(file, 0, 512, True)
    model.access(file, 0, 512, HOST)
    model.punch(side, 0, 100)
    assert model.khugepaged(SLEEP) == (0, 512)
    assert layout(model, side) == [(0, 512)]
    assert count(model, "firmware_copies") == 0


def perforated(model: World, blocks: int, policy: Policy) -> int:
    """A file of so many 2 MiB without its even pages."""
    file = new(model, 512 * blocks, policy)
    model.allocate(file, 0, 512 * blocks)
    for page in range(0, 512 * blocks, 2):
        model.punch(file, page, 1)
    return file


def test_proactive_compaction_between_its_watermarks(world: MakeWorld) -> None:
    """Six of seven free 2 MiB are holes: 100 % of free memory, times 8 of 8 blocks, is above 90; it goes on down to 80."""
    model = world(8)
    perforated(model, 7, MOVED)
    assert free_pages(model, 9) == 0
    assert model.kcompactd(499) == (0, 0)
    _, moved = model.kcompactd(1)
    assert 0 < moved < 7 * 256
    free, huge_pages = free_pages(model), free_pages(model, 9)
    assert (free - huge_pages) * 100 // free <= 80
    assert (free - huge_pages + 512) * 100 // free > 80
    assert count(model, "kcompactd") == 1
    assert model.kcompactd(60_000) == (0, 0)
    assert count(model, "kcompactd") == 1
    assert model.kcompactd(500, 100)[1] > 0  # to the last page
    assert free_pages(model) - free_pages(model, 9) == 256


def test_proactive_compaction_that_wins_nothing_waits(world: MakeWorld) -> None:
    """Of unmovable memory: once, and then once in 32 seconds; without proactiveness never. What can be moved needs one run."""
    model = world(8)
    file = perforated(model, 7, replace(MOVED, movable=False))
    assert model.kcompactd(500) == (0, 0)
    assert count(model, "kcompactd") == 1
    model.kcompactd(31_999)
    assert count(model, "kcompactd") == 1
    model.kcompactd(1)
    assert count(model, "kcompactd") == 2
    model.kcompactd(3 * 32_000)
    assert count(model, "kcompactd") == 5
    model.kcompactd(320_000, 0)
    assert count(model, "kcompactd") == 5
    model.destroy(file)
    perforated(model, 7, MOVED)
    assert model.kcompactd(320_000)[1] > 0
    assert count(model, "kcompactd") == 6


def test_failed_allocations_wake_kcompactd(world: MakeWorld) -> None:
    """Private memory's (GFP_HIGHUSER), not that of shmem (GFP_TRANSHUGE); one 2M page, and it is done until the next."""
    model = world(12)
    perforated(model, 11, MOVED)
    quiet = new(model, 512, replace(SHMEM_THP, effort=1, sizes=(9,), fallocate_sizes=(9,)))
    assert model.allocate(quiet, 0, 512) == (errno.ENOMEM, 0)  # an effort of `light` wakes it
    assert model.kcompactd(1, 0)[1] > 0
    assert count(model, "kcompactd") == 1
    assert free_pages(model, 9) == 512
    assert model.allocate(quiet, 0, 512) == (0, 512)
    silent = new(model, 512, replace(SHMEM_THP, effort=EFFORT_ONCE, sizes=(9,), fallocate_sizes=(9,)))
    assert model.access(silent, 0, 512, SHARED)[0] == 0  # it compacted by itself
    assert model.kcompactd(1, 0) == (0, 0)
    guest = new(model, 512, Policy(sizes=(9,), effort=EFFORT_ONCE, conversion=CONVERT_IN_PLACE))
    assert free_pages(model, 9) == 0
    assert model.allocate(guest, 0, 512) == (0, 512)  # it compacted by itself, and told kcompactd before
    assert model.kcompactd(1, 0)[1] > 0
    assert count(model, "kcompactd") == 2


def test_zeros_of_shmem_are_freed_where_it_is_set(world: MakeWorld) -> None:
    """T4: a punch that met a pin freed nothing, and unpinning frees nothing (L14); the scan does."""
    model = world(8)
    file = new(model, 1024, replace(SHMEM_THP, zero_scan=1))
    model.access(file, 0, 1024, HOST)
    model.pin(file, 500, 1)
    model.punch(file, 0, 100)
    model.punch(file, 512, 3)
    assert free_pages(model) == FREE_OF_8 - 1024 + 3
    assert model.split_deferred(file, 60) == (0, 1024)
    assert (count(model, "split_failed"), free_pages(model)) == (2, FREE_OF_8 - 1024 + 3)
    model.unpin(file, 500, 1)
    assert model.split_deferred(file, 511) == (0, 1024)  # as for anonymous memory (L17)
    assert model.split_deferred(file, 100) == (0, 1024)
    assert free_pages(model) == FREE_OF_8 - 1024 + 3
    assert model.split_deferred(file, 99) == (0, 1024)
    assert free_pages(model) == FREE_OF_8 - 1024 + 103
    assert layout(model, file)[:412] == [(index, 1) for index in range(100, 512)]
    assert (count(model, "underused"), count(model, "split_punch")) == (1, 2)
    assert model.split_deferred(new(model, 512, SHMEM_THP), 99) == (errno.EOPNOTSUPP, 0)


def test_scan_for_zeros_undoes_what_a_collapse_filled(world: MakeWorld) -> None:
    """Not what was allocated and never used: somebody asked for that."""
    model = world(8)
    file = new(model, 512, replace(SCANNED_SHMEM, zero_scan=1))
    model.allocate(file, 0, 512)
    model.punch(file, 100, 200)
    assert model.khugepaged(SLEEP) == (0, 512)
    assert free_pages(model) == FREE_OF_8 - 512
    model.split_deferred(file, 0)
    assert free_pages(model) == FREE_OF_8 - 312
    assert sorted(contents(model, file)) == [USED]
    assert model.khugepaged(SLEEP, max_ptes_none=199) == (0, 0)
