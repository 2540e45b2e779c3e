"""Reclaim: clean page cache of the host is dropped where memory is short, by kswapd and by allocations (mm/vmscan.c, 6.18).

The list of what can be dropped is that of the files of kind KIND_CACHE, one after the other as they were made, each from its
first page on; a hand stands where reclaim stopped, and goes round. Where the cache is read once, in that order, this is the
order of Linux's lists: what was never used again leaves the inactive list oldest first, and what is on the active list comes
behind it. That pages are used again (and stay longer), dirty pages and refaults are not modelled. Nothing else is reclaimed:
guest_memfd's memory is unevictable (G54), there is no swap, and slabs stay.

Reclaim asks after each SWAP_CLUSTER_MAX pages whether that is enough; Linux looks at 1/4096 of its list first. kswapd gets its
turn as soon as the allocation that woke it is done, on the CPU that works now, and takes no time.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import has_chunk, set_boost, spare
from gmemlab.core.daemons.register import wake_kcompactd
from gmemlab.core.frames import folio_busy
from gmemlab.core.highatomic import unreserve
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    COSTLY_ORDER,
    GFP_DIRECT,
    GFP_KSWAPD,
    MOVABLE,
    UNMOVABLE,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from gmemlab.core.mapping import block_row, drop_base_page, frame_of, settle
from gmemlab.core.page_alloc import alloc_hard, is_suitable
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_all
from gmemlab.core.state import State

SWAP_CLUSTER_MAX = 32  # pages


@jit
def highest_zone(migratetype: int) -> int:
    """Kind of the last zone that an allocation may come from (`gfp_zone`)."""
    return ZONE_MOVABLE if migratetype == MOVABLE else ZONE_NORMAL


# -- the list ---------------------------------------------------------------------------------------------------------------


@jit
def cache_span(state: State) -> int:
    """Pages of all files of page cache, present or not: one round of the hand."""
    pages = 0
    file = int(state.daemons[0].lru_head)
    while file:
        pages += int(state.files[file].pages)
        file = int(state.files[file].scan_next)
    return pages


@jit
def may_drop(state: State, pfn: int, highest: int) -> bool:
    """Whether a page helps who is short, and nobody holds it."""
    zone = int(state.blocks[pfn >> BLOCK_ORDER].zone)
    return bool(state.zones[zone].kind <= highest and folio_busy(state, pfn) == 0)


@part
def shrink(state: State, wanted: int, highest: int, counter: int) -> int:
    """Drop up to `wanted` pages, from the hand on, in one round at most (`shrink_inactive_list`). Returns how many went.

    TALLY_PGSCAN_* `counter` counts what was looked at, the one behind it what was dropped.
    """
    daemons = state.daemons[0]
    left = 0 if daemons.lru_dry else cache_span(state)
    scanned, dropped = 0, 0
    while dropped < wanted and left > 0:
        if daemons.lru_file == 0:
            daemons.lru_file = int(daemons.lru_head)
            daemons.lru_page = 0
        file, index = int(daemons.lru_file), int(daemons.lru_page)
        row = block_row(state, file, index)
        stop = index + 1
        pfn = 0
        if state.file_blocks[row].nr_present:
            pfn = frame_of(state, row, index)
        else:
            stop = min((index | (BLOCK_PAGES - 1)) + 1, int(state.files[file].pages), index + left)
        left -= stop - index
        daemons.lru_page = stop
        if stop == state.files[file].pages:
            daemons.lru_file = int(state.files[file].scan_next)
            daemons.lru_page = 0
        if pfn:
            scanned += 1
            if may_drop(state, pfn, highest):
                drop_base_page(state, row, index, pfn, True)
                dropped += 1
                if state.file_blocks[row].nr_present == 0:
                    settle(state, file, index)
    if left <= 0 and scanned == 0:
        daemons.lru_dry = 1
    state.tally[counter] += scanned
    state.tally[counter + 1] += dropped
    state.tally[layout.TALLY_HOST_RELEASED] += dropped
    return dropped


# -- kswapd -----------------------------------------------------------------------------------------------------------------


@jit
def is_balanced(state: State, order: int, highest: int) -> bool:
    """Whether a zone up to a kind is above its high watermark, and has a chunk of an order (`pgdat_balanced`)."""
    for zone in range(int(state.host[0].nr_zones)):
        record = state.zones[zone]
        if record.kind <= highest and spare(state, zone, UNMOVABLE) - (1 << order) >= record.high:
            if order == 0 or has_chunk(state, zone, order, UNMOVABLE):
                return True
    return False


@jit
def boosts(state: State, highest: int) -> int:
    """By how much the watermarks of zones up to a kind are raised, together."""
    pages = 0
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].kind <= highest:
            pages += int(state.zones[zone].boost)
    return pages


@jit
def wake_kswapd(state: State, order: int, highest: int, gfp: int) -> None:
    """An allocation found zones up to a kind below their low watermarks (`wakeup_kswapd`)."""
    daemons = state.daemons[0]
    daemons.kswapd_zone = max(int(daemons.kswapd_zone), highest)
    daemons.kswapd_order = max(int(daemons.kswapd_order), order)
    if is_balanced(state, order, highest) and boosts(state, highest) == 0:
        if gfp & GFP_DIRECT == 0:
            wake_kcompactd(state, order, highest)
        return
    daemons.kswapd_woken = 1
    state.host[0].calls_kswapd = 1


@jit
def set_reclaiming(state: State, highest: int, active: int) -> None:
    """CPUs keep less of zones that are being reclaimed (ZONE_RECLAIM_ACTIVE)."""
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].kind <= highest:
            state.zones[zone].reclaiming = active


@jit
def balance(state: State, order: int, highest: int, boosted: int) -> None:
    """Drop pages until a zone is balanced, and as many more as watermarks were boosted by (`balance_pgdat`).

    An imbalance comes first, and forgets the boost. After twice the size of a chunk, base pages are enough.
    """
    total = 0
    while True:
        balanced = is_balanced(state, order, highest)
        if not balanced:
            boosted = 0
        elif boosted == 0:
            return
        dropped = shrink(state, SWAP_CLUSTER_MAX, highest, layout.TALLY_PGSCAN_KSWAPD)
        if dropped == 0:
            return
        total += dropped
        boosted -= min(boosted, dropped)
        if total >= 2 << order:
            order = 0


@part
def kswapd(state: State) -> None:
    """One turn of kswapd: it reclaims what it was woken for, ends boosts, and wakes kcompactd.

    Where there is nothing to drop it gives up at once, each time; Linux does so after 16 times, and is not woken again then
    before something was reclaimed.
    """
    daemons = state.daemons[0]
    order, highest = int(daemons.kswapd_order), int(daemons.kswapd_zone)
    daemons.kswapd_order = 0
    daemons.kswapd_zone = 0
    daemons.kswapd_woken = 0
    state.tally[layout.TALLY_PAGEOUTRUN] += 1
    boosted = boosts(state, highest)
    set_reclaiming(state, highest, 1)
    balance(state, order, highest, boosted)
    set_reclaiming(state, highest, 0)
    if boosted:
        for zone in range(int(state.host[0].nr_zones)):
            if state.zones[zone].kind <= highest:
                set_boost(state, zone, 0)
        wake_kcompactd(state, BLOCK_ORDER, highest)
    wake_kcompactd(state, order, highest)


@part
def call_kswapd(state: State, gfp: int) -> None:
    """After an allocation: tell kswapd of watermarks that rose (`rmqueue`), and let it have its turn."""
    if gfp & GFP_KSWAPD == 0:
        return
    state.host[0].calls_kswapd = 0
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].boosted:
            state.zones[zone].boosted = 0
            wake_kswapd(state, 0, int(state.zones[zone].kind), 0)
    if state.daemons[0].kswapd_woken:
        kswapd(state)
    state.host[0].calls_kswapd = 0


# -- direct reclaim ---------------------------------------------------------------------------------------------------------


@jit
def is_ready(state: State, zone: int, order: int) -> bool:
    """Whether a zone has a chunk above its min watermark, or compaction could make one (`compaction_ready`)."""
    if spare(state, zone, UNMOVABLE) >= 1 << order and has_chunk(state, zone, order, UNMOVABLE):
        return True
    return is_suitable(state, zone, order, int(state.zones[zone].high))


@jit
def all_ready(state: State, order: int, highest: int) -> bool:
    """Whether no zone that an allocation of an order above 3 may come from needs reclaim (`shrink_zones`)."""
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].kind <= highest and not is_ready(state, zone, order):
            return False
    return True


@jit
def some_suitable(state: State, order: int, highest: int) -> bool:
    """Whether a zone has a chunk of an order above 3 by now, or enough for compaction (`should_continue_reclaim`)."""
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].kind > highest:
            continue
        if spare(state, zone, UNMOVABLE) >= 1 << order and has_chunk(state, zone, order, UNMOVABLE):
            return True
        if is_suitable(state, zone, order, 0):
            return True
    return False


@part
def reclaim(state: State, order: int, migratetype: int) -> bool:
    """An allocation drops pages itself: 32, for orders above 3 as many as compaction needs (`try_to_free_pages`).

    Returns whether it made progress, as which counts that there is enough for compaction already.
    """
    highest = highest_zone(migratetype)
    state.tally[layout.TALLY_ALLOCSTALL] += 1
    if order > COSTLY_ORDER and all_ready(state, order, highest):
        return True
    dropped = shrink(state, SWAP_CLUSTER_MAX, highest, layout.TALLY_PGSCAN_DIRECT)
    progress = dropped > 0
    while dropped and order > COSTLY_ORDER and not some_suitable(state, order, highest):
        dropped = shrink(state, SWAP_CLUSTER_MAX, highest, layout.TALLY_PGSCAN_DIRECT)
    return progress


@part
def alloc_reclaiming(state: State, order: int, migratetype: int) -> tuple[int, int]:
    """Reclaim, then allocate above the min watermarks (`__alloc_pages_direct_reclaim`). Returns (first frame or 0, progress).

    If that is in vain, CPUs and HIGHATOMIC blocks give back what they keep.
    """
    if not reclaim(state, order, migratetype):
        return 0, 0
    pfn = alloc_hard(state, order, migratetype)
    if pfn == 0:
        unreserve(state, migratetype, False)
        drain_all(state)
        pfn = alloc_hard(state, order, migratetype)
    return pfn, 1


@part
def alloc_page_slowly(state: State, migratetype: int, gfp: int) -> int:
    """A base page where no zone is above its low watermark (`__alloc_pages_slowpath`). Returns its frame, or 0.

    It tries as long as something is reclaimed; then HIGHATOMIC blocks go. Linux kills a process after that.
    """
    wake_kswapd(state, 0, highest_zone(migratetype), gfp)
    pfn = alloc_hard(state, 0, migratetype) if state.host[0].watermarks else 0
    while pfn == 0:
        pfn, progress = alloc_reclaiming(state, 0, migratetype)
        if pfn == 0 and progress == 0:
            if not unreserve(state, migratetype, True):
                break
            pfn = alloc_hard(state, 0, migratetype)
    if state.host[0].calls_kswapd:
        call_kswapd(state, gfp)
    return pfn
