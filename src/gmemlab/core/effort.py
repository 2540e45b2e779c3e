"""Allocations that have memory compacted before they give up (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.buddy import alloc
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.frames import own_folio
from gmemlab.core.jit import jit
from gmemlab.core.state import Records, State


@jit
def alloc_with_effort(state: State, order: int, migratetype: int, policy: Records) -> int:
    """A chunk of 2**order frames from the free lists, or else after as much compaction as the policy wants. 0 if none."""
    pfn = alloc(state, order, migratetype)
    if pfn or not decisions.compacts(policy, order):
        return pfn
    if compact_for(state, order, migratetype, False):
        pfn = alloc(state, order, migratetype)
    if pfn == 0 and decisions.insists(policy) and compact_for(state, order, migratetype, True):
        pfn = alloc(state, order, migratetype)
    return pfn


@jit
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, as its policy says. Returns its first frame, or 0."""
    policy = state.policies[state.files[owner].policy]
    pfn = alloc_with_effort(state, order, decisions.migratetype(policy), policy)
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
