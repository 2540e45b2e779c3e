"""Known answers, worked out by hand: what reclaim has the deferred-split shrinker free (mm/shrinker.c, 6.18)."""

import errno
from dataclasses import replace

import pytest

from gmemlab.core.layout import (
    EFFORT_NONE,
    EFFORT_ONCE,
    EFFORT_RETRY,
    FRESH,
    GUEST_GENERIC,
    KIND_CACHE,
    SHARED,
    USED,
    ZONE_NORMAL,
)
from world import (
    ANON_THP,
    SHMEM_THP,
    SMALL,
    WORLDS,
    MakeWorld,
    Policy,
    World,
    contents,
    count,
    frames,
    free_pages,
    layout,
    new,
    present,
)
from world import world_fixture as world_fixture

FREE = 7 * 512  # pages of eight blocks, of which the page structs have one
LADDER = replace(ANON_THP, sizes=(9, 4, 1, 0))


def queue(model: World, node: int = 0) -> list[int]:
    """First frames of what is to be looked at, in that order."""
    return model.observe()["queues"][node][1]


def undone(model: World, node: int = 0) -> int:
    """What looks left of their share (`nr_deferred`)."""
    return model.observe()["queues"][node][0]


def written(model: World, folios: int, policy: Policy = ANON_THP) -> int:
    """A mapping of so many huge pages, all written."""
    file = new(model, 512 * folios, policy)
    assert model.access(file, 0, 512 * folios, SHARED) == (0, 512 * folios)
    return file


def filled(model: World) -> int:
    """Unmovable memory has all that is free."""
    file = new(model, FREE, SMALL)
    free = free_pages(model)
    assert model.allocate(file, 0, free) == (0, free)
    return file


def unwritten(model: World, kept: int) -> int:
    """A huge page that was never written, of which so many pages are mapped still; nothing else is free."""
    file = new(model, 512, ANON_THP)
    model.allocate(file, 0, 512)
    filled(model)
    model.punch(file, kept, 512 - kept)
    return file


def test_an_allocation_frees_what_is_not_mapped(world: MakeWorld) -> None:
    """100 pages of one folio; guest_memfd gets them, and fails when they are used up. What stays is base pages."""
    model = world(8)
    file = written(model, 1)
    filler = filled(model)
    model.punch(file, 0, 100)
    assert free_pages(model) == 0
    free = FREE - 512
    assert model.allocate(filler, free, 512) == (errno.ENOMEM, 100)
    assert layout(model, file) == [(index, 1) for index in range(100, 512)]
    assert (count(model, "deferred_split"), count(model, "deferred_freed"), count(model, "split_punch")) == (1, 100, 1)
    assert queue(model) == []


def test_folios_come_to_the_queue_when_they_are_mapped_and_go_with_their_last_page(world: MakeWorld) -> None:
    """A huge page as soon as it is faulted in, or a collapse made it; a smaller one when a part of it goes; once each."""
    model = world(8)
    file = new(model, 1536, LADDER)
    model.access(file, 0, 1024, SHARED)
    first, second = frames(model, file)[0], frames(model, file)[512]
    assert queue(model) == [first, second]
    model.punch(file, 5, 1)
    assert queue(model) == [first, second]
    model.punch(file, 0, 512)
    assert queue(model) == [second]
    model.punch(file, 512, 8)
    model.punch(file, 520, 504)  # two calls leave a table, so that what comes is small
    assert queue(model) == []
    model.access(file, 512, 32, SHARED)
    assert layout(model, file) == [(512, 16), (528, 16)]
    assert queue(model) == []
    model.punch(file, 530, 1)
    model.punch(file, 515, 3)
    low, high = frames(model, file)[0], frames(model, file)[13]
    assert queue(model) == [high, low]
    model.punch(file, 528, 16)
    assert queue(model) == [low]
    assert model.collapse(file, 512, 512) == (0, 512)
    assert queue(model) == [frames(model, file)[0]]
    assert model.observe()["queues"] == [(0, [frames(model, file)[0]])]


def test_a_folio_of_two_pages_has_no_room_for_the_links(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 512, replace(LADDER, sizes=(1, 0)))
    model.access(file, 0, 4, SHARED)
    model.punch(file, 1, 1)
    assert queue(model) == []
    assert (present(model, file), free_pages(model)) == (3, FREE - 4)


def test_a_small_folio_is_split_like_a_huge_one(world: MakeWorld) -> None:
    """Of 16 pages three are unmapped: the only ones that are free after that."""
    model = world(8)
    file = new(model, 512, replace(LADDER, sizes=(4, 0)))
    model.access(file, 0, 16, SHARED)
    filler = filled(model)
    model.punch(file, 5, 3)
    assert model.allocate(filler, FREE - 16, 16) == (errno.ENOMEM, 3)
    assert layout(model, file) == [(index, 1) for index in range(16) if index not in (5, 6, 7)]
    assert (count(model, "deferred_split"), count(model, "split_punch"), queue(model)) == (1, 0, [])


def test_how_much_is_looked_at(world: MakeWorld) -> None:
    """Four folios: at priority 2 a share of two, which is not looked at as the queue is longer, but remembered; at 1 four and
    one of those, which is all of it; at 0 twice as many. All are pinned. Then kswapd does the same down to priority 1.

    Looked at: 5 + 8, and 5; undone: 2, 2 + 4 - 5 = 1, 1 + 8 - 8 = 1; then 1 + 2 = 3, 3 + 4 - 5 = 2.
    """
    model = world(8)
    file = written(model, 4)
    for base in range(0, 2048, 512):
        model.pin(file, base, 1)
        model.punch(file, base + 1, 1)
    filler = filled(model)
    entries = queue(model)
    assert (len(entries), count(model, "slabs_scanned"), undone(model)) == (4, 0, 0)
    assert model.allocate(filler, FREE - 2048, 1) == (errno.ENOMEM, 0)
    assert (count(model, "slabs_scanned"), count(model, "split_failed"), undone(model)) == (18, 12, 2)
    assert queue(model) == entries[::-1]  # turned round three times


def test_a_batch_is_split_from_its_end(world: MakeWorld) -> None:
    """`list_move` takes it to the head of the list on which it is worked off: the pages of the first folio are freed last."""
    model = world(8)
    file = written(model, 2)
    filler = filled(model)
    model.punch(file, 0, 2)
    model.punch(file, 512, 2)
    first = queue(model)[0]
    assert model.allocate(filler, FREE - 1024, 1) == (0, 1)
    assert count(model, "deferred_split") == 2
    assert frames(model, filler)[-1] in (first, first + 1)


def test_huge_pages_of_zeros_are_looked_at_once(world: MakeWorld) -> None:
    """Of 512 pages 100 are written. With 511 none is split (L17), and none is on the queue any more."""
    model = world(8)
    file = new(model, 1024, ANON_THP)
    model.allocate(file, 0, 1024)
    for base in (0, 512):
        model.access(file, base, 100, SHARED)
    filler = filled(model)
    model.pin(file, 0, 1)
    assert model.allocate(filler, FREE - 1024, 1) == (errno.ENOMEM, 0)
    assert (queue(model), count(model, "split_failed")) == ([], 0)
    model.punch(file, 0, 1024)
    model.unpin(file, 0, 1)
    model.allocate(file, 0, 1024)
    for base in (0, 512):
        model.access(file, base, 100, SHARED)
    model.pin(file, 0, 1)
    model.khugepaged(0, max_ptes_none=411)
    assert model.allocate(filler, FREE - 1024, 412) == (0, 412)
    assert (count(model, "underused"), count(model, "split_failed")) == (1, 1)
    assert queue(model) == []
    assert layout(model, file) == [(0, 512), *((index, 1) for index in range(512, 612))]


def test_kswapd_frees_up_to_the_high_watermark(world: MakeWorld) -> None:
    """Two folios lack 300 pages each; below low (100) kswapd is woken, and looks at both at once, at priority 1."""
    model = world(8)
    file = written(model, 2)
    filler = new(model, FREE, SMALL)
    model.allocate(filler, 0, FREE - 1024 - 101)
    for base in (0, 512):
        model.punch(file, base, 300)
    model.set_watermarks(100, 300, False)
    assert model.allocate(filler, FREE - 1024 - 101, 1) == (0, 1)
    assert count(model, "deferred_split") == 0
    assert model.allocate(filler, FREE - 1024 - 100, 1) == (0, 1)
    assert (count(model, "deferred_split"), free_pages(model)) == (2, 99 + 600)


def hopeless(model: World) -> tuple[int, int, int]:
    """16 turns of kswapd in vain: 34 pages are free then. A mapping of two folios, the file that has the rest, and its end."""
    file = written(model, 2)
    filler = new(model, FREE, SMALL)
    free = FREE - 1024
    model.allocate(filler, 0, free - 51)
    model.set_watermarks(50, 90, False)
    assert model.allocate(filler, free - 51, 17) == (0, 17)  # the first leaves 50
    assert free_pages(model) == 34
    assert queue(model) == []  # all written, and looked at
    return file, filler, free - 34


def test_a_hopeless_node_is_left_to_allocations(world: MakeWorld) -> None:
    """MAX_RECLAIM_RETRIES: kswapd does not look at what is 40 pages short of two folios, but direct reclaim does."""
    model = world(8)
    file, filler, rest = hopeless(model)
    for base in (0, 512):
        model.punch(file, base, 40)
    assert model.allocate(filler, rest, 34) == (0, 34)
    assert (count(model, "deferred_split"), free_pages(model)) == (0, 0)
    assert model.allocate(filler, rest + 34, 1) == (0, 1)
    assert (count(model, "deferred_split"), free_pages(model)) == (2, 79)


def test_page_cache_gives_a_node_hope_again(world: MakeWorld) -> None:
    """kswapd drops a page of it as soon as it was read."""
    model = world(8)
    file, filler, rest = hopeless(model)
    cache = new(model, 8, Policy(KIND_CACHE, (0,), movable=True))
    model.allocate(cache, 0, 2)
    assert count(model, "pgsteal_kswapd") > 0
    model.destroy(cache)
    for base in (0, 512):
        model.punch(file, base, 40)
    assert model.allocate(filler, rest, 1) == (0, 1)
    assert count(model, "deferred_split") == 2


@pytest.mark.parametrize(("effort", "huge"), [(EFFORT_NONE, False), (EFFORT_ONCE, False), (EFFORT_RETRY, True)])
def test_a_huge_page_of_what_was_split(world: MakeWorld, effort: int, huge: bool) -> None:
    """The folio's only mapped page was never written, so that all of it is free then: 512 pages, too few for compaction.

    Direct reclaim counts that as no progress, and looks at the free lists only where it may try again.
    """
    model = world(8)
    file = unwritten(model, 1)
    guest = new(model, 512, replace(SHMEM_THP, effort=effort))
    assert model.access(guest, 0, 512, SHARED) == (0, 512)
    assert present(model, file) == 0
    assert {page[1] for page in model.observe()["files"][guest].values()} == ({9} if huge else {0})


def test_what_is_there_is_written_before_more_is_allocated(world: MakeWorld) -> None:
    """The first 100 pages of a folio are zeros when the guest comes to them, and not when it needs memory for the rest."""
    model = world(8)
    file = unwritten(model, 100)
    assert model.access(file, 0, 512, SHARED) == (0, 512)
    assert contents(model, file) == {USED: list(range(512))}
    assert count(model, "deferred_freed") == 412


def test_a_pin_faults_in_again_what_went_meanwhile(world: MakeWorld) -> None:
    """The first 100 pages are zeros still, and are freed with the rest; all 512 are there and held in the end."""
    model = world(8)
    file = unwritten(model, 100)
    assert model.pin(file, 0, 512) == (0, 512)
    assert contents(model, file) == {FRESH: list(range(512))}
    assert (count(model, "deferred_freed"), free_pages(model)) == (512, 0)
    model.unpin(file, 0, 512)
    model.punch(file, 0, 512)
    model.allocate(file, 0, 512)
    model.punch(file, 100, 412)
    filler = new(model, 512, SMALL)
    model.punch(file, 99, 1)
    model.allocate(filler, 0, 512)
    assert model.pin(file, 0, 512)[0] == errno.ENOMEM


@pytest.mark.parametrize("scan", [0, 1])
def test_zeros_of_shmem_are_freed_where_a_policy_says_so(world: MakeWorld, scan: int) -> None:
    """A punch that met a pin left 300 zeros (L14). No kernel frees them; with the switch (T4) they go once the pin is gone."""
    model = world(8)
    file = new(model, 512, replace(SHMEM_THP, zero_scan=scan))
    model.access(file, 0, 512, SHARED)
    model.pin(file, 0, 1)
    model.punch(file, 100, 300)
    assert len(queue(model)) == scan
    filler = filled(model)
    model.khugepaged(0, max_ptes_none=299)
    assert model.allocate(filler, FREE - 512, 1) == (errno.ENOMEM, 0)
    assert len(queue(model)) == scan
    model.unpin(file, 0, 1)
    assert model.allocate(filler, FREE - 512, 300) == ((0, 300) if scan else (errno.ENOMEM, 0))
    assert (present(model, file), count(model, "underused")) == ((212, 1) if scan else (512, 0))


def test_few_zeros_of_shmem_leave_the_queue_until_more_come(world: MakeWorld) -> None:
    model = world(8)
    file = new(model, 512, replace(SHMEM_THP, zero_scan=1))
    model.access(file, 0, 100, SHARED)
    model.punch(file, 7, 3)
    model.collapse(file, 0, 512)
    assert queue(model) == [frames(model, file)[0]]
    filler = filled(model)
    model.khugepaged(0, max_ptes_none=500)
    assert model.allocate(filler, FREE - 512, 1) == (errno.ENOMEM, 0)
    assert queue(model) == []
    model.pin(file, 0, 1)
    model.punch(file, 10, 1)
    assert queue(model) == [frames(model, file)[0]]
    model.unpin(file, 0, 1)
    model.punch(file, 20, 1)  # which splits it
    assert queue(model) == []


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_each_node_has_a_queue(name: str) -> None:
    """An allocation bound to a node looks at that of this node alone."""
    model = WORLDS[name]([(1, 5, ZONE_NORMAL, 0), (5, 9, ZONE_NORMAL, 0)], {1}, 8)
    model.set_nodes([[10, 20], [20, 10]], [0, 1])
    files = []
    for node in (0, 1):
        files.append(new(model, 512, ANON_THP))
        model.bind(files[-1], 1, 1 << node, node)
        model.access(files[-1], 0, 512, SHARED)
    filled(model)
    for file in files:
        model.punch(file, 0, 7)
    guest = new(model, 512, SMALL)
    model.bind(guest, 1, 2, 1)
    assert model.allocate(guest, 0, 8) == (errno.ENOMEM, 7)
    assert (queue(model, 0), queue(model, 1)) == ([frames(model, files[0])[0] - 7], [])
    model.check()


def test_a_guest_beside_gets_what_ordinary_memory_keeps(world: MakeWorld) -> None:
    """The shared side of a guest that converted everything: its private memory needs what the shared one has unmapped."""
    model = world(8)
    policy = Policy(conversion=1, shared_sizes=(9, 0))
    error, guest = model.create(1024, policy, None, GUEST_GENERIC)
    assert error == 0
    assert model.convert(guest, 0, 1024, True) == (0, 1024)
    assert model.access(guest, 0, 1024, SHARED) == (0, 1024)
    filled(model)
    side = model.shared_side(guest)
    model.punch(side, 1, 511)
    model.punch(side, 513, 511)
    assert model.convert(guest, 1, 510, False) == (0, 510)
    assert model.allocate(guest, 1, 510) == (0, 510)
    assert count(model, "deferred_freed") == 1022
