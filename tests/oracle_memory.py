"""What the oracle knows of host memory: free lists, pools, orphans, and who uses each frame."""

from collections.abc import Callable
from typing import Any

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, GIGA_ORDER, MOVABLE, UNMOVABLE
from oracle_files import COUNTERS, File, Folio, Hold, HugePage, Page, Pool
from oracle_page_alloc import PageAllocator
from oracle_reclaim import Reclaim


class Memory:
    """Free lists, pools, orphans, and the folio that uses each frame."""

    def __init__(
        self,
        zones: list[tuple[int, int, int, int]],
        reserved_blocks: set[int],
        nr_blocks: int,
        types: dict[int, int] | None = None,
    ) -> None:
        self.buddy = PageAllocator(zones, reserved_blocks, nr_blocks, self.count_movable, types)
        self.pools = {BLOCK_ORDER: Pool(BLOCK_ORDER), GIGA_ORDER: Pool(GIGA_ORDER)}
        self.users: dict[int, Folio] = {}
        self.orphans: list[Folio] = []
        self.reserved = {b * BLOCK_PAGES + offset for b in reserved_blocks for offset in range(BLOCK_PAGES)}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.scanners: dict[int, Any] = {}  # of compaction, by zone
        self.wake_kcompactd: Callable[[int, int], None] = lambda order, highest: None
        self.reclaim = Reclaim(self)

    def count_movable(self, block: int) -> int:
        users = [self.users.get(pfn) for pfn in range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES)]
        return sum(1 for folio in users if folio is not None and folio.members and folio.file.policy.movable)

    # -- folios -------------------------------------------------------------------------------------------------------
    def insert(self, file: File, index: int, pfn: int, order: int, huge: HugePage | None = None) -> Folio:
        """A new folio in the file; its pages are fresh."""
        folio = Folio(file, index, pfn, order, huge, set(range(index, index + (1 << order))))
        for offset in range(1 << order):
            file.pages[index + offset] = Page(pfn + offset, folio)
            self.users[pfn + offset] = folio
        return folio

    def cut(self, folio: Folio, pieces: list[tuple[int, int]]) -> None:
        """Replace a folio by pieces (index, order); pages keep frame and content."""
        for index, order in pieces:
            piece = Folio(
                folio.file,
                index,
                folio.pfn + index - folio.index,
                order,
                folio.huge,
                set(range(index, index + (1 << order))),
                folio.cleared,
            )
            for offset in range(1 << order):
                folio.file.pages[index + offset].folio = piece
                self.users[piece.pfn + offset] = piece

    def leave(self, folio: Folio) -> None:
        """All pages of a folio leave the file: free, or orphans until the last pin or reference goes."""
        for index in folio.members:
            del folio.file.pages[index]
        folio.members = set()
        if folio.busy():
            self.orphans.append(folio)
            self.counters["orphaned_pages"] += 1 << folio.order
        else:
            self.release(folio)

    def release(self, folio: Folio) -> None:
        """The frames of a folio without pages and without holds go back to where they came from."""
        for pfn in folio.frames():
            del self.users[pfn]
        if folio.huge is None:
            self.buddy.free(folio.pfn, folio.order)
        else:
            self.give_back(folio.file, folio.huge)

    def drop(self, hold: Hold) -> None:
        """Undo one pin or reference call, page by page ascending."""
        for folio in hold.folios:
            if hold.pin:
                folio.pins -= 1
            else:
                folio.references -= 1
            if folio in self.orphans and not folio.busy():
                self.orphans.remove(folio)
                self.release(folio)

    # -- pools --------------------------------------------------------------------------------------------------------
    def take_huge(self, file: File, index: int) -> HugePage | None:
        """An idle page for the file: one promised to it (G70), to this place of it (L19), or, hugetlb only, to nobody."""
        pool = self.pools[file.policy.sizes[0]]
        number = index // file.unit()
        if file.reservation > 0:
            file.reservation -= 1
            pool.reserved -= 1
        elif number in file.promised:
            pool.reserved -= 1
        elif file.confidential():
            return None
        elif len(pool.idle) <= pool.reserved:
            pfn = self.surplus(pool)
            if pfn is None:
                return None
            file.promised.add(number)
            return HugePage(pool.order, pfn)
        if not file.confidential():
            file.promised.add(number)
        return HugePage(pool.order, pool.idle.pop(0))

    def surplus(self, pool: Pool) -> int | None:
        """A page beyond the pool's size, if it may have one more."""
        pfn = self.huge(pool) if pool.surplus < pool.overcommit else None
        if pfn is not None:
            pool.surplus += 1
            pool.nr += 1
        return pfn

    def promise(self, pool: Pool, pages: int) -> bool:
        """So many pages are promised, with surplus ones where free ones are short; all or none."""
        short = pool.reserved + pages - len(pool.idle)
        for got in range(short):
            pfn = self.surplus(pool)
            if pfn is None:
                self.drop_surplus(pool, got)
                return False
            pool.idle.insert(0, pfn)
        pool.reserved += pages
        return True

    def drop_surplus(self, pool: Pool, most: int) -> None:
        for _ in range(min(most, pool.surplus)):
            if pool.idle:
                self.free_huge(pool, pool.idle.pop(0))
                pool.surplus -= 1

    def free_huge(self, pool: Pool, pfn: int) -> None:
        """A page leaves the pool for free memory, block by block."""
        pool.nr -= 1
        for block in range(pfn, pfn + (1 << pool.order), BLOCK_PAGES):
            if pool.order == BLOCK_ORDER:
                self.buddy.free(block, BLOCK_ORDER)
            else:
                self.buddy.free_now(block, BLOCK_ORDER)

    def resize(self, pool: Pool, count: int, overcommit: int) -> None:
        """Surplus pages become the pool's own first; then it grows, or idle pages go; what is too much is surplus."""
        pool.overcommit = overcommit
        while pool.surplus and pool.nr - pool.surplus < count:
            pool.surplus -= 1
        while pool.nr - pool.surplus < count and self.grow(pool, False):
            pass
        least = max(count, pool.reserved + pool.nr - len(pool.idle))
        while pool.nr - pool.surplus > least and pool.idle:
            self.free_huge(pool, pool.idle.pop(0))
        pool.surplus += max(0, pool.nr - pool.surplus - count)

    def give_back(self, file: File, huge: HugePage) -> None:
        """Free the restored page structs, put the page on top of its pool; guest_memfd gets its reservation back."""
        self.forget_structs(huge)
        pool = self.pools[huge.order]
        if pool.surplus and not file.confidential():
            pool.surplus -= 1
            self.free_huge(pool, huge.pfn)
            return
        pool.idle.insert(0, huge.pfn)
        if file.confidential():
            file.reservation += 1
            pool.reserved += 1

    def restore_structs(self, huge: HugePage, block: int, count: int) -> bool:
        """Allocate `count` frames for page structs of a piece at `block` that HVO had freed (G74); all or none."""
        from oracle_effort import KERNEL, alloc_with  # which knows of memory

        got: list[int] = []
        for _ in range(count):
            pfn = alloc_with(self, 0, UNMOVABLE, KERNEL)
            if pfn is None:
                for frame in reversed(got):
                    self.buddy.free(frame, 0)
                return False
            got.append(pfn)
        huge.chains.setdefault(block, []).extend(got)
        return True

    def forget_structs(self, huge: HugePage) -> None:
        """Free all restored frames, block by block, the newest of each first."""
        for block in sorted(huge.chains):
            for pfn in reversed(huge.chains[block]):
                self.buddy.free(pfn, 0)
        huge.chains = {}

    def demote_one(self) -> bool:
        """The idle 1 GiB page that would be used next becomes 512 pages of 2 MiB, the lowest to be used first.

        With HVO, all of its page structs are restored before, and seven of eight frames of each piece freed after.
        """
        giga, small = self.pools[GIGA_ORDER], self.pools[BLOCK_ORDER]
        page = HugePage(GIGA_ORDER, giga.idle[0])
        blocks = range(page.pfn, page.pfn + (1 << GIGA_ORDER), BLOCK_PAGES)
        for pfn in blocks if giga.hvo else ():
            if not self.restore_structs(page, pfn, 7 if pfn == page.pfn else 8):
                self.forget_structs(page)
                return False
        giga.idle.pop(0)
        giga.nr -= 1
        small.nr += len(blocks)
        small.hvo = giga.hvo
        small.idle[:0] = blocks
        for pfn in blocks if giga.hvo else ():
            for frame in reversed(page.chains[pfn][-7:]):
                self.buddy.free(frame, 0)
            self.reserved.update(page.chains[pfn][:-7])
        return True

    def huge(self, pool: Pool) -> int | None:
        """A huge page from free memory."""
        from oracle_contig import alloc_giga  # which knows of memory

        return alloc_giga(self) if pool.order == GIGA_ORDER else self.buddy.alloc(pool.order, MOVABLE)

    def grow(self, pool: Pool, hvo: bool) -> bool:
        """One more page for the pool; HVO frees the frames of its page structs but the first."""
        pool.hvo = hvo
        pfn = self.huge(pool)
        if pfn is None:
            return False
        pool.nr += 1
        pool.idle.insert(0, pfn)
        if hvo:
            structs = BLOCK_PAGES + 8 * (pfn // BLOCK_PAGES)
            for frame in range(structs + 1, structs + 8 * ((1 << pool.order) // BLOCK_PAGES)):
                self.reserved.remove(frame)
                self.buddy.free(frame, 0)
        return True
