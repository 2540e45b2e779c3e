"""Allocations that have memory compacted before they give up (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.daemons.kcompactd import wake
from gmemlab.core.frames import own_folio
from gmemlab.core.layout import EFFORT_ONCE
from gmemlab.core.mempolicy import tries_wanted_first, wanted_nodes
from gmemlab.core.nodes import alloc_near
from gmemlab.core.parts import part
from gmemlab.core.state import State


@part
def alloc_trying(state: State, order: int, migratetype: int, compactions: int, wakes: bool, node: int, allowed: int) -> int:
    """Allocate from the free lists, or after up to so many direct compactions. Returns the first frame, or 0.

    With `wakes`, kcompactd of every allowed node is told first that the free lists had none (`wake_all_kswapds`).
    """
    pfn = alloc_near(state, order, migratetype, node, allowed)
    if pfn == 0 and wakes:
        wake(state, order, migratetype, allowed)
    for _ in range(compactions):
        if pfn == 0 and compact_for(state, order, migratetype, node, allowed):
            pfn = alloc_near(state, order, migratetype, node, allowed)
    return pfn


@part
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, as hard as its policy tries. Its first frame, or 0.

    On a host of several nodes, a huge page of ordinary memory is sought on its own node first, where one direct compaction is
    tried; others give one only to what may compact (`alloc_pages_mpol`).
    """
    record = state.files[owner]
    policy = state.policies[record.policy]
    migratetype = decisions.migratetype(policy)
    wakes = decisions.wakes_kcompactd(policy, int(record.kind), order)
    compactions = decisions.compactions(policy, order)
    node, allowed = wanted_nodes(state, owner, index, order)
    pfn = 0
    anywhere = True
    if state.host[0].nr_nodes > 1 and tries_wanted_first(state, owner, order, node, allowed):
        pfn = alloc_trying(state, order, migratetype, min(compactions, 1), wakes, node, 1 << node)
        anywhere = pfn == 0 and policy.effort >= EFFORT_ONCE
    if anywhere:
        pfn = alloc_trying(state, order, migratetype, compactions, wakes, node, allowed)
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
