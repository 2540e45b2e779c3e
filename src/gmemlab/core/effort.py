"""Allocations that have memory compacted before they give up (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.buddy import alloc
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.frames import own_folio
from gmemlab.core.jit import jit
from gmemlab.core.state import State


@jit
def alloc_trying(state: State, order: int, migratetype: int, times: int) -> int:
    """A chunk of 2**order frames from the free lists, or else after up to `times` direct compactions. 0 if none."""
    pfn = alloc(state, order, migratetype)
    for _ in range(times):
        if pfn == 0 and compact_for(state, order, migratetype):
            pfn = alloc(state, order, migratetype)
    return pfn


@jit
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, as its policy says. Returns its first frame, or 0."""
    policy = state.policies[state.files[owner].policy]
    pfn = alloc_trying(state, order, decisions.migratetype(policy), decisions.compactions(policy, order))
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
