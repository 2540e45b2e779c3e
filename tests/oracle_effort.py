"""What the oracle's allocations do before they give up (K14; `__alloc_pages_slowpath` as of 6.18)."""

from dataclasses import dataclass

from gmemlab.core.layout import (
    BLOCK_ORDER,
    EFFORT_ATOMIC,
    EFFORT_LIGHT,
    EFFORT_NONE,
    EFFORT_ONCE,
    EFFORT_RETRY,
    KIND_GUEST_MEMFD,
    KIND_SHMEM,
    MOVABLE,
    UNMOVABLE,
)
from oracle_compaction import ASYNC, SYNC_LIGHT, Compaction
from oracle_files import File, OraclePolicy
from oracle_memory import Memory
from oracle_nodes import is_sought_near, wanted
from oracle_reclaim import highest_zone
from oracle_scanners import scanners_of

KERNEL = frozenset({"kswapd", "direct"})


def flags_of(policy: OraclePolicy, order: int, by_fallocate: bool) -> frozenset[str]:
    """Of kswapd (is woken), direct (reclaims and compacts itself), retry, and high (takes of the reserves)."""
    if policy.effort == EFFORT_ATOMIC:
        return frozenset({"kswapd", "high"})
    if order == 0:
        return KERNEL
    flags = set()
    if policy.effort == EFFORT_LIGHT or (policy.effort != EFFORT_NONE and policy.kind == KIND_GUEST_MEMFD):
        flags.add("kswapd")
    if policy.effort in (EFFORT_ONCE, EFFORT_RETRY) and not (by_fallocate and policy.kind == KIND_SHMEM):
        flags.add("direct")
    if policy.effort == EFFORT_RETRY and "direct" in flags:
        flags.add("retry")
    return frozenset(flags)


def alloc(memory: Memory, file: File, index: int, order: int, by_fallocate: bool) -> int | None:
    """A chunk for a file, with the effort of its policy, from the nodes of its policy."""
    mt = MOVABLE if file.policy.movable and not memory.pinning else UNMOVABLE
    flags = flags_of(file.policy, order, by_fallocate)
    node, allowed = wanted(memory.buddy.nodes, file, index, order, memory.buddy.cpu)
    if memory.buddy.nodes.several() and order == BLOCK_ORDER and is_sought_near(file, node, allowed):
        pfn = alloc_with(memory, order, mt, flags - {"retry"} | {"this node"}, node, {node})
        if pfn is not None or "direct" not in flags:
            return pfn
    return alloc_with(memory, order, mt, flags, node, allowed)


def alloc_with(
    memory: Memory, order: int, mt: int, flags: frozenset[str], node: int = 0, allowed: set[int] | None = None
) -> int | None:
    """A chunk from above the low watermarks, or by what is allowed then. kswapd has its turn after it."""
    pfn = memory.buddy.alloc_easily(order, mt, node, allowed)
    if pfn is None:
        pfn = Effort(memory, order, mt, flags, node, allowed).try_on()
    if "kswapd" in flags:
        memory.reclaim.turn()
    return pfn


@dataclass
class Effort:
    """What is tried for one chunk that no zone above its low watermark has."""

    memory: Memory
    order: int
    mt: int
    flags: frozenset[str]
    node: int
    allowed: set[int] | None

    def try_on(self) -> int | None:
        reclaim, buddy, pfn = self.memory.reclaim, self.memory.buddy, None
        if "kswapd" in self.flags:
            for node in dict.fromkeys(buddy.nodes.of_zone[zone] for zone in self.zones()):
                reclaim.wake(node, self.order, highest_zone(self.mt), "direct" in self.flags)
        if "high" in self.flags:
            pfn = buddy.alloc_atomic(self.order, self.mt, self.node, self.allowed)
        elif any(buddy.low):
            pfn = self.hard()
        if pfn is None and "direct" in self.flags:
            pfn = self.page() if self.order == 0 else self.directly()
        return pfn

    def zones(self) -> list[int]:
        return self.memory.buddy.asked(self.mt, self.node, self.allowed)

    def hard(self) -> int | None:
        return self.memory.buddy.alloc_hard(self.order, self.mt, self.node, self.allowed)

    def compacting(self, mode: int) -> tuple[int | None, str]:
        """A chunk after compaction, and what came of that."""
        outcome = compact_for(self.memory, self.order, self.mt, self.node, self.allowed, mode)
        pfn = None if outcome in ("skipped", "deferred") else self.hard()
        counters = self.memory.counters
        counters["compact_stall"] += outcome != "skipped"
        counters["compact_success"] += pfn is not None
        counters["compact_fail"] += outcome != "skipped" and pfn is None
        if pfn is not None:
            scanners = scanners_of(self.memory, self.memory.buddy.zone_of(pfn))
            scanners.considered = scanners.shift = 0
            scanners.failed = max(scanners.failed, self.order + 1)
            scanners.flush = False
        return pfn, outcome

    def unreserve(self, force: bool) -> bool:
        return self.memory.buddy.unreserve_highatomic(self.mt, force, self.node, self.allowed)

    def reclaiming(self) -> tuple[int | None, bool]:
        """A chunk after direct reclaim, and whether that made progress."""
        if not self.memory.reclaim.direct(self.order, self.mt, self.zones()):
            return None, False
        pfn = self.hard()
        if pfn is None:
            self.unreserve(False)
            self.memory.buddy.drain_all()
            pfn = self.hard()
        return pfn, True

    def page(self) -> int | None:
        """As long as something is reclaimed, or HIGHATOMIC blocks give something up."""
        while True:
            pfn, progress = self.reclaiming()
            if pfn is None and not progress:
                pfn = self.hard()  # what the shrinker freed
            if pfn is None and not progress:
                if not self.unreserve(True):
                    return None
                pfn = self.hard()
            if pfn is not None:
                return pfn

    def directly(self) -> int | None:
        """Compaction that does not wait first, for large chunks and unmovable ones; on one node only it is all."""
        if self.order > 3 or self.mt != MOVABLE:
            pfn, _ = self.compacting(ASYNC)
            if pfn is not None or "this node" in self.flags:
                return pfn
        pfn = self.in_turns()
        if pfn is None and "retry" in self.flags and self.unreserve(True):
            return self.hard()
        return pfn

    def in_turns(self) -> int | None:
        """Reclaim and compaction; again as long as reclaim makes progress and that is what lacks, or compaction won."""
        wins = 0
        for _ in range(16 if "retry" in self.flags else 1):
            pfn, progress = self.reclaiming()
            outcome = "skipped"
            if pfn is None:
                pfn, outcome = self.compacting(SYNC_LIGHT)
            if pfn is None and "retry" in self.flags:
                pfn = self.hard()
            if pfn is not None:
                return pfn
            wins += outcome == "found"
            if not progress or (self.order > 3 and (outcome not in ("skipped", "found") or wins > 4)):
                return None
        return None


def compact_for(memory: Memory, order: int, mt: int, node: int, allowed: set[int] | None, mode: int) -> str:
    """Direct compaction, zone by zone; failures that are not of a first try are remembered. What came of the best of them."""
    outcomes = ["skipped"]
    for number in memory.buddy.asked(mt, node, allowed):
        scanners = scanners_of(memory, number)
        if scanners.passes_over(order):
            outcomes.append("deferred")
            continue
        short = mode == ASYNC and order > 3 and mt != MOVABLE and memory.buddy.spare(number, mt) < 2 << order
        if short or not memory.buddy.suits_compaction(number, order):
            continue
        memory.counters["compactions"] += 1
        outcomes.append(Compaction(memory, number, order, mt, mode, direct=True).run())
        if outcomes[-1] == "met" and mode != ASYNC:
            scanners.note_failure(order)
        if outcomes[-1] == "found":
            scanners.failed = max(scanners.failed, order + 1)
            break
    return max(outcomes, key=["skipped", "deferred", "met", "short", "found"].index)
