"""What the oracle knows of host memory: free lists, pools, orphans, and who uses each frame."""

import errno
from collections import Counter
from collections.abc import Callable
from typing import Any

from gmemlab.core.hardware.counts import HOST_WRITE, UNACCEPTED
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, GIGA_ORDER, KIND_HOST, MOVABLE, UNMOVABLE
from oracle_files import COUNTERS, File, Folio, Hold, HugePage, Page, Pool, Rmp
from oracle_nodes import wanted
from oracle_page_alloc import PageAllocator
from oracle_reclaim import Reclaim
from oracle_shrinker import Shrinker
from oracle_snp import give_up, make_shared
from oracle_structs import PageStructs


class Memory(PageStructs):
    """Free lists, pools, orphans, and the folio that uses each frame."""

    def __init__(
        self,
        zones: list[tuple[int, int, int, int]],
        reserved_blocks: set[int],
        nr_blocks: int,
        types: dict[int, int] | None = None,
    ) -> None:
        self.buddy = PageAllocator(zones, reserved_blocks, nr_blocks, self.on_lru, types)
        self.pools = {BLOCK_ORDER: Pool(BLOCK_ORDER), GIGA_ORDER: Pool(GIGA_ORDER)}
        self.users: dict[int, Folio] = {}
        self.orphans: list[Folio] = []
        self.pinning = False  # a long-term pin is under way: nothing that is allocated is movable
        self.chains = {}
        self.reserved = {b * BLOCK_PAGES + offset for b in reserved_blocks for offset in range(BLOCK_PAGES)}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.rmp = Rmp()
        self.operations: Counter[tuple[int, int]] = Counter()
        self.hazards: Counter[tuple[int, int]] = Counter()  # by kind and operation
        self.scanners: dict[int, Any] = {}  # of compaction, by zone
        self.wake_kcompactd: Callable[[int, int, int], None] = lambda node, order, highest: None
        self.shrinker = Shrinker(self)
        self.reclaim = Reclaim(self)

    def harm(self) -> list[int]:
        """Pages that what must not happen hit so far, by kind (HAZARD_*)."""
        done = Counter[int]()
        for (operation, _), count in self.operations.items():
            done[operation] += count
        return [done[HOST_WRITE], done[UNACCEPTED], self.counters["stale_pages"], self.counters["lost_pages"]]

    def on_lru(self, pfn: int) -> bool:
        """A page of a file, or of one that it left while somebody holds it; none of the kernel's own, or of a pool."""
        folio = self.users.get(pfn)
        if folio is None:
            return False
        return folio.file.policy.movable or (folio.file.policy.kind != KIND_HOST and not folio.file.from_pool())

    def count_users(self) -> int:
        return len(self.users)

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
        if folio.file.rmp is not None:
            for base in range(min(folio.members), max(folio.members) + 1, BLOCK_PAGES):
                give_up(folio.file, [index for index in folio.members if base <= index < base + BLOCK_PAGES])
        folio.file.unmap_host(folio.members)
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
        if folio.file.rmp is not None:
            make_shared(folio.file, folio.frames())
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
        """An idle page for the file: one promised to it (G70), to this place of it (L19), or, hugetlb only, to nobody.

        Of a node that its policy allows; where they have none, hugetlb memory may get a surplus page of them.
        """
        pool = self.pools[file.policy.sizes[0]]
        number = index // file.unit()
        promised = file.reservation > 0 or number in file.promised
        ours = promised
        if not promised and file.confidential():
            return None
        if not promised and file.mount is not None:
            more = file.mount.get(1)
            if more is None:
                return None
            ours = more == 0
        node, allowed = wanted(self.buddy.nodes, file, index, pool.order, self.buddy.cpu)
        pfn = self.idle_near(pool, node, allowed) if ours or len(pool.idle) != pool.reserved else None
        if pfn is None and not file.confidential():
            pfn = self.surplus(pool, node, allowed)
        if pfn is None:
            if ours and not promised and file.mount is not None:
                self.forget(pool, file.mount.put(1))
            return None
        if pfn in pool.idle:
            pool.idle.remove(pfn)
        pool.reserved -= ours
        file.reservation -= file.reservation > 0
        if not file.confidential():
            file.promised.add(number)
        return HugePage(pool.order, pfn)

    def idle_near(self, pool: Pool, node: int, allowed: set[int] | None) -> int | None:
        """The newest idle page of the nearest allowed node that has one."""
        for near in self.buddy.nodes.nearest[node]:
            mine = [pfn for pfn in pool.idle if self.buddy.node_of(pfn) == near]
            if mine and (allowed is None or near in allowed):
                return mine[0]
        return None

    def surplus(self, pool: Pool, node: int, allowed: set[int] | None = None) -> int | None:
        """A page beyond the pool's size, if it may have one more."""
        pfn = self.huge(pool, node, allowed) if pool.surplus < pool.overcommit else None
        if pfn is not None:
            pool.nr_on[self.buddy.node_of(pfn)] += 1
            pool.surplus_on[self.buddy.node_of(pfn)] += 1
            if pool.hvo:
                self.optimize(pfn, pool.order)
        return pfn

    def promise(self, pool: Pool, pages: int, node: int = 0) -> bool:
        """So many pages are promised, with surplus ones where free ones are short; all or none."""
        new: list[int] = []
        while len(pool.idle) + len(new) < pool.reserved + pages:
            pfn = self.surplus(pool, node)
            if pfn is None:
                for got in reversed(new):
                    pool.surplus_on[self.buddy.node_of(got)] -= 1
                    self.free_or_keep(pool, got)
                return False
            new.append(pfn)
        pool.idle[:0] = new
        pool.reserved += pages
        return True

    def forget(self, pool: Pool, pages: int) -> None:
        """So many promises are not needed any more."""
        pool.reserved -= pages
        self.drop_surplus(pool, pages)

    def turn(self, at: int, nodes: set[int]) -> tuple[int, int]:
        """Whose turn it is, and whose the next time."""
        ring = sorted(nodes) * 3
        here = next((node for node in ring if node >= at), ring[0])
        return here, ring[ring.index(here) + 1]

    def all_nodes(self) -> set[int]:
        return set(range(self.buddy.nodes.count()))

    def pop_idle(self, pool: Pool, nodes: set[int], surplus: bool) -> int | None:
        """An idle page of the node whose turn it is to shrink; with `surplus`, of one that has surplus pages."""
        for _ in nodes:
            node, pool.shrinks_next = self.turn(pool.shrinks_next, nodes)
            mine = [pfn for pfn in pool.idle if self.buddy.node_of(pfn) == node]
            if mine and (pool.surplus_on[node] or not surplus):
                pool.idle.remove(mine[0])
                pool.surplus_on[node] -= surplus
                return mine[0]
        return None

    def drop_surplus(self, pool: Pool, most: int) -> None:
        leaving: list[int] = []
        while len(leaving) < most and pool.surplus:
            pfn = self.pop_idle(pool, self.all_nodes(), True)
            if pfn is None:
                break
            leaving.insert(0, pfn)
        self.let_go(pool, leaving)

    def let_go(self, pool: Pool, leaving: list[int]) -> None:
        """Pages leave the pool for free memory, as soon as all that can be have their page structs again."""
        while leaving:
            ready: list[int] = []
            while leaving and self.restore(pool, leaving[0]):
                ready.insert(0, leaving.pop(0))
            for pfn in ready:
                self.free_huge(pool, pfn)
            while leaving and not ready:
                if self.free_or_keep(pool, leaving.pop(0)):
                    break

    def free_or_keep(self, pool: Pool, pfn: int) -> bool:
        """A page leaves the pool, or comes back as a surplus one where its page structs cannot be restored."""
        if self.restore(pool, pfn):
            self.free_huge(pool, pfn)
            return True
        pool.surplus_on[self.buddy.node_of(pfn)] += 1
        pool.idle.insert(0, pfn)
        return False

    def free_huge(self, pool: Pool, pfn: int) -> None:
        """A page leaves the pool for free memory, block by block."""
        pool.nr_on[self.buddy.node_of(pfn)] -= 1
        for block in range(pfn, pfn + (1 << pool.order), BLOCK_PAGES):
            if pool.order == BLOCK_ORDER:
                self.buddy.free(block, BLOCK_ORDER)
            else:
                self.buddy.free_now(block, BLOCK_ORDER)

    def resize(self, pool: Pool, count: int, overcommit: int, node: int | None = None) -> None:
        """Surplus pages become the pool's own first; then it grows, or idle pages go; what is too much is surplus.

        The number may be that of one node.
        """
        pool.overcommit = overcommit
        nodes = self.all_nodes() if node is None else {node}
        if node is not None:
            count += pool.nr - pool.surplus - (pool.nr_on[node] - pool.surplus_on[node])
        while pool.surplus and pool.nr - pool.surplus < count and self.shift_surplus(pool, nodes, -1):
            pass
        self.grow(pool, count - (pool.nr - pool.surplus), pool.hvo, nodes)
        own, idle = pool.nr - pool.surplus, len(pool.idle)
        if idle > own:
            idle = max(0, idle - pool.surplus)  # surplus pages are idle, too
        least = max(count, pool.reserved + own - idle)
        leaving: list[int] = []
        while pool.nr - len(leaving) - pool.surplus > least:
            pfn = self.pop_idle(pool, nodes, False)
            if pfn is None:
                break
            leaving.insert(0, pfn)
        self.let_go(pool, leaving)
        while pool.nr - pool.surplus > count and self.shift_surplus(pool, nodes, 1):
            pass

    def shift_surplus(self, pool: Pool, nodes: set[int], step: int) -> bool:
        """One page of the node whose turn it is becomes surplus, or is it no longer."""
        for _ in nodes:
            if step > 0:
                node, pool.shrinks_next = self.turn(pool.shrinks_next, nodes)
                possible = pool.surplus_on[node] < pool.nr_on[node]
            else:
                node, pool.grows_next = self.turn(pool.grows_next, nodes)
                possible = pool.surplus_on[node] > 0
            if possible:
                pool.surplus_on[node] += step
                return True
        return False

    def give_back(self, file: File, huge: HugePage) -> None:
        """Free the restored page structs, put the page on top of its pool; guest_memfd gets its reservation back."""
        self.forget_structs(huge)
        pool = self.pools[huge.order]
        node = self.buddy.node_of(huge.pfn)
        if file.mount is not None and file.mount.put(1) == 0:
            pool.reserved += 1
        if pool.surplus_on[node] and not file.confidential():
            pool.surplus_on[node] -= 1
            self.free_or_keep(pool, huge.pfn)
            return
        pool.idle.insert(0, huge.pfn)
        if file.confidential():
            file.reservation += 1
            pool.reserved += 1

    def struct_frame(self, node: int) -> int | None:
        from oracle_effort import KERNEL, alloc_with  # which knows of memory

        return alloc_with(self, 0, UNMOVABLE, KERNEL, node)

    def demote(self, count: int, nodes: set[int]) -> tuple[int, int]:
        """Idle 1 GiB pages become 2 MiB pages, as long as not as many are idle on these nodes as are promised on all."""
        done = 0
        while done < count and self.giga_idle(nodes) != self.pools[GIGA_ORDER].reserved:
            error, pages = self.demote_nodes(count - done, nodes)
            done += pages
            if error:
                return error, done
        return 0, done

    def giga_idle(self, nodes: set[int]) -> int:
        return sum(self.buddy.node_of(pfn) in nodes for pfn in self.pools[GIGA_ORDER].idle)

    def demote_nodes(self, most: int, nodes: set[int]) -> tuple[int, int]:
        """All of one node before those of the next; EBUSY if there are none."""
        giga, done = self.pools[GIGA_ORDER], 0
        for _ in nodes:
            if done == most:
                break
            node, giga.shrinks_next = self.turn(giga.shrinks_next, nodes)
            mine = [pfn for pfn in giga.idle if self.buddy.node_of(pfn) == node][: most - done]
            restored: list[int] = []
            while len(restored) < len(mine) and self.restore(giga, mine[-1 - len(restored)]):
                restored.insert(0, mine[-1 - len(restored)])
            self.demote_restored(restored, node)
            done += len(restored)
            if len(restored) < len(mine):
                return errno.ENOMEM, done
        return (0 if done else errno.EBUSY), done

    def demote_restored(self, pages: list[int], node: int) -> None:
        """1 GiB pages become 512 of 2 MiB each, the lowest of the first to be used first; HVO begins with the last."""
        giga, small = self.pools[GIGA_ORDER], self.pools[BLOCK_ORDER]
        blocks = [block for pfn in pages for block in range(pfn, pfn + (1 << GIGA_ORDER), BLOCK_PAGES)]
        giga.idle = [pfn for pfn in giga.idle if pfn not in pages]
        giga.nr_on[node] -= len(pages)
        small.nr_on[node] += len(blocks)
        small.hvo = giga.hvo if pages else small.hvo
        small.idle[:0] = blocks
        for block in reversed(blocks) if giga.hvo else ():
            self.optimize(block, BLOCK_ORDER)

    def huge(self, pool: Pool, node: int, allowed: set[int] | None) -> int | None:
        """A huge page from free memory."""
        from oracle_contig import alloc_giga  # which knows of memory
        from oracle_effort import KERNEL, alloc_with

        if pool.order == GIGA_ORDER:
            return alloc_giga(self, node, allowed)
        return alloc_with(self, pool.order, MOVABLE, KERNEL | {"retry"}, node, allowed)

    def grow(self, pool: Pool, count: int, hvo: bool, nodes: set[int]) -> int:
        """More pages for the pool, nodes in turn; the newest is used last. Returns how many."""
        pool.hvo = hvo
        new: list[int] = []
        while len(new) < count:
            pfn = self.huge_interleaved(pool, nodes)
            if pfn is None:
                break
            new.append(pfn)
        for pfn in reversed(new) if hvo else ():
            self.optimize(pfn, pool.order)
        pool.nr_on.update(self.buddy.node_of(pfn) for pfn in new)
        pool.idle[:0] = new
        return len(new)

    def huge_interleaved(self, pool: Pool, nodes: set[int]) -> int | None:
        """A huge page of the node whose turn it is, or of the next that has one."""
        for _ in nodes:
            node, pool.grows_next = self.turn(pool.grows_next, nodes)
            pfn = self.huge(pool, node, {node})
            if pfn is not None:
                return pfn
        return None
