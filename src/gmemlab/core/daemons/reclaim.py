"""Reclaim: clean page cache of the host is dropped where memory is short, by kswapd and by allocations (mm/vmscan.c, 6.18).

The list of what can be dropped is that of the files of kind KIND_CACHE, one after the other as they were made, each from its
first page on; a hand stands where reclaim stopped, and goes round. Where the cache is read once, in that order, this is the
order of Linux's lists: what was never used again leaves the inactive list oldest first, and what is on the active list comes
behind it. That pages are used again (and stay longer), dirty pages and refaults are not modelled. Guest_memfd's memory is
unevictable (G54), there is no swap, and of all shrinkers only that of deferred splits (`shrinker`) has something to free: slabs
stay, and so does anonymous memory that was freed lazily (MADV_FREE), which Linux drops with the page cache.

Reclaim asks after each SWAP_CLUSTER_MAX pages whether that is enough; Linux looks at 1/4096 of its list first, at twice as much
each time that this was not. Here that priority falls for the shrinker only, and as soon as there are no 32 pages of cache to
drop: it comes to more than a few folios of a queue as late as in Linux, when the page cache is used up. kswapd gets its
turn as soon as the allocation that woke it is done, on the CPU that works now, and takes no time.

Each node has its kswapd, and a hand of its own, which passes over what lies on other nodes: the lists of Linux are of nodes.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import has_chunk, set_boost, spare
from gmemlab.core.daemons.fragmentation import is_suitable
from gmemlab.core.daemons.register import wake_kcompactd
from gmemlab.core.daemons.shrinker import DEF_PRIORITY, shrink_slab
from gmemlab.core.daemons.skip_hints import reset_isolation_suitable
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
from gmemlab.core.mapping import block_row, frame_of, settle
from gmemlab.core.nodes import alloc_hard, may_serve, node_of, zone_at
from gmemlab.core.operations.drop import drop_base_page
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_all
from gmemlab.core.split_queue import has_queue
from gmemlab.core.state import State

SWAP_CLUSTER_MAX = 32  # pages
MAX_RECLAIM_RETRIES = 16


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


@jit
def drop_cached(state: State, file: int, index: int, pfn: int) -> None:
    """Drop page `index`, in frame `pfn`, of a file of page cache: it is clean, and nobody holds it."""
    row = block_row(state, file, index)
    drop_base_page(state, file, row, index, pfn, True)
    state.tally[layout.TALLY_HOST_RELEASED] += 1
    if state.file_blocks[row].nr_present == 0:
        settle(state, file, index)


@part
def shrink(state: State, node: int, wanted: int, highest: int, counter: int) -> int:
    """Drop up to `wanted` pages of a node, from its hand on, in one round at most (`shrink_inactive_list`).

    TALLY_PGSCAN_* `counter` counts what was looked at, the one behind it what was dropped. Returns how many went.
    """
    record = state.nodes[node]
    left = 0 if record.lru_dry else cache_span(state)
    scanned, dropped = 0, 0
    while dropped < wanted and left > 0:
        if record.lru_file == 0:
            record.lru_file = int(state.daemons[0].lru_head)
            record.lru_page = 0
        file, index = int(record.lru_file), int(record.lru_page)
        row = block_row(state, file, index)
        stop = index + 1
        pfn = 0
        if state.file_blocks[row].nr_present:
            pfn = frame_of(state, row, index)
        else:
            stop = min((index | (BLOCK_PAGES - 1)) + 1, int(state.files[file].pages), index + left)
        left -= stop - index
        record.lru_page = stop
        if stop == state.files[file].pages:
            record.lru_file = int(state.files[file].scan_next)
            record.lru_page = 0
        if pfn and node_of(state, pfn >> BLOCK_ORDER) == node:
            scanned += 1
            if may_drop(state, pfn, highest):
                drop_cached(state, file, index, pfn)
                dropped += 1
    if left <= 0 and scanned == 0:
        record.lru_dry = 1
    state.tally[counter] += scanned
    state.tally[counter + 1] += dropped
    return dropped


# -- kswapd -----------------------------------------------------------------------------------------------------------------


@jit
def is_of(state: State, zone: int, node: int, highest: int) -> bool:
    """Whether a zone is one of a node's up to a kind."""
    return bool(state.zones[zone].node == node and state.zones[zone].kind <= highest)


@jit
def is_balanced(state: State, node: int, order: int, highest: int) -> bool:
    """Whether a zone of a node is above its high watermark, and has a chunk of an order (`pgdat_balanced`)."""
    for zone in range(int(state.host[0].nr_zones)):
        if is_of(state, zone, node, highest) and spare(state, zone, UNMOVABLE) - (1 << order) >= state.zones[zone].high:
            if order == 0 or has_chunk(state, zone, order, UNMOVABLE):
                return True
    return False


@jit
def boosts(state: State, node: int, highest: int) -> int:
    """By how much the watermarks of a node's zones up to a kind are raised, together."""
    pages = 0
    for zone in range(int(state.host[0].nr_zones)):
        if is_of(state, zone, node, highest):
            pages += int(state.zones[zone].boost)
    return pages


@jit
def wake_kswapd(state: State, node: int, order: int, highest: int, gfp: int) -> None:
    """An allocation found a node's zones up to a kind below their low watermarks (`wakeup_kswapd`)."""
    record = state.nodes[node]
    record.kswapd_zone = max(int(record.kswapd_zone), highest)
    record.kswapd_order = max(int(record.kswapd_order), order)
    if is_balanced(state, node, order, highest) and boosts(state, node, highest) == 0:
        if gfp & GFP_DIRECT == 0:
            wake_kcompactd(state, node, order, highest)
        return
    record.kswapd_woken = 1
    state.host[0].calls_kswapd = 1


@jit
def wake_all_kswapds(state: State, order: int, migratetype: int, gfp: int, node: int, allowed: int) -> None:
    """The same of all nodes that an allocation may come from (`wake_all_kswapds`); the zones of each follow each other."""
    last = -1
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        here = int(state.zones[zone].node)
        if here != last and may_serve(state, zone, migratetype, allowed):
            wake_kswapd(state, here, order, highest_zone(migratetype), gfp)
            last = here


@jit
def set_reclaiming(state: State, node: int, highest: int, active: int) -> None:
    """CPUs keep less of zones that are being reclaimed (ZONE_RECLAIM_ACTIVE)."""
    for zone in range(int(state.host[0].nr_zones)):
        if is_of(state, zone, node, highest):
            state.zones[zone].reclaiming = active


@jit
def balance(state: State, node: int, order: int, highest: int, boosted: int) -> None:
    """Drop pages until a zone is balanced, and as many more as watermarks were boosted by (`balance_pgdat`).

    An imbalance comes first, and forgets the boost. After twice the size of a chunk, base pages are enough. Where there is no
    page cache left, the shrinker looks at more each time; a boost is not worth that. What it frees is no success of kswapd's:
    16 turns without one make a node hopeless, whose queue is left to allocations until page cache is dropped there.
    """
    record = state.nodes[node]
    total = 0
    priority = DEF_PRIORITY
    cached = True
    while priority > 0:
        balanced = is_balanced(state, node, order, highest)
        if not balanced:
            boosted = 0
        elif boosted == 0:
            return
        dropped = shrink(state, node, SWAP_CLUSTER_MAX, highest, layout.TALLY_PGSCAN_KSWAPD) if cached else 0
        if record.kswapd_failures < MAX_RECLAIM_RETRIES:
            shrink_slab(state, node, priority)
        cached = dropped == SWAP_CLUSTER_MAX
        total += dropped
        if dropped:
            record.kswapd_failures = 0
        elif boosted or record.split_queue_len == 0 or record.kswapd_failures == MAX_RECLAIM_RETRIES:
            break
        boosted -= min(boosted, dropped)
        if total >= 2 << order:
            order = 0
        priority -= 0 if cached else 1
    if total == 0 and (priority <= 1 or boosted or not is_balanced(state, node, order, highest)):
        record.kswapd_failures = min(int(record.kswapd_failures) + 1, MAX_RECLAIM_RETRIES)


@part
def kswapd(state: State, node: int) -> None:
    """One turn of a node's kswapd: it reclaims what it was woken for, ends boosts, clears hints, and wakes kcompactd.

    Where there is nothing to drop it gives up at once, each time; that of Linux is not woken at all where a node is hopeless,
    nor are watermarks that were boosted lowered again. A free that lifts a zone above its high watermark makes a node hopeful
    in Linux where there are others (6.18); not here.
    """
    record = state.nodes[node]
    order, highest = int(record.kswapd_order), int(record.kswapd_zone)
    record.kswapd_order = 0
    record.kswapd_zone = 0
    record.kswapd_woken = 0
    state.tally[layout.TALLY_PAGEOUTRUN] += 1
    boosted = boosts(state, node, highest)
    set_reclaiming(state, node, highest, 1)
    balance(state, node, order, highest, boosted)
    set_reclaiming(state, node, highest, 0)
    if boosted:
        for zone in range(int(state.host[0].nr_zones)):
            if is_of(state, zone, node, highest):
                set_boost(state, zone, 0)
        wake_kcompactd(state, node, BLOCK_ORDER, highest)
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].node == node:
            reset_isolation_suitable(state, zone)
    wake_kcompactd(state, node, order, highest)


@part
def call_kswapd(state: State, gfp: int) -> None:
    """After an allocation: tell kswapd of watermarks that rose (`rmqueue`), and let it have its turn, on each node."""
    if gfp & GFP_KSWAPD == 0:
        return
    state.host[0].calls_kswapd = 0
    for zone in range(int(state.host[0].nr_zones)):
        record = state.zones[zone]
        if record.boosted:
            record.boosted = 0
            wake_kswapd(state, int(record.node), 0, int(record.kind), 0)
    for node in range(int(state.host[0].nr_nodes)):
        if state.nodes[node].kswapd_woken:
            kswapd(state, node)
    state.host[0].calls_kswapd = 0


# -- direct reclaim ---------------------------------------------------------------------------------------------------------


@jit
def is_ready(state: State, zone: int, order: int) -> bool:
    """Whether a zone has a chunk above its min watermark, or compaction could make one (`compaction_ready`)."""
    if spare(state, zone, UNMOVABLE) >= 1 << order and has_chunk(state, zone, order, UNMOVABLE):
        return True
    return is_suitable(state, zone, order, int(state.zones[zone].high))


@jit
def some_suitable(state: State, node: int, order: int, highest: int) -> bool:
    """Whether a zone of a node has a chunk of an order above 3 by now, or enough for compaction (`should_continue_reclaim`)."""
    for zone in range(int(state.host[0].nr_zones)):
        if not is_of(state, zone, node, highest):
            continue
        if spare(state, zone, UNMOVABLE) >= 1 << order and has_chunk(state, zone, order, UNMOVABLE):
            return True
        if is_suitable(state, zone, order, 0):
            return True
    return False


@jit
def shrink_node(state: State, node: int, order: int, highest: int, priority: int) -> int:
    """Drop 32 pages of a node, for orders above 3 as many as compaction needs (`shrink_node`). Returns how many of the 32.

    Below the first priority there are none left, and only the shrinker looks at more.
    """
    if priority < DEF_PRIORITY:
        shrink_slab(state, node, priority)
        return 0
    first = shrink(state, node, SWAP_CLUSTER_MAX, highest, layout.TALLY_PGSCAN_DIRECT)
    shrink_slab(state, node, priority)
    if first:
        state.nodes[node].kswapd_failures = 0
    dropped = first
    while dropped and order > COSTLY_ORDER and not some_suitable(state, node, order, highest):
        dropped = shrink(state, node, SWAP_CLUSTER_MAX, highest, layout.TALLY_PGSCAN_DIRECT)
        shrink_slab(state, node, priority)
    return first


@jit
def shrink_zones(state: State, order: int, migratetype: int, node: int, allowed: int, priority: int) -> tuple[int, bool]:
    """Shrink each node that an allocation may come from, once. Returns (pages dropped, whether a zone is ready).

    For orders above 3, a zone in which there is enough for compaction already is not what a node is shrunk for.
    """
    dropped, ready = 0, False
    last = -1
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        here = int(state.zones[zone].node)
        if not may_serve(state, zone, migratetype, allowed):
            continue
        if order > COSTLY_ORDER and is_ready(state, zone, order):
            ready = True
        elif here != last:
            last = here
            dropped += shrink_node(state, here, order, highest_zone(migratetype), priority)
    return dropped, ready


@part
def reclaim(state: State, order: int, migratetype: int, node: int, allowed: int) -> bool:
    """An allocation drops pages itself, and looks at more as long as these are too few (`try_to_free_pages`).

    Returns whether it made progress, as which enough for compaction counts, too, but not what the shrinker freed: who asks
    looks for that by himself.
    """
    state.tally[layout.TALLY_ALLOCSTALL] += 1
    total = 0
    for priority in range(DEF_PRIORITY, -1, -1):
        dropped, ready = shrink_zones(state, order, migratetype, node, allowed, priority)
        total += dropped
        if ready:
            return True
        if total >= SWAP_CLUSTER_MAX or not has_queue(state):
            break
    return total > 0


@part
def alloc_reclaiming(state: State, order: int, migratetype: int, node: int, allowed: int) -> tuple[int, int]:
    """Reclaim, then allocate above the min watermarks (`__alloc_pages_direct_reclaim`). Returns (first frame or 0, progress).

    If that is in vain, CPUs and HIGHATOMIC blocks give back what they keep.
    """
    if not reclaim(state, order, migratetype, node, allowed):
        return 0, 0
    pfn = alloc_hard(state, order, migratetype, node, allowed)
    if pfn == 0:
        unreserve(state, migratetype, False, node, allowed)
        drain_all(state)
        pfn = alloc_hard(state, order, migratetype, node, allowed)
    return pfn, 1


@part
def alloc_page_slowly(state: State, migratetype: int, gfp: int, node: int, allowed: int) -> int:
    """A base page where no zone is above its low watermark (`__alloc_pages_slowpath`). Returns its frame, or 0.

    It tries as long as something is reclaimed, and once more where nothing was but the shrinker may have freed something
    (`should_reclaim_retry`); then HIGHATOMIC blocks go. Linux kills a process after that.
    """
    wake_all_kswapds(state, 0, migratetype, gfp, node, allowed)
    pfn = alloc_hard(state, 0, migratetype, node, allowed) if state.host[0].watermarks else 0
    while pfn == 0:
        pfn, progress = alloc_reclaiming(state, 0, migratetype, node, allowed)
        if progress == 0:
            pfn = alloc_hard(state, 0, migratetype, node, allowed)
        if pfn == 0 and progress == 0:
            if not unreserve(state, migratetype, True, node, allowed):
                break
            pfn = alloc_hard(state, 0, migratetype, node, allowed)
    if state.host[0].calls_kswapd:
        call_kswapd(state, gfp)
    return pfn
