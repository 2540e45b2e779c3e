"""The audit can fail: each rule is broken by hand in a sound state, and the audit names it."""

from dataclasses import replace

import pytest

from breakers import (
    QUEUE_BREAKERS,
    STRUCT_BREAKERS,
    Breaker,
    block_of_kind,
    file_row,
    queued,
    set_field,
    slot_of_kind,
    with_structs,
)
from core_world import CoreWorld
from gmemlab.core import layout, page_details
from gmemlab.core.audit import RULES, audit
from gmemlab.core.layout import (
    BLOCK_PAGES,
    CMA,
    KIND_ANON,
    KIND_CACHE,
    KIND_SHMEM,
    NR_ORDERS,
    PRIVATE,
    PUNCH_DEFER,
    REPAIR_COLLAPSE,
    ZONE_DMA32,
)
from gmemlab.core.state import MAX_FILES
from oracle_files import OraclePolicy
from world import HUGE_2M, HUGETLBFS, SHMEM_THP, SMALL_IN_PLACE, THP, synthetic


@pytest.fixture
def sound(built: CoreWorld) -> CoreWorld:
    """A copy to break."""
    return built.copy()


@pytest.fixture(scope="module", name="built")
def built_fixture() -> CoreWorld:
    """A host with a split file, a whole one, a uniform one, a pool, a pin, an orphan of each size, deferred pages."""
    world = CoreWorld(*synthetic(40))
    world.grow_pool(9, 3, True)
    world.create(1300, SMALL_IN_PLACE)  # file 1: a uniform block, a split one, an end within a block
    world.allocate(1, 0, 1000)
    world.punch(1, 600, 1)
    world.convert(1, 700, 9, True)
    world.access(1, 0, 90, PRIVATE)
    world.pin(1, 700, 2)
    world.create(1024, THP)  # file 2 (and its shared side): whole blocks
    world.access(2, 0, 1024, PRIVATE)
    world.create(512, HUGE_2M)
    world.access(3, 0, 512, PRIVATE)
    world.create(512, OraclePolicy(kind=KIND_SHMEM, sizes=(9, 0), movable=True))
    world.allocate(4, 0, 512)
    world.pin(4, 0, 1)
    world.punch(4, 0, 512)  # an orphaned 2 MiB
    world.pin(1, 701, 1)
    world.punch(1, 701, 1)  # an orphaned page
    world.create(512, OraclePolicy(kind=KIND_ANON, sizes=(4, 0), movable=True, punch=PUNCH_DEFER))
    world.allocate(5, 0, 64)
    world.punch(5, 3, 2)
    world.create(1536, HUGETLBFS)  # file 6: one huge page there, another promised, the third neither
    world.reserve(6, 0, 1024)
    world.allocate(6, 0, 1)
    for pages in (512, 512, 512):  # files 7 to 9, for the daemons
        world.create(pages, replace(SHMEM_THP, repair=REPAIR_COLLAPSE))
    world.check()
    return world


def free_row(world: CoreWorld) -> int:
    """A free list of small chunks that is not empty."""
    counts = world.state.free_lists["count"].tolist()
    return next(row for row, count in enumerate(counts) if count and row % layout.NR_ORDERS < 9)


def page_slot(world: CoreWorld, index: int) -> int:
    """Row of the details of a page of file 1."""
    return int(world.state.file_blocks[file_row(world, 1, index // 512)].detail) * BLOCK_PAGES + index % 512


def _tally(world: CoreWorld) -> None:
    world.state.tally[layout.TALLY_PRESENT] += 1


def _overpromise(world: CoreWorld) -> None:
    """Promise the third page of file 6 too, consistently, where only one page is idle."""
    world.state.file_blocks[file_row(world, 6, 2)].marks = layout.PROMISED
    world.state.files[world.files[6]].reserved += 1
    world.state.pools[0].reserved += 1


def _circle(world: CoreWorld) -> None:
    """Close khugepaged's list to a circle."""
    first, last = world.files[7], world.files[9]
    world.state.files[last].scan_next = first
    world.state.files[first].scan_prev = last


def _lonely_chunk(world: CoreWorld) -> None:
    """Take a chunk off its list's count and links, but leave it free."""
    row = free_row(world)
    free_list = world.state.free_lists[row]
    head = int(free_list.head)
    after = int(world.state.frames[head].next)
    free_list.head = after
    free_list.count -= 1
    if after:
        world.state.frames[after].prev = 0
    else:
        free_list.tail = 0
    world.state.zones[0].free -= 1 << row % layout.NR_ORDERS


def _head(world: CoreWorld) -> int:
    return int(world.state.free_lists[free_row(world)].head)


def put_mark(index: int, mark: int) -> Breaker:
    """What gives a page of file 1 with details a mark."""

    def breaker(world: CoreWorld) -> None:
        world.state.pages[page_slot(world, index)] |= mark

    return breaker


BREAKERS: list[tuple[int, Breaker]] = [
    (1, set_field("free_lists", free_row, "count", lambda n: n + 1)),
    (1, set_field("free_lists", free_row, "tail", lambda n: n + 1)),
    (2, set_field("frames", _head, "order", lambda n: n + 1)),
    (2, set_field("frames", _head, "prev", lambda n: n + 5)),
    (2, set_field("blocks", lambda w: block_of_kind(w, layout.FREE), "migratetype", lambda n: (n + 1) % 3)),
    (2, set_field("blocks", lambda w: block_of_kind(w, layout.FREE), "prev", lambda n: n + 3)),
    (3, set_field("zones", lambda w: 0, "free", lambda n: n + 1)),
    (6, _lonely_chunk),
    (7, set_field("blocks", lambda w: block_of_kind(w, layout.SPLIT), "nr_movable", lambda n: n + 1)),
    (8, set_field("frames", lambda w: slot_of_kind(w, layout.FRAME_ORPHAN), "kind", lambda n: layout.FRAME_TAIL)),
    (9, set_field("frames", lambda w: slot_of_kind(w, layout.FRAME_USED), "index", lambda n: n + 1)),
    (10, set_field("frames", lambda w: slot_of_kind(w, layout.FRAME_USED), "busy", lambda n: -1)),
    (11, set_field("blocks", lambda w: block_of_kind(w, layout.WHOLE), "index", lambda n: n + 1)),
    (10, set_field("blocks", lambda w: block_of_kind(w, layout.WHOLE), "busy", lambda n: -1)),
    (12, set_field("pools", lambda w: 0, "free", lambda n: n + 1)),
    (12, set_field("blocks", lambda w: block_of_kind(w, layout.POOL), "kind", lambda n: layout.RESERVED)),
    (13, set_field("blocks", lambda w: block_of_kind(w, layout.WHOLE), "busy", lambda n: n + 1)),
    (14, set_field("frames", lambda w: slot_of_kind(w, layout.FRAME_ORPHAN), "busy", lambda n: 0)),
    (14, set_field("blocks", lambda w: block_of_kind(w, layout.ORPHAN), "busy", lambda n: 0)),
    (15, set_field("pools", lambda w: 0, "reserved", lambda n: n + 1)),
    (15, set_field("files", lambda w: w.files[6], "reserved", lambda n: n + 1)),
    (15, set_field("file_blocks", lambda w: file_row(w, 6), "marks", lambda n: 0)),
    (15, set_field("file_blocks", lambda w: file_row(w, 6, 1), "marks", lambda n: 0)),
    (15, set_field("file_blocks", lambda w: file_row(w, 6, 2), "marks", lambda n: layout.PROMISED)),
    (15, _overpromise),
    (20, set_field("file_blocks", lambda w: file_row(w, 1, 1), "nr_present", lambda n: n + 1)),
    (20, set_field("file_blocks", lambda w: file_row(w, 1, 1), "nr_stranded", lambda n: n + 1)),
    (20, set_field("file_blocks", lambda w: file_row(w, 1, 1), "content", lambda n: layout.USED)),
    (20, set_field("file_blocks", lambda w: file_row(w, 2), "nr_stranded", lambda n: n + 1)),
    (20, set_field("file_blocks", lambda w: file_row(w, 2), "nr_shared", lambda n: n + 1)),
    (20, put_mark(701, layout.USED)),  # a page that is absent
    (22, put_mark(702, page_details.MAPPED)),
    (22, set_field("file_blocks", lambda w: file_row(w, 2), "nr_mapped", lambda n: 7)),
    (23, set_field("file_blocks", lambda w: file_row(w, 1, 1), "marks", lambda n: n | layout.HUGE_MAPPED)),
    (24, _tally),
    (28, set_field("nodes", lambda w: 0, "max_order", lambda n: NR_ORDERS)),
    (28, set_field("nodes", lambda w: 0, "highest_zone", lambda n: ZONE_DMA32)),
    (28, set_field("nodes", lambda w: 0, "kcompactd_sleep", lambda n: 0)),
    (28, set_field("daemons", lambda w: 0, "tail", lambda n: 0)),
    (28, set_field("daemons", lambda w: 0, "head", lambda n: 0)),
    (28, set_field("daemons", lambda w: 0, "file", lambda n: MAX_FILES - 1)),
    (28, set_field("files", lambda w: w.files[8], "scan_prev", lambda n: 0)),
    (28, set_field("files", lambda w: w.files[8], "scan_next", lambda n: 0)),
    (28, _circle),
    (25, put_mark(1310, page_details.SHARED)),
]


def test_a_sound_state_passes(sound: CoreWorld) -> None:
    assert audit(sound.state) == (0, 0)


@pytest.mark.parametrize(("rule", "breaker"), BREAKERS)
def test_each_broken_rule_is_named(sound: CoreWorld, rule: int, breaker: Breaker) -> None:
    if rule == 25:
        sound.convert(1, 1290, 3, True)  # so that the last block has details
    breaker(sound)
    code, _ = audit(sound.state)
    assert code == rule, RULES.get(code)


def with_cpu(world: CoreWorld) -> CoreWorld:
    """A CPU takes a batch of base pages, and two huge ones, and hands out one of each."""
    world.set_cpus(1, 15, 4000, 4000)
    for policy in (SMALL_IN_PLACE, OraclePolicy(kind=KIND_SHMEM, sizes=(9, 0), movable=True)):
        _, file = world.create(512, policy)
        world.allocate(file, 0, 1)
    world.check()
    return world


def _kept_frame(world: CoreWorld) -> int:
    return slot_of_kind(world, layout.FRAME_PCP)


CPU_BREAKERS: list[tuple[int, Breaker]] = [
    (8, set_field("frames", _kept_frame, "kind", lambda n: layout.FRAME_TAIL)),
    (16, set_field("frames", _kept_frame, "order", lambda n: 2)),
    (16, set_field("frames", _kept_frame, "prev", lambda n: n + 1)),
    (16, set_field("blocks", lambda w: block_of_kind(w, layout.PCP), "order", lambda n: 10)),
    (16, set_field("blocks", lambda w: block_of_kind(w, layout.PCP), "kind", lambda n: layout.RESERVED)),
    (17, set_field("pcps", lambda w: 0, "count", lambda n: n + 1)),
    (17, set_field("blocks", lambda w: block_of_kind(w, layout.ORPHAN), "kind", lambda n: layout.PCP)),
]


@pytest.mark.parametrize(("rule", "breaker"), CPU_BREAKERS)
def test_each_broken_rule_of_the_cpus_lists_is_named(sound: CoreWorld, rule: int, breaker: Breaker) -> None:
    breaker(with_cpu(sound))
    code, _ = audit(sound.state)
    assert code == rule, RULES.get(code)


def typed() -> CoreWorld:
    """Page cache in CMA blocks, of which there are most; reclaim's hand stands in it."""
    world = CoreWorld(*synthetic(16), dict.fromkeys(range(4, 17), CMA))
    _, cache = world.create(700, OraclePolicy(kind=KIND_CACHE, movable=True))
    world.create(512, SMALL_IN_PLACE)
    world.allocate(cache, 0, 100)
    world.state.nodes[0].lru_file = world.state.daemons[0].lru_head
    world.check()
    return world


def _cma_block(world: CoreWorld) -> int:
    return int((world.state.blocks.migratetype == CMA).argmax())


TYPE_BREAKERS: list[tuple[int, Breaker]] = [
    (18, set_field("zones", lambda w: 0, "held", lambda n: n + 1)),
    (18, set_field("zones", lambda w: 0, "reserved_highatomic", lambda n: 512)),
    (18, set_field("zones", lambda w: 0, "free_highatomic", lambda n: 1)),
    (19, set_field("blocks", _cma_block, "origin", lambda n: 1)),
    (34, set_field("daemons", lambda w: 0, "lru_head", lambda n: 0)),
    (34, set_field("nodes", lambda w: 0, "lru_file", lambda n: 2)),
    (34, set_field("nodes", lambda w: 0, "lru_dry", lambda n: 1)),
]


@pytest.mark.parametrize(("rule", "breaker"), TYPE_BREAKERS)
def test_each_broken_rule_of_types_and_reclaim_is_named(rule: int, breaker: Breaker) -> None:
    world = typed()
    breaker(world)
    code, _ = audit(world.state)
    assert code == rule, RULES.get(code)


def with_nodes(world: CoreWorld) -> CoreWorld:
    """A second node that has no memory of its own: the zone stays node 0's. And a mount with a file."""
    world.state.host[0].nr_nodes = 2
    world.mount(9, 2, -1)
    world.create(512, HUGETLBFS)
    world.join(1, world.created)
    world.check()
    return world


def _far_zone(world: CoreWorld) -> None:
    """A list that has one zone twice."""
    world.state.zonelists[0] = 1


NODE_BREAKERS: list[tuple[int, Breaker]] = [
    (12, set_field("node_pools", lambda w: 1, "nr", lambda n: n + 1)),
    (12, set_field("node_pools", lambda w: 0, "surplus", lambda n: n - 1)),
    (12, set_field("pools", lambda w: 0, "nr", lambda n: n + 1)),
    (29, set_field("zones", lambda w: 0, "node", lambda n: 2)),
    (29, _far_zone),
    (30, set_field("nodes", lambda w: 0, "miss", lambda n: n + 1)),
    (30, set_field("nodes", lambda w: 1, "hit", lambda n: n + 1)),
    (31, set_field("files", lambda w: w.files[1], "home", lambda n: 2)),
    (31, set_field("files", lambda w: w.files[1], "node_mode", lambda n: layout.NODES_BIND)),
    (31, set_field("files", lambda w: w.files[1], "allowed", lambda n: 4)),
    (32, set_field("subpools", lambda w: 1, "files", lambda n: 0)),
    (32, set_field("subpools", lambda w: 1, "used_hpages", lambda n: 3)),
    (15, set_field("subpools", lambda w: 1, "rsv_hpages", lambda n: n + 1)),
]


@pytest.mark.parametrize(("rule", "breaker"), NODE_BREAKERS)
def test_each_broken_rule_of_the_nodes_is_named(sound: CoreWorld, rule: int, breaker: Breaker) -> None:
    breaker(with_nodes(sound))
    code, _ = audit(sound.state)
    assert code == rule, RULES.get(code)


@pytest.mark.parametrize(("rule", "breaker"), QUEUE_BREAKERS)
def test_each_broken_rule_of_the_queue_is_named(rule: int, breaker: Breaker) -> None:
    world = queued()
    breaker(world)
    code, _ = audit(world.state)
    assert code == rule, RULES.get(code)


@pytest.mark.parametrize(("rule", "breaker"), STRUCT_BREAKERS)
def test_each_broken_rule_of_page_structs_is_named(rule: int, breaker: Breaker) -> None:
    world = with_structs()
    breaker(world)
    code, _ = audit(world.state)
    assert code == rule, RULES.get(code)


def test_every_rule_is_shown_to_break() -> None:
    breakers = BREAKERS + CPU_BREAKERS + TYPE_BREAKERS + NODE_BREAKERS + QUEUE_BREAKERS + STRUCT_BREAKERS
    shown = {rule for rule, _ in breakers}
    assert set(RULES) - shown == {4, 5, 21, 26, 27, 33, 35}  # by tests of their own, or only where a cheaper rule breaks first


def test_a_frame_of_two_files_is_found(sound: CoreWorld) -> None:
    mine, other = page_slot(sound, 900), page_slot(sound, 901)
    sound.state.page_frames[mine] = sound.state.page_frames[other]
    assert audit(sound.state)[0] in (9, 21)


def test_unmerged_buddies_are_found(sound: CoreWorld) -> None:
    lists = sound.state.free_lists
    row = next(
        row
        for row in range(1, len(lists))
        if 1 <= row % layout.NR_ORDERS <= 8 and lists[row].count == 1 and lists[row - 1].count == 0
    )
    order, slot = row % layout.NR_ORDERS - 1, int(lists[row].head)
    second = slot + (1 << order)
    lists[row].head = lists[row].tail = lists[row].count = 0
    lists[row - 1].head, lists[row - 1].tail, lists[row - 1].count = slot, second, 2
    for half, before, after in ((slot, 0, second), (second, slot, 0)):
        frame = sound.state.frames[half]
        frame.kind, frame.order, frame.prev, frame.next = layout.FRAME_FREE, order, before, after
    assert audit(sound.state)[0] == 5
