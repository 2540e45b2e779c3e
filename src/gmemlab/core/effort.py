"""Allocations that have memory compacted before they give up (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.frames import own_folio
from gmemlab.core.jit import jit
from gmemlab.core.page_alloc import alloc
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def alloc_trying(state: State, order: int, migratetype: int, compactions: int) -> int:
    """A chunk of order 9 or less, from the free lists or after so many direct compactions at most. Its first frame, or 0."""
    pfn = alloc(state, order, migratetype)
    for _ in range(compactions):
        if pfn == 0 and compact_for(state, order, migratetype):
            pfn = alloc(state, order, migratetype)
    return pfn


@part
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, with its policy's effort. Its first frame, or 0."""
    policy = state.policies[state.files[owner].policy]
    pfn = alloc_trying(state, order, decisions.migratetype(policy), decisions.compactions(policy, order))
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
