"""The oracle's queue of folios to be split, and the shrinker that reclaim has look at it (mm/huge_memory.c as of 6.18)."""

from collections import Counter
from typing import TYPE_CHECKING

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRESH, KIND_ANON, KIND_SHMEM, ZEROED
from oracle_files import Folio

if TYPE_CHECKING:
    from oracle_memory import Memory

BATCH = 128


class Shrinker:
    """One list for all nodes; of what was put there, only what is still to be split counts."""

    def __init__(self, memory: "Memory") -> None:
        self.memory = memory
        self.listed: list[Folio] = []
        self.undone: Counter[int] = Counter()  # by node: what looks left of their share
        self.max_none = 511

    def is_due(self, folio: Folio) -> bool:
        """The folio is in its file, and mapped in part, or not looked at yet; of shmem, a huge page."""
        if not any(index in folio.file.pages and folio.file.pages[index].folio is folio for index in folio.members):
            return False
        if folio.file.policy.kind == KIND_SHMEM:
            return True
        return self.is_partial(folio) or folio.index // BLOCK_PAGES in folio.file.unseen

    @staticmethod
    def is_partial(folio: Folio) -> bool:
        return len(folio.members) < 1 << folio.order

    def queue(self, node: int) -> list[Folio]:
        """What is to be looked at on a node, in the order in which it came."""
        self.listed = [folio for folio in self.listed if self.is_due(folio)]
        return [folio for folio in self.listed if self.memory.buddy.node_of(folio.pfn) == node]

    def add(self, folio: Folio) -> None:
        """Comes last, unless it is there."""
        if folio.order >= 2 and folio not in self.listed:
            self.listed.append(folio)

    def add_zeros(self, folio: Folio) -> None:
        """Pages of a folio became zeros: of shmem that is looked at, too (T4)."""
        if folio.file.policy.zero_scan and folio.order == BLOCK_ORDER:
            self.add(folio)

    def requeue(self, folio: Folio) -> None:
        """It moved: comes last, if it is there."""
        if folio in self.listed:
            self.listed.remove(folio)
            self.listed.append(folio)

    def drop(self, folio: Folio) -> None:
        """It was looked at: what becomes of it later comes last."""
        if folio in self.listed:
            self.listed.remove(folio)

    def some(self) -> bool:
        return any(self.queue(node) for node in self.memory.all_nodes())

    def scan(self, node: int, count: int) -> int:
        """The first so many, the last of them first; what is mapped in part and held comes last again. How many were split."""
        split = 0
        for folio in reversed(self.queue(node)[:count]):
            self.listed.remove(folio)
            worth = self.is_worth_it(folio)
            if worth and self.split(folio):
                split += 1
            elif worth and (self.is_partial(folio) or folio.file.policy.kind == KIND_SHMEM):
                self.listed.append(folio)
        return split

    def is_worth_it(self, folio: Folio) -> bool:
        file = folio.file
        if file.policy.kind == KIND_ANON and self.is_partial(folio):
            return True
        file.unseen.discard(folio.index // BLOCK_PAGES)
        zero = FRESH if file.policy.kind == KIND_ANON else ZEROED
        zeros = sum(file.pages[index].content == zero for index in folio.members)
        return zeros > self.max_none and self.max_none != BLOCK_PAGES - 1

    def split(self, folio: Folio) -> bool:
        from oracle_repair import split_zeros  # which knows of memory
        from oracle_split import split_to_pages

        if folio.file.policy.kind == KIND_SHMEM:
            return split_zeros(self.memory, folio)
        underused = not self.is_partial(folio)
        done = split_to_pages(self.memory, folio)
        self.memory.counters["underused"] += done and underused
        return done

    def shrink(self, node: int, priority: int) -> None:
        """A share of the queue, which is all of it, and more, at the last priorities (`do_shrink_slab`)."""
        counters = self.memory.counters
        length = len(self.queue(node))
        if length == 0:
            return
        undone, new = self.undone[node], 2 * (length >> priority)
        left = min((undone >> priority) + new, 2 * length)
        scanned = 0
        free = self.memory.count_users()
        while left >= min(BATCH, length):
            count = min(BATCH, left)
            split = self.scan(node, count)
            if split == 0 and not self.queue(node):
                break
            counters["deferred_split"] += split
            counters["slabs_scanned"] += count
            left -= count
            scanned += count
        self.undone[node] = min(max(undone + new - scanned, 0), 2 * length)
        counters["deferred_freed"] += free - self.memory.count_users()
