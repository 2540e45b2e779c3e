"""The oracle's way to split anonymous folios: what is not mapped, and what is zeros, is freed (L16, L17)."""

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRESH
from oracle_files import Folio
from oracle_memory import Memory


def split_to_pages(memory: Memory, folio: Folio) -> bool:
    """Base pages; those that are not mapped, and zeros, are freed. A held folio stays."""
    if folio.order == 0:
        return False
    if folio.busy():
        memory.counters["split_failed"] += 1
        return False
    file = folio.file
    if folio.order == BLOCK_ORDER:
        memory.counters["split_punch"] += 1
        file.unseen.discard(folio.index // BLOCK_PAGES)
    file.tables.add(folio.index // BLOCK_PAGES)
    for offset, pfn in enumerate(folio.frames()):
        index = folio.index + offset
        if index in folio.members and file.pages[index].content != FRESH:
            piece = Folio(file, index, pfn, 0, None, {index}, folio.cleared)
            file.pages[index].folio = memory.users[pfn] = piece
        elif index in folio.members:
            del file.pages[index]
            folio.members.remove(index)
    for offset, pfn in enumerate(folio.frames()):
        if folio.index + offset not in folio.members:
            del memory.users[pfn]
            memory.buddy.free(pfn, 0)
    return True
