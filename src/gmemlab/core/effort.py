"""What an allocation does before it gives up, or goes without (K14): the effort of a policy."""

from gmemlab.core import decisions
from gmemlab.core.daemons.compaction import compact_for
from gmemlab.core.daemons.kcompactd import wake
from gmemlab.core.frames import own_folio
from gmemlab.core.highatomic import alloc_atomic
from gmemlab.core.jit import jit
from gmemlab.core.layout import GFP_DIRECT, GFP_HIGH, GFP_KSWAPD, GFP_RETRY_MAYFAIL
from gmemlab.core.page_alloc import HARD, alloc, alloc_at, alloc_easily
from gmemlab.core.parts import part
from gmemlab.core.state import State

COMPACTIONS_OF_RETRY = 4  # should_compact_retry(), 6.18: 16, and a quarter of that for orders above 3


@jit
def compactions(order: int, gfp: int) -> int:
    """How often an allocation of this order that found nothing has memory compacted before it gives up."""
    if order == 0 or gfp & GFP_DIRECT == 0:
        return 0
    return COMPACTIONS_OF_RETRY if gfp & GFP_RETRY_MAYFAIL else 1


@part
def alloc_slowly(state: State, order: int, migratetype: int, gfp: int) -> int:
    """Go on where no zone is above its low watermark, as `gfp` (GFP_*) allows (`__alloc_pages_slowpath`).

    Returns the first frame, or 0. kcompactd is told first that the free lists had none (`wake_all_kswapds`).
    """
    pfn = 0
    if gfp & GFP_HIGH:
        pfn = alloc_atomic(state, order, migratetype)
    elif state.host[0].watermarks:
        pfn = alloc_at(state, order, migratetype, HARD)
    if pfn == 0 and order and gfp & GFP_KSWAPD:
        wake(state, order, migratetype)
    for _ in range(compactions(order, gfp)):
        if pfn == 0 and compact_for(state, order, migratetype):
            pfn = alloc(state, order, migratetype)
    return pfn


@part
def alloc_trying(state: State, order: int, migratetype: int, gfp: int) -> int:
    """Allocate from the free lists, or by what `gfp` allows. Returns the first frame, or 0."""
    pfn = alloc_easily(state, order, migratetype)
    return pfn or alloc_slowly(state, order, migratetype, gfp)


@part
def alloc_folio(state: State, order: int, owner: int, index: int) -> int:
    """Allocate a folio of order 9 or less for page `index` of a file, as hard as its policy tries.

    Returns its first frame, or 0.
    """
    record = state.files[owner]
    policy = state.policies[record.policy]
    gfp = decisions.gfp(policy, int(record.kind), order)
    pfn = alloc_trying(state, order, decisions.migratetype(policy), gfp)
    if pfn:
        own_folio(state, pfn, order, owner, index)
    return pfn
