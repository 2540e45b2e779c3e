"""What the oracle's allocations do before they give up (K14; `__alloc_pages_slowpath` as of 6.18)."""

from gmemlab.core.layout import (
    EFFORT_ATOMIC,
    EFFORT_LIGHT,
    EFFORT_NONE,
    EFFORT_ONCE,
    EFFORT_RETRY,
    KIND_GUEST_MEMFD,
    MOVABLE,
    UNMOVABLE,
)
from oracle_compaction import compact_for
from oracle_files import File, OraclePolicy
from oracle_memory import Memory
from oracle_reclaim import highest_zone

KERNEL = frozenset({"kswapd", "direct"})


def flags_of(policy: OraclePolicy, order: int) -> frozenset[str]:
    """Of kswapd (is woken), direct (reclaims and compacts itself), retry, and high (takes of the reserves)."""
    if policy.effort == EFFORT_ATOMIC:
        return frozenset({"kswapd", "high"})
    if order == 0:
        return KERNEL
    flags = set()
    if policy.effort == EFFORT_LIGHT or (policy.effort != EFFORT_NONE and policy.kind == KIND_GUEST_MEMFD):
        flags.add("kswapd")
    if policy.effort in (EFFORT_ONCE, EFFORT_RETRY):
        flags.add("direct")
    if policy.effort == EFFORT_RETRY:
        flags.add("retry")
    return frozenset(flags)


def alloc(memory: Memory, file: File, order: int) -> int | None:
    """A chunk for a file, with the effort of its policy."""
    return alloc_with(memory, order, MOVABLE if file.policy.movable else UNMOVABLE, flags_of(file.policy, order))


def alloc_with(memory: Memory, order: int, mt: int, flags: frozenset[str]) -> int | None:
    """A chunk from above the low watermarks, or by what is allowed then. kswapd has its turn after it."""
    pfn = memory.buddy.alloc_easily(order, mt)
    if pfn is None:
        if "kswapd" in flags:
            memory.reclaim.wake(order, highest_zone(mt), "direct" in flags)
        if "high" in flags:
            pfn = memory.buddy.alloc_atomic(order, mt)
        elif any(memory.buddy.low):
            pfn = memory.buddy.alloc_hard(order, mt)
        if pfn is None and "direct" in flags:
            if order == 0:
                pfn = page(memory, mt)
            elif memory.reclaim.files:
                pfn = in_turns(memory, order, mt, "retry" in flags)
            else:
                pfn = compacting(memory, order, mt, "retry" in flags)
    if "kswapd" in flags:
        memory.reclaim.turn()
    return pfn


def reclaiming(memory: Memory, order: int, mt: int) -> tuple[int | None, bool]:
    """A chunk after direct reclaim, and whether that made progress."""
    if not memory.reclaim.direct(order, mt):
        return None, False
    pfn = memory.buddy.alloc_hard(order, mt)
    if pfn is None:
        memory.buddy.unreserve_highatomic(mt, False)
        memory.buddy.drain_all()
        pfn = memory.buddy.alloc_hard(order, mt)
    return pfn, True


def page(memory: Memory, mt: int) -> int | None:
    """As long as something is reclaimed, or HIGHATOMIC blocks give something up."""
    while True:
        pfn, progress = reclaiming(memory, 0, mt)
        if pfn is None and not progress:
            if not memory.buddy.unreserve_highatomic(mt, True):
                return None
            pfn = memory.buddy.alloc_hard(0, mt)
        if pfn is not None:
            return pfn


def compacting(memory: Memory, order: int, mt: int, retry: bool) -> int | None:
    """Without page cache: up to so many compactions."""
    for _ in range(4 if retry else 1):
        if compact_for(memory, order, mt):
            pfn = memory.buddy.alloc(order, mt)
            if pfn is not None:
                return pfn
    if retry and memory.buddy.unreserve_highatomic(mt, True):
        return memory.buddy.alloc_hard(order, mt)
    return None


def in_turns(memory: Memory, order: int, mt: int, retry: bool) -> int | None:
    """With page cache: compaction, then reclaim and compaction; again as long as reclaim makes progress."""
    if (order > 3 or mt != MOVABLE) and compact_for(memory, order, mt, notes=False):
        pfn = memory.buddy.alloc_hard(order, mt)
        if pfn is not None:
            return pfn
    for _ in range(16 if retry else 1):
        pfn, progress = reclaiming(memory, order, mt)
        if pfn is None and compact_for(memory, order, mt):
            pfn = memory.buddy.alloc_hard(order, mt)
        if pfn is not None:
            return pfn
        if not progress:
            break
    if retry and memory.buddy.unreserve_highatomic(mt, True):
        return memory.buddy.alloc_hard(order, mt)
    return None
