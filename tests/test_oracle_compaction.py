"""Known answers, worked out by hand: compaction, direct and of everything, and what keeps pages where they are (K14, K21)."""

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

import numba
import pytest

from core_world import CoreWorld
from gmemlab.core.layout import (
    CMA,
    EFFORT_LIGHT,
    EFFORT_ONCE,
    EFFORT_RETRY,
    HOST,
    KIND_ANON,
    KIND_CACHE,
    KIND_GUEST_MEMFD,
    KIND_SHMEM,
    MOVABLE,
    PUNCH_DEFER,
    PUNCH_SPLIT,
    SHARED,
    SPLIT_BUDDY,
    UNMOVABLE,
)
from oracle import OracleHost
from world import FREE_OF_8, SHMEM_THP, SMALL, MakeWorld, Policy, World, count, frames, free_pages, layout, new, synthetic
from world import world_fixture as world_fixture

COMPILED = not (numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK)
MOVABLE_4K = Policy(kind=KIND_SHMEM, movable=True)


FREE_OF_9 = 8 * 512


def perforated(model: World, policy: Policy, blocks: int, holes: Iterable[int] = ()) -> int:
    """A file of so many 2 MiB without its even pages, which a scan that looks at every so many frames finds, or others."""
    file = new(model, 512 * blocks, policy)
    assert model.allocate(file, 0, 512 * blocks) == (0, 512 * blocks)
    for page in holes or range(0, 512 * blocks, 2):
        model.punch(file, page, 1)
    return file


def test_low_blocks_move_into_the_holes_of_high_ones(world: MakeWorld) -> None:
    """Of five blocks half full two become full ones: the lower two move, the last page of each cluster of 32 first."""
    model = world(9)
    file = perforated(model, MOVABLE_4K, 5)
    before = frames(model, file)
    low = sorted({frame // 512 for frame in before})
    assert (free_pages(model), free_pages(model, 9)) == (FREE_OF_9 - 1280, FREE_OF_9 - 2560)
    assert model.compact() == (0, 512)
    after = frames(model, file)
    assert {frame // 512 for frame in after} == set(low[2:])
    assert (free_pages(model), free_pages(model, 9)) == (FREE_OF_9 - 1280, FREE_OF_9 - 1536)
    # The first cluster ends with page 63, which gets the first hole of the highest block.
    lowest = [index for index, frame in enumerate(before) if frame // 512 == low[0]][:32]
    assert [after[index] for index in reversed(lowest)][:3] == [low[4] * 512 + hole for hole in (0, 2, 4)]
    assert layout(model, file) == [(page, 1) for page in range(1, 2560, 2)]
    assert model.compact() == (0, 0)


def test_target_scan_strides_over_holes_behind_a_block_without_any(world: MakeWorld) -> None:
    """The second half of a free 4 MiB has no target, and doubles the stride (`isolate_freepages`): odd frames are missed.

    K22, L23: why compaction of memory of which every other page is free mostly wins nothing.
    """
    model = world(10)
    perforated(model, MOVABLE_4K, 4, range(1, 2048, 2))
    assert model.observe()["free"][0, MOVABLE, 10] == [6 * 512, 8 * 512]
    assert model.compact() == (0, 256)  # to the file's block above it
    model = world(10)
    perforated(model, MOVABLE_4K, 4)
    assert model.compact() == (0, 256 + 32)  # and a cluster to one below it, which the other scanner has come to then


def test_unmovable_and_pinned_pages_stay(world: MakeWorld) -> None:
    """L22: nothing is won from guest_memfd. One pinned page keeps its block; one page more of the next block moves."""
    model = world(9)
    file = perforated(model, SMALL, 2)
    assert model.compact() == (0, 0)
    model.destroy(file)
    file = perforated(model, MOVABLE_4K, 5)
    lowest = frames(model, file).index(min(frames(model, file)))
    page = 2 * lowest + 1
    assert model.pin(file, page, 1) == (0, 1)
    assert model.compact() == (0, 512)
    assert free_pages(model, 9) == FREE_OF_9 - 2560 + 512
    model.unpin(file, page, 1)
    assert model.compact() == (0, 1)
    assert free_pages(model, 9) == FREE_OF_9 - 2560 + 1024


def test_folios_move_as_a_whole_and_huge_pages_do_not(world: MakeWorld) -> None:
    """One block, and a cluster of the next; then a folio is split for want of a target, but its pages have none either."""
    model = world(9)
    huge = new(model, 512, SHMEM_THP)
    model.allocate(huge, 0, 512)
    file = new(model, 2560, replace(SHMEM_THP, sizes=(3,), fallocate_sizes=(3,)))
    model.allocate(file, 0, 2560)
    for page in range(0, 2560, 16):
        model.punch(file, page, 8)
    place = frames(model, huge)
    assert model.compact() == (0, 256 + 32)
    assert frames(model, huge) == place
    sizes = [pages for _, pages in layout(model, file)]
    assert (sizes.count(8), sizes.count(1)) == (159, 8)
    assert free_pages(model, 9) == FREE_OF_9 - 512 - 2560 + 512


def test_huge_page_is_compacted_for(world: MakeWorld) -> None:
    """K14: with an effort of `none` the free lists must have it; compaction stops at the first that is free."""
    model = world(8)
    perforated(model, MOVABLE_4K, 7)
    huge_only = replace(SHMEM_THP, sizes=(9,), fallocate_sizes=(9,))
    assert model.allocate(new(model, 512, huge_only), 0, 512) == (errno.ENOMEM, 0)
    eager = new(model, 512, replace(huge_only, effort=EFFORT_ONCE))
    assert model.access(eager, 0, 512, SHARED) == (0, 512)
    assert count(model, "moved") == 256
    assert layout(model, eager) == [(0, 512)]


def test_the_first_try_for_unmovable_memory_leaves_movable_blocks(world: MakeWorld) -> None:
    """`suitable_migration_source`: the asynchronous run takes sources of the wanted type only, huge page or not."""
    for movable, runs in ((True, 1), (False, 2)):
        model = world(8)
        perforated(model, MOVABLE_4K, 7)
        huge = Policy(sizes=(9,), movable=movable, effort=EFFORT_ONCE, split=SPLIT_BUDDY)
        assert model.allocate(new(model, 512, huge), 0, 512) == (0, 512)
        assert count(model, "compactions") == runs


def test_zeros_of_a_folio_that_moves_in_pieces_are_freed(world: MakeWorld) -> None:
    """There are targets of one page only, so that a folio of 64K is split; the eight of its pages that were written move."""
    model = world(8)
    file = new(model, 512, Policy(kind=KIND_ANON, sizes=(4, 0), movable=True, punch=PUNCH_DEFER))
    model.access(file, 0, 8, HOST)
    rest = new(model, 3568, MOVABLE_4K)
    assert model.allocate(rest, 0, 3568) == (0, 3568)
    for page in range(1, 3568, 2):
        model.punch(rest, page, 1)
    model.compact()
    assert layout(model, file) in ([(0, 16)], [(index, 1) for index in range(8)])


def test_what_compaction_does_is_counted(world: MakeWorld) -> None:
    """Two of the pages that it isolates are held, and stay; then an allocation compacts once, and has its huge page."""
    model = world(8)
    file = perforated(model, MOVABLE_4K, 7)
    for page in (1, 701):
        assert model.reference(file, page, 1) == (0, 1)
    moved = model.compact()[1]
    assert (count(model, "compact_failed"), count(model, "moved")) == (2, moved)
    assert [count(model, f"compact_{name}") for name in ("stall", "fail", "success")] == [0, 0, 0]
    model = world(8)
    perforated(model, MOVABLE_4K, 7)
    huge = new(model, 512, replace(SHMEM_THP, effort=EFFORT_ONCE, fallocate_sizes=()))
    assert model.access(huge, 0, 512, SHARED) == (0, 512)
    assert layout(model, huge) == [(0, 512)]
    assert [count(model, f"compact_{name}") for name in ("stall", "fail", "success", "failed")] == [1, 0, 1, 0]


def test_fallocate_of_shmem_does_not_compact(world: MakeWorld) -> None:
    """`shmem_get_folio_gfp`: it knows no mapping that was madvised, so that GFP_TRANSHUGE_LIGHT it is; a fault waits."""
    model = world(8)
    perforated(model, MOVABLE_4K, 7)
    file = new(model, 1024, replace(SHMEM_THP, effort=EFFORT_ONCE))
    assert model.allocate(file, 0, 512) == (0, 512)
    assert {pages for _, pages in layout(model, file)} == {1}
    assert count(model, "compactions") == 0
    assert model.access(file, 512, 512, SHARED) == (0, 512)
    assert layout(model, file)[-1] == (512, 512)


def test_failures_are_remembered(world: MakeWorld) -> None:
    """Two attempts for each huge page. After a failure of the second every other is passed over, then three of four.

    All blocks have the hint to be skipped then: only after 63 attempts that were passed over it is taken away, and a block can
    be emptied (`compaction_restarting`).
    """
    model = world(8)
    holes = [page for page in range(512 * 7) if (page + page // 8) % 2 == 0]
    pinned = perforated(model, MOVABLE_4K, 7, holes)
    for page in range(1, 512 * 7, 256):
        assert model.pin(pinned, page, 1) == (0, 1)
    huge_only = replace(SHMEM_THP, sizes=(9,), fallocate_sizes=(9,))
    once = new(model, 512, replace(huge_only, effort=EFFORT_ONCE))
    runs = []
    for _ in range(7):
        assert model.access(once, 0, 512, SHARED) == (errno.ENOMEM, 0)
        runs.append(count(model, "compactions"))
    assert runs == [2, 3, 3, 4, 4, 4, 4]
    assert [count(model, f"compact_{name}") for name in ("stall", "fail", "success")] == [14, 14, 0]  # passed over or not
    retry = new(model, 512, replace(huge_only, effort=EFFORT_RETRY))
    assert model.access(retry, 0, 512, SHARED) == (errno.ENOMEM, 0)
    assert count(model, "compactions") == 5  # the second try, behind which another promises nothing
    for page in range(1, 512 * 7, 256):
        assert model.unpin(pinned, page, 1) == (0, 1)
    failures = 0
    while model.access(once, 0, 512, SHARED) != (0, 512):
        failures += 1
    assert (failures, count(model, "compactions")) == ((16 + 32 + 64) // 2 - 1, 8)  # two tries each
    model.destroy(once)
    assert model.access(retry, 0, 512, SHARED) == (0, 512)
    assert count(model, "compactions") == 8  # it was free already


def test_an_allocation_ends_a_deferral_though_compaction_failed(world: MakeWorld) -> None:
    """`__alloc_pages_direct_compact`: the lower of two blocks is emptied, where the scanners meet at its end.

    What is free then is of a movable block, which compaction for unmovable memory does not take for a success; but it is had.
    """
    model = world(3)
    perforated(model, MOVABLE_4K, 2)
    guest = new(model, 4, Policy(sizes=(2,), effort=EFFORT_ONCE, split=SPLIT_BUDDY))
    assert model.allocate(guest, 0, 4) == (0, 4)
    assert (count(model, "compactions"), count(model, "moved")) == (2, 256)
    assert model.observe()["scanners"][0][4:] == (0, 0, 3, 0)  # none passed over, shift 0, order 3; no hints to be cleared


def test_kswapd_clears_hints_after_the_scanners_met(world: MakeWorld) -> None:
    """`compact_blockskip_flush`: once an allocation has woken it, which one of ordinary memory does not (GFP_TRANSHUGE).

    Of the lower blocks only those in which every eighth frame shows a page, of the upper ones those in which it shows a hole.
    """
    model = world(8)
    pinned = perforated(model, MOVABLE_4K, 7)
    for page in range(1, 512 * 7, 128):
        assert model.pin(pinned, page, 1) == (0, 1)
    huge_only = Policy(kind=KIND_SHMEM, sizes=(9,), movable=True, effort=EFFORT_ONCE, split=SPLIT_BUDDY)
    assert model.access(new(model, 512, huge_only), 0, 512, SHARED) == (errno.ENOMEM, 0)
    seen = model.observe()
    assert (seen["scanners"][0][-1], len(seen["skipped"])) == (1, 5)
    assert model.allocate(new(model, 512, replace(huge_only, kind=KIND_GUEST_MEMFD)), 0, 512) == (errno.ENOMEM, 0)
    seen = model.observe()
    assert (seen["scanners"][0][-1], seen["skipped"]) == (0, [1, 2, 3, 4, 7])


def test_folio_without_a_hole_of_its_size_is_split(world: MakeWorld) -> None:
    """`try_split_folio`: its pages move one by one, and compaction goes on behind it."""
    model = world(8)
    model.allocate(new(model, 512, SHMEM_THP), 0, 512)  # the block without a neighbour; then the lowest are handed out
    large = new(model, 512, replace(SHMEM_THP, sizes=(4,), fallocate_sizes=(4,)))
    model.allocate(large, 0, 512)
    for page in range(0, 512, 32):
        model.punch(large, page, 16)
    small = perforated(model, MOVABLE_4K, 4)
    blocks = sorted({frame // 512 for frame in frames(model, large) + frames(model, small)})
    assert frames(model, large)[0] // 512 == blocks[0]
    # The lowest block has 256 pages of the one and 128 of the other, which filled its holes first; the next has 256.
    assert model.compact() == (0, 256 + 128 + 256)
    sizes = [pages for _, pages in layout(model, large)]
    assert (sum(sizes), set(sizes)) == (256, {1, 16})
    assert free_pages(model, 9) == FREE_OF_8 - 6 * 512 + 2 * 512


def fill(random: Random, model: World) -> list[int]:
    """Files of several kinds and sizes of folios until memory is short; then some pages are given back, and some held."""
    files = []
    while free_pages(model, 9) > random.choice((0, 0, 1024)):
        order = random.choice((0, 0, 0, 2, 4, 8))
        kind, movable = random.choice(((KIND_SHMEM, True), (KIND_SHMEM, True), (KIND_ANON, True), (KIND_GUEST_MEMFD, False)))
        punch = PUNCH_DEFER if kind == KIND_ANON else PUNCH_SPLIT
        order = order if movable else 0
        policy = Policy(kind=kind, sizes=(order, 0)[: 2 if order else 1], movable=movable, punch=punch)
        files.append(new(model, 512 * random.randint(1, 4), policy))
        if model.allocate(files[-1], 0, 2048)[1] == 0:
            break  # the watermarks keep the rest
    for file in files:
        step, first = random.choice((2, 2, 3, 8, 32)), random.randrange(2)
        for page in range(first, 512 * 6, step):
            model.punch(file, page, random.choice((1, 1, 2)) if step > 2 else 1)
        for _ in range(random.choice((0, 0, 1, 2))):
            model.pin(file, random.randrange(1024), 1)
    return files


def disturb(random: Random, models: Sequence[World], files: list[int]) -> None:
    """One operation that has memory compacted, or that makes room for more of it; the same in each world."""
    kind = random.choice(("allocate",) * 5 + ("compact", "kcompactd", "pool", "punch", "destroy"))
    movable, order = random.choice((True, True, False)), random.choice((9, 9, 9, 4, 2))
    effort = random.choice((EFFORT_LIGHT, EFFORT_ONCE, EFFORT_ONCE, EFFORT_RETRY))
    policy = Policy(
        kind=random.choice((KIND_SHMEM, KIND_GUEST_MEMFD)), sizes=(order,), movable=movable, effort=effort, split=SPLIT_BUDDY
    )
    count, number, page = random.randint(1, 3), random.randrange(4), random.randrange(1024)
    results = []
    for model in models:
        if kind == "allocate":
            name = new(model, 512 * count, policy)
            results.append((name, model.allocate(name, 0, 512 * count)))
        elif kind == "compact":
            results.append((0, model.compact()))
        elif kind == "kcompactd":
            results.append((0, model.kcompactd(500 * count, 90)))
        elif kind == "pool":
            results.append((0, (model.set_pool(9, number, count), 0)))
        elif kind == "punch" and files:
            results.append((0, model.punch(files[number % len(files)], page, 16)))
        elif files:
            results.append((0, model.destroy(files[number % len(files)])))
    assert all(result == results[0] for result in results)
    if kind == "allocate" and results[0][1][0] == 0:
        files.append(results[0][0])
    if kind == "destroy" and files:
        del files[number % len(files)]


@pytest.mark.parametrize("seed", range(16 if COMPILED else 2))
def test_core_and_oracle_compact_alike(seed: int) -> None:
    """Memory that is short and in pieces: which folios move where, which blocks are skipped, and where scanners start next."""
    random = Random(f"compaction {seed}")
    blocks = random.randint(8, 16)
    types = {4: UNMOVABLE, 5: UNMOVABLE, 6: CMA, blocks - 1: CMA, blocks: CMA} if seed % 4 == 2 else {}
    models = [make(*synthetic(blocks), types) for make in (CoreWorld, OracleHost)]
    for model in models:
        if seed % 5 == 1:
            model.allocate(new(model, 300, Policy(KIND_CACHE, (0,), movable=True)), 0, 300)
        if seed % 3 == 1:
            model.set_watermarks(300, 500, False)
        if seed % 4 == 1:
            model.set_cpus(2, 16, 64, 256)
        files = fill(Random(seed), model)
    for step in range(40 if COMPILED else 12):
        disturb(random, models, files)
        models[0].check()
        if step % 4 == 0:
            assert models[0].observe() == models[1].observe()
    assert models[0].observe() == models[1].observe()


def test_folios_mapped_in_part_are_split_before_they_move(world: MakeWorld) -> None:
    """`migrate_pages_batch`: what is unmapped of 32 folios of 64K is free then; a held folio stays as it is (L16)."""
    model = world(9)
    file = new(model, 512, Policy(kind=KIND_ANON, sizes=(4, 0), movable=True, punch=PUNCH_DEFER))
    model.access(file, 0, 512, SHARED)
    home = frames(model, file)
    perforated(model, MOVABLE_4K, 2, range(512, 1024, 2))  # the block behind the source's is no target
    for page in range(0, 512, 16):
        model.punch(file, page, 12)
    model.pin(file, 15, 1)
    assert (free_pages(model), len(model.observe()["deferred"])) == (FREE_OF_9 - 1280, 384)
    assert model.compact()[0] == 0
    assert frames(model, file)[:4] == home[12:16]
    assert not set(frames(model, file)[4:]) & set(home)
    assert (free_pages(model), len(model.observe()["deferred"])) == (FREE_OF_9 - 768 - 16 - 31 * 4, 12)


def test_the_smallest_folios_mapped_in_part_are_split_too(world: MakeWorld) -> None:
    """Of 8K, which a list of sizes may have though Linux has none of anonymous memory."""
    model = world(9)
    file = new(model, 512, Policy(kind=KIND_ANON, sizes=(1, 0), movable=True, punch=PUNCH_DEFER))
    model.access(file, 0, 512, SHARED)
    perforated(model, MOVABLE_4K, 2, [page for page in range(512, 1024) if page % 4 < 2])  # room for them as they are, too
    for page in range(0, 512, 2):
        model.punch(file, page, 1)
    assert (free_pages(model), len(model.observe()["deferred"])) == (FREE_OF_9 - 1280, 256)
    assert model.compact()[0] == 0
    sizes = [size for _, size in layout(model, file)]
    assert sizes.count(1) > 0
    assert len(model.observe()["deferred"]) == sizes.count(2)
    assert free_pages(model) == FREE_OF_9 - 1024 - sizes.count(2)


def test_contents_and_guests_view_survive(world: MakeWorld) -> None:
    """A page that moved is the same page: what was written stays, and a later punch frees the frame that it has now."""
    model = world(8)
    file = perforated(model, MOVABLE_4K, 2)
    model.access(file, 1, 1, HOST)
    model.compact()
    seen = model.observe()["files"][file]
    assert [page[3] for page in (seen[1], seen[3])] == [1, 0]
    assert model.punch(file, 0, 1024) == (0, 1024)
    assert free_pages(model) == FREE_OF_8


def test_punch_after_a_collapse_of_base_pages(world: MakeWorld) -> None:
    """MADV_COLLAPSE makes huge pages of shmem that allocates base pages only."""
    model = world(8)
    file = new(model, 512, MOVABLE_4K)
    model.allocate(file, 0, 512)
    assert model.collapse(file, 0, 512) == (0, 512)
    assert model.punch(file, 5, 1) == (0, 1)
    assert free_pages(model) == FREE_OF_8 - 511
