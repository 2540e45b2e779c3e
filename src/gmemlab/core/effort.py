"""Allocations that have memory compacted before they give up (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.daemons.kcompactd import wake
from gmemlab.core.frames import own_folio
from gmemlab.core.page_alloc import alloc
from gmemlab.core.parts import part
from gmemlab.core.state import State


@part
def alloc_trying(state: State, order: int, migratetype: int, compactions: int, wakes: bool) -> int:
    """Allocate from the free lists, or after up to so many direct compactions. Returns the first frame, or 0.

    With `wakes`, kcompactd is told first that the free lists had none (`wake_all_kswapds`).
    """
    pfn = alloc(state, order, migratetype)
    if pfn == 0 and wakes:
        wake(state, order, migratetype)
    for _ in range(compactions):
        if pfn == 0 and compact_for(state, order, migratetype):
            pfn = alloc(state, order, migratetype)
    return pfn


@part
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, as hard as its policy tries.

    Returns its first frame, or 0.
    """
    record = state.files[owner]
    policy = state.policies[record.policy]
    wakes = decisions.wakes_kcompactd(policy, int(record.kind), order)
    pfn = alloc_trying(state, order, decisions.migratetype(policy), decisions.compactions(policy, order), wakes)
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
