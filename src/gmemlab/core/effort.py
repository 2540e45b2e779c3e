"""What an allocation does before it gives up, or goes without (K14): the effort of a policy."""

from gmemlab.core import decisions, layout
from gmemlab.core.daemons.compaction import DEFERRED, SKIPPED, SUCCESS, compact_for, note_allocation
from gmemlab.core.daemons.reclaim import (
    MAX_RECLAIM_RETRIES,
    alloc_page_slowly,
    alloc_reclaiming,
    call_kswapd,
    wake_all_kswapds,
)
from gmemlab.core.daemons.skip_hints import ASYNC, SYNC_LIGHT
from gmemlab.core.frames import own_folio
from gmemlab.core.highatomic import alloc_atomic, unreserve
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    COSTLY_ORDER,
    GFP_DIRECT,
    GFP_HIGH,
    GFP_KSWAPD,
    GFP_RETRY_MAYFAIL,
    GFP_THISNODE,
    MOVABLE,
    UNMOVABLE,
)
from gmemlab.core.mempolicy import tries_wanted_first, wanted_nodes
from gmemlab.core.nodes import alloc_easily_near, alloc_hard
from gmemlab.core.parts import part
from gmemlab.core.state import Records, State

MAX_COMPACT_RETRIES = 4  # 16, and a quarter of that for orders above 3 (`should_compact_retry`)


@jit
def migratetype_now(state: State, policy: Records) -> int:
    """Which free lists a policy's memory comes from: of none that is movable for a long-term pin (`current_gfp_context`)."""
    return UNMOVABLE if state.host[0].pinning else decisions.migratetype(policy)


@jit
def compact_and_alloc(state: State, order: int, migratetype: int, mode: int, node: int, allowed: int) -> tuple[int, int]:
    """Compaction, then the free lists (`__alloc_pages_direct_compact`). Returns (first frame or 0, what came of compaction)."""
    result = compact_for(state, order, migratetype, node, allowed, mode)
    if result == SKIPPED:
        return 0, result
    state.tally[layout.TALLY_COMPACTSTALL] += 1
    pfn = alloc_hard(state, order, migratetype, node, allowed) if result > DEFERRED else 0
    state.tally[layout.TALLY_COMPACTSUCCESS if pfn else layout.TALLY_COMPACTFAIL] += 1
    if pfn:
        note_allocation(state, pfn, order)
    return pfn, result


@jit
def alloc_in_turns(state: State, order: int, migratetype: int, gfp: int, node: int, allowed: int) -> int:
    """Direct reclaim and direct compaction in turns, once or (__GFP_RETRY_MAYFAIL) as long as that promises anything.

    For orders above 3 that is where there was no room for compaction, or it won a chunk that was not had, which is no reason a
    fifth time (`should_compact_retry`). What the shrinker freed is no progress, but a chunk that came to be so is had
    (`should_reclaim_retry`).
    """
    wins = 0
    for _ in range(MAX_RECLAIM_RETRIES if gfp & GFP_RETRY_MAYFAIL else 1):
        pfn, progress = alloc_reclaiming(state, order, migratetype, node, allowed)
        result = SKIPPED
        if pfn == 0:
            pfn, result = compact_and_alloc(state, order, migratetype, SYNC_LIGHT, node, allowed)
        if pfn:
            return pfn
        if gfp & GFP_RETRY_MAYFAIL:
            pfn = alloc_hard(state, order, migratetype, node, allowed)
            if pfn:
                return pfn
        if progress == 0:
            break
        if order > COSTLY_ORDER:
            wins += 1 if result == SUCCESS else 0
            if wins > MAX_COMPACT_RETRIES or (result != SKIPPED and result != SUCCESS):
                break
    if gfp & GFP_RETRY_MAYFAIL and unreserve(state, migratetype, True, node, allowed):
        return alloc_hard(state, order, migratetype, node, allowed)
    return 0


@jit
def alloc_directly(state: State, order: int, migratetype: int, gfp: int, node: int, allowed: int) -> int:
    """Have memory compacted, and page cache and huge pages' unused parts reclaimed, for a chunk of order 1 or more.

    Compaction comes first for what is costly or unmovable, if there is no trouble with it: asynchronous, and for a try on one
    node only it is all (`alloc_pages_mpol`).
    """
    if order > COSTLY_ORDER or migratetype != MOVABLE:
        pfn, _ = compact_and_alloc(state, order, migratetype, ASYNC, node, allowed)
        if pfn or gfp & GFP_THISNODE:
            return pfn
    return alloc_in_turns(state, order, migratetype, gfp, node, allowed)


@part
def alloc_slowly(state: State, order: int, migratetype: int, gfp: int, node: int, allowed: int) -> int:
    """Go on where no zone is above its low watermark, as `gfp` (GFP_*) allows (`__alloc_pages_slowpath`).

    kswapd of every allowed node is told first. Returns the first frame, or 0.
    """
    if order == 0 and gfp & GFP_DIRECT:
        return alloc_page_slowly(state, migratetype, gfp, node, allowed)
    if gfp & GFP_KSWAPD:
        wake_all_kswapds(state, order, migratetype, gfp, node, allowed)
    pfn = 0
    if gfp & GFP_HIGH:
        pfn = alloc_atomic(state, order, migratetype, node, allowed)
    elif state.host[0].watermarks:
        pfn = alloc_hard(state, order, migratetype, node, allowed)
    if pfn == 0 and gfp & GFP_DIRECT:
        pfn = alloc_directly(state, order, migratetype, gfp, node, allowed)
    if state.host[0].calls_kswapd:
        call_kswapd(state, gfp)
    return pfn


@jit
def alloc_trying(state: State, order: int, migratetype: int, gfp: int, node: int, allowed: int) -> int:
    """Allocate from the free lists, or by what `gfp` allows. Returns the first frame, or 0."""
    pfn = alloc_easily_near(state, order, migratetype, node, allowed)
    if pfn == 0:
        return alloc_slowly(state, order, migratetype, gfp, node, allowed)
    if state.host[0].calls_kswapd:
        call_kswapd(state, gfp)
    return pfn


@part
def alloc_page(state: State, pfn: int, file: int, index: int) -> int:
    """Go on with a base page of a file: `alloc_base_pages_easily` had this frame, or (0) none on one node. Its frame, or 0."""
    policy = state.policies[state.files[file].policy]
    gfp = decisions.gfp(policy, int(state.files[file].kind), 0, False)
    migratetype = migratetype_now(state, policy)
    if state.host[0].nr_nodes > 1:
        node, allowed = wanted_nodes(state, file, index, 0)
        return alloc_trying(state, 0, migratetype, gfp, node, allowed)
    if pfn == 0:
        return alloc_slowly(state, 0, migratetype, gfp, 0, 0)
    call_kswapd(state, gfp)
    return pfn


@part
def alloc_folio(state: State, order: int, owner: int, index: int, by_fallocate: bool) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, as hard as its policy tries. Its first frame, or 0.

    On a host of several nodes, a huge page of ordinary memory is sought on its own node first, where one direct compaction is
    tried; others give one only to what may compact (`alloc_pages_mpol`).
    """
    record = state.files[owner]
    policy = state.policies[record.policy]
    gfp = decisions.gfp(policy, int(record.kind), order, by_fallocate)
    migratetype = migratetype_now(state, policy)
    node, allowed = wanted_nodes(state, owner, index, order)
    pfn = 0
    anywhere = True
    if state.host[0].nr_nodes > 1 and tries_wanted_first(state, owner, order, node, allowed):
        once = gfp & ~GFP_RETRY_MAYFAIL | GFP_THISNODE
        pfn = alloc_trying(state, order, migratetype, once, node, 1 << node)
        anywhere = pfn == 0 and gfp & GFP_DIRECT != 0
    if anywhere:
        pfn = alloc_trying(state, order, migratetype, gfp, node, allowed)
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
