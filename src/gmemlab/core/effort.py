"""Allocations that have memory compacted before they give up (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.frames import own_folio
from gmemlab.core.page_alloc import alloc
from gmemlab.core.parts import part
from gmemlab.core.state import State


@part
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file: from the free lists, or after direct compactions.

    Returns its first frame, or 0.
    """
    policy = state.policies[state.files[owner].policy]
    migratetype = decisions.migratetype(policy)
    pfn = alloc(state, order, migratetype)
    for _ in range(decisions.compactions(policy, order)):
        if pfn == 0 and compact_for(state, order, migratetype):
            pfn = alloc(state, order, migratetype)
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
