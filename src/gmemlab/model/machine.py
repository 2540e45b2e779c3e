"""Building the state of a host: empty, from a snapshot, or fragmented on purpose."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import boot, execute, layout
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.state import State, nr_free_lists, reserve_state
from gmemlab.errors import UsageError
from gmemlab.kernel.differences import difference
from gmemlab.model.nodes import LOCAL, REMOTE, Distances, set_nodes, split_blocks
from gmemlab.model.placement import place
from gmemlab.snapshot import Snapshot, ZoneSnapshot
from gmemlab.units import format_size

STRUCT_FRAMES: Final = 8  # frames of page structs for each 2 MiB (C23)
MAX_FRAGMENTATION: Final = 0.95
UNMOVABLE_SHARE: Final = 0.2  # of the blocks that preconditioning dirties
FREED_SHARE: Final = (0.2, 0.8)  # of each block's pages, uniformly
LARGEST_BATCH: Final = 4096  # blocks that are dirtied at once
PRECONDITION_NOTE: Final = (
    "assumption (P7): fragmentation made by filling the host (one 2M block in five unmovable) and freeing blocks whole, but 20"
    " to 80 % of the pages of some, drawn at random from the whole zone: each of them spoils the 1G page around it (K21)"
)
_KINDS: Final = {
    "DMA": layout.ZONE_DMA,
    "DMA32": layout.ZONE_DMA32,
    "Normal": layout.ZONE_NORMAL,
    "Movable": layout.ZONE_MOVABLE,
}
_TYPES: Final = {
    "Unmovable": layout.UNMOVABLE,
    "Movable": layout.MOVABLE,
    "Reclaimable": layout.RECLAIMABLE,
    "HighAtomic": layout.HIGHATOMIC,
    "CMA": layout.CMA,
    "Isolate": layout.ISOLATE,
}
_FIXED: Final = (layout.UNMOVABLE, layout.HIGHATOMIC)  # in blocks of these types, what is in use cannot be moved


def empty(nr_blocks: int, distances: Distances = ((LOCAL,),), cpus: int = 0, cma_blocks: int = 0) -> State:
    """An empty machine of `nr_blocks` blocks: each node a Normal zone of the same size, its page structs in the first ones.

    CMA is in the last ones: there `cma_declare_contiguous` finds room, which looks from the top of memory down.
    """
    parts = split_blocks(nr_blocks, len(distances))
    state = reserve_state(nr_blocks, len(parts))
    cma = nr_blocks + 1 - cma_blocks
    for node, (start, end) in enumerate(parts):
        boot.set_zone(state, node, start, end, layout.ZONE_NORMAL, 0)
        structs = -(-STRUCT_FRAMES * (end - start + 1) // BLOCK_PAGES)
        state.zones[node].node = node
        state.nodes[node].struct_frame = start * BLOCK_PAGES - STRUCT_FRAMES * (start - 1)
        boot.free_range(state, start + structs, min(end, cma))
    boot.set_types(state, cma, nr_blocks + 1, layout.CMA)
    boot.free_range(state, cma, nr_blocks + 1)
    set_nodes(state, distances, cpus)
    return state


def _zones(snapshot: Snapshot) -> list[ZoneSnapshot]:
    """The zones that guests' memory comes from, most preferred first: zone DMA is protected from them."""
    wanted = [zone for zone in snapshot.zones if zone.kind != "DMA" and zone.present_pages]
    if not wanted:
        raise UsageError("the snapshot has no zone with memory besides DMA", key="zones")
    return sorted(wanted, key=lambda zone: (-_KINDS[zone.kind], zone.node))


def _bounds(zone: ZoneSnapshot) -> tuple[int, int]:
    """First block of a zone and the block after its last; blocks that it shares with others are left out."""
    return -(-zone.start_pfn // BLOCK_PAGES), (zone.start_pfn + zone.spanned_pages) // BLOCK_PAGES


def _numbered(snapshot: Snapshot) -> list[int]:
    """The nodes that have zones here, ascending: node k of the model is the k-th of them."""
    return sorted({zone.node for zone in _zones(snapshot)})


def _tell_nodes(state: State, snapshot: Snapshot, cpus: int) -> list[str]:
    """Give a state the nodes of a snapshot. Returns what could not be taken over."""
    numbers = _numbered(snapshot)
    told = {node.node: node for node in snapshot.topology}
    notes = []
    if numbers != list(range(len(numbers))):
        notes.append(
            f"nodes without memory are left out: 0 to {len(numbers) - 1} are the machine's {', '.join(map(str, numbers))}"
        )
    if all(node in told for node in numbers):
        places = [[other.node for other in snapshot.topology].index(node) for node in numbers]
        distances = [[told[node].distances[place] for place in places] for node in numbers]
        has_cpus = [told[node].cpus > 0 for node in numbers]
    else:
        distances = [[LOCAL if a == b else REMOTE for b in numbers] for a in numbers]
        has_cpus = [True] * len(numbers)
        if len(numbers) > 1:
            notes.append(f"the distances between nodes are unknown: {REMOTE} between any two")
    set_nodes(state, distances, cpus, has_cpus if any(has_cpus) else None)
    return notes


def from_snapshot(snapshot: Snapshot, cpus: int = 0) -> tuple[State, tuple[str, ...]]:
    """The zones of a snapshot, all memory reserved, and notes on what could not be taken over."""
    zones = _zones(snapshot)
    nr_blocks = max(_bounds(zone)[1] for zone in zones) - 1
    state = reserve_state(nr_blocks, len(zones))
    for row, zone in enumerate(zones):
        start, end = _bounds(zone)
        boot.set_zone(state, row, start, end, _KINDS[zone.kind], zone.reserve_pages)
        state.zones[row].node = _numbered(snapshot).index(zone.node)
        state.zones[row].wmark_min = zone.min_pages
        state.zones[row].low = zone.low_pages - zone.min_pages
        state.zones[row].high = zone.high_pages - zone.min_pages
    _has_run(state)
    kinds = {zone.kind for zone in zones}
    state.host[0].watermarks = int(any(zone.low_pages > zone.min_pages for zone in zones))
    state.host[0].nofragment = int({"Normal", "DMA32"} <= kinds)
    state.host[0].in_batches = int(difference("lists_in_batches", snapshot.release))
    return state, tuple(_tell_nodes(state, snapshot, cpus))


def _has_run(state: State) -> None:
    """Have compaction search as on a machine that was not just booted: its scanners met, and kswapd cleared the hints, before.

    Until then every search for targets is a long one (`compact_init_free_pfn` is 0), and finds more.
    """
    state.zones["compact_init_free"] = state.zones["end"] * BLOCK_PAGES - 1


def fill_from_snapshot(state: State, snapshot: Snapshot, files: tuple[int, int, int], seed: int) -> tuple[str, ...]:
    """Give every block its type and contents: in use (owned by one of three files), or free as the lists say.

    Of the blocks whose use can be moved some belong to the third file, page cache, so that it has about what reclaim could
    drop: pairs of blocks, drawn from the seed, as nothing tells where it lies.
    """
    notes = []
    share = _cache_share(snapshot)
    spare: dict[int, list[tuple[int, int]]] = {}
    for row, zone in enumerate(_zones(snapshot)):
        start, end = _bounds(zone)
        rng = np.random.default_rng([seed, row])
        blocks, chunks = _counts(zone)
        deferred = zone.deferred_pages // BLOCK_PAGES
        managed = min(int(blocks.sum()), end - start - deferred)
        blocks = _fit(blocks, managed)
        placement = place(start, blocks, chunks, rng)
        drawn = np.random.default_rng([seed, row, 1]).random(len(placement.types) // 2 + 1) < share
        cached = drawn[(start % 2 + np.arange(len(placement.types))) // 2]  # by pairs, as a free chunk may be one
        owners = np.where(np.isin(placement.types, _FIXED), 0, np.where(cached, 2, 1))
        for offset, migratetype in enumerate(placement.types.tolist()):
            boot.occupy(state, start + offset, files[owners[offset]], migratetype)
        owner = owners[placement.firsts // BLOCK_PAGES - start]
        for number, file in enumerate(files):
            boot.punch_each(state, file, placement.firsts[owner == number], placement.pages[owner == number])
        boot.free_range(state, start + managed, start + managed + deferred)
        rest = (end - start - managed - deferred, start + managed + deferred)
        spare.setdefault(int(state.zones[row].node), []).append(rest)
        if placement.unplaced:
            notes.append(
                f"{format_size(placement.unplaced * 4096)} of zone {zone.kind} could not be placed and count as in use"
            )
    _place_structs(state, {node: max(parts) for node, parts in spare.items()})
    return tuple(notes)


def _cache_share(snapshot: Snapshot) -> float:
    """Which part of the memory in use in movable blocks reclaim could drop."""
    used = 0
    for zone in _zones(snapshot):
        blocks, chunks = _counts(zone)
        movable = [number for number in range(layout.NR_MIGRATETYPES) if number not in _FIXED]
        free = chunks[movable] @ (1 << np.arange(layout.NR_ORDERS))
        used += max(0, int(blocks[movable].sum() * BLOCK_PAGES - free.sum()))
    return min(1.0, snapshot.reclaimable_pages / used) if used else 0.0


def _place_structs(state: State, spare: dict[int, tuple[int, int]]) -> None:
    """Put the page structs into memory that the buddy allocator does not manage, if each node has enough in one piece."""
    starts = {}
    for node, (blocks, first) in spare.items():
        mine = [zone for zone in state.zones if zone.node == node]
        lowest = min(int(zone.start) for zone in mine) if len(spare) > 1 else 0
        end = max(int(zone.end) for zone in mine)
        if blocks * BLOCK_PAGES < STRUCT_FRAMES * (end - lowest):
            return
        starts[node] = first * BLOCK_PAGES - STRUCT_FRAMES * lowest
    for node, start in starts.items():
        state.nodes[node].struct_frame = start


def _counts(zone: ZoneSnapshot) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Blocks by migratetype, and free chunks by migratetype and order; per-CPU pages are order 0.

    Chunks of which only totals are known (UNKNOWN) count as movable.
    """
    chunks = np.zeros((layout.NR_MIGRATETYPES, layout.NR_ORDERS), dtype=np.int64)
    for name, free in zone.free.items():
        chunks[_TYPES.get(name, layout.MOVABLE)] += np.array(free.counts, dtype=np.int64)
    blocks = np.zeros(layout.NR_MIGRATETYPES, dtype=np.int64)
    for name, count in zone.blocks.items():
        blocks[_TYPES.get(name, layout.UNMOVABLE)] += count
    if not zone.blocks:
        blocks[layout.MOVABLE] = zone.managed_pages // BLOCK_PAGES
    chunks[layout.MOVABLE, 0] += zone.pcp_pages
    return blocks, chunks


def _fit(blocks: NDArray[np.int64], managed: int) -> NDArray[np.int64]:
    """Reduce the movable blocks so that all fit into the zone."""
    fitted = blocks.copy()
    fitted[layout.MOVABLE] = max(0, managed - int(blocks.sum() - blocks[layout.MOVABLE]))
    return fitted


def free_in_blocks(state: State) -> int:
    """Free pages that lie in free chunks of 2 MiB and more."""
    counts = state.free_lists["count"][: nr_free_lists(len(state.zones))].reshape(-1, layout.NR_ORDERS)
    return int((counts[:, layout.BLOCK_ORDER] + 2 * counts[:, layout.MAX_PAGE_ORDER]).sum()) * BLOCK_PAGES


def precondition(state: State, files: tuple[int, int], fragmentation: float, seed: int) -> None:
    """Fill the machine, free random pages of random 2 MiB blocks until the index is reached, and free the other blocks whole.

    The index is the unusable-free-space index for 2 MiB; it is exceeded by what one block makes of it, at most.

    Args:
        state: an empty machine.
        files: its unmovable and movable background files.
        fragmentation: the index to reach, 0 to `MAX_FRAGMENTATION`.
        seed: where the choices are drawn from.
    """
    _has_run(state)
    rng = np.random.default_rng(seed)
    total = int(state.zones.free.sum()) // BLOCK_PAGES
    owners = (rng.random(total) >= UNMOVABLE_SHARE).astype(np.int64)
    firsts = np.where(owners == 1, np.cumsum(owners), np.cumsum(1 - owners)) * BLOCK_PAGES - BLOCK_PAGES
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), total], strict=True):
        execute.execute(state, layout.OP_ALLOCATE, files[owners[start]], int(firsts[start]), (end - start) * BLOCK_PAGES, 0)
    order = rng.permutation(total)
    done = 0
    while (missing := fragmentation - _index_without(state, total - done)) > 0:
        # x blocks make x/2 of unusable free memory and leave total - x/2 free: the index grows by at most 2 / total each.
        batch = max(1, min(LARGEST_BATCH, int(missing * total / 2)))
        chosen = order[done : done + batch]
        gone = rng.random((len(chosen), BLOCK_PAGES)) < rng.uniform(*FREED_SHARE, size=(len(chosen), 1))
        pages = firsts[chosen, np.newaxis] + np.arange(BLOCK_PAGES)
        for movable in (0, 1):
            freed = pages[(owners[chosen] == movable)[:, np.newaxis] & gone]
            boot.punch_each(state, files[movable], freed, np.ones(len(freed), dtype=np.int64))
        done += len(chosen)
    for movable in (0, 1):
        rest = firsts[order[done:]][owners[order[done:]] == movable]
        boot.punch_each(state, files[movable], rest, np.full(len(rest), BLOCK_PAGES, dtype=np.int64))


def _index_without(state: State, full_blocks: int) -> float:
    """The unusable-free-space index that remains when so many blocks that are still full will have been freed."""
    free = int(state.zones.free.sum())
    return (free - free_in_blocks(state)) / max(1, free + full_blocks * BLOCK_PAGES)
