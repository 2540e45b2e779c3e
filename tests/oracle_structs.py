"""Page structs of the oracle's huge pages: the frames that HVO frees, and those that are taken again (K5, C25)."""

from gmemlab.core.layout import BLOCK_PAGES
from oracle_files import HugePage, Pool
from oracle_page_alloc import PageAllocator


class PageStructs:
    """What the host's memory (`oracle_memory`) knows of them."""

    buddy: PageAllocator
    reserved: set[int]
    chains: dict[int, list[int]]  # by block: frames from free memory that hold page structs of whole pages

    def struct_frame(self, node: int) -> int | None:
        """A frame for page structs, of this node first."""
        raise NotImplementedError

    def restore_structs(self, huge: HugePage, wanted: dict[int, int]) -> bool:
        """Allocate frames for page structs that HVO had freed, so many for each block (G74); all or none."""
        got: list[tuple[int, int]] = []
        for block in [block for block, count in wanted.items() for _ in range(count)]:
            pfn = self.struct_frame(self.buddy.node_of(block))
            if pfn is None:
                for _, frame in reversed(got):
                    self.buddy.free(frame, 0)
                return False
            got.append((block, pfn))
        for block, pfn in got:
            huge.chains.setdefault(block, []).append(pfn)
        return True

    def forget_structs(self, huge: HugePage) -> None:
        """Free all restored frames, block by block, the oldest of each first."""
        for block in sorted(huge.chains):
            for pfn in huge.chains[block]:
                self.buddy.free(pfn, 0)
        huge.chains = {}

    def optimize(self, pfn: int, order: int) -> None:
        """HVO frees the frames of a huge page's page structs but the first: restored ones, oldest first, then boot's."""
        for block in range(pfn, pfn + (1 << order), BLOCK_PAGES):
            place = BLOCK_PAGES + 8 * (block // BLOCK_PAGES)
            boot = [frame for frame in range(place, place + 8) if frame in self.reserved]
            chain = self.chains.pop(block, [])
            assert len(boot + chain) == 8
            kept = (boot + chain)[: block == pfn]
            for frame in chain:
                if frame not in kept:
                    self.buddy.free(frame, 0)
            for frame in boot:
                if frame not in kept:
                    self.reserved.remove(frame)
                    self.buddy.free(frame, 0)
            self.chains.update({block: kept} if chain and kept == chain[:1] else {})

    def restore(self, pool: Pool, pfn: int) -> bool:
        """A whole page of the pool has all of its page structs again; False, and nothing taken, if short."""
        page = HugePage(pool.order, pfn)
        blocks = range(pfn, pfn + (1 << pool.order) if pool.hvo else pfn, BLOCK_PAGES)
        if not self.restore_structs(page, {block: 7 if block == pfn else 8 for block in blocks}):
            return False
        for block, chain in page.chains.items():
            self.chains.setdefault(block, []).extend(chain)
        return True
