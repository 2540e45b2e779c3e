"""What can be seen of the oracle's files."""

from gmemlab.core.layout import BLOCK_PAGES
from oracle_files import File, Folio, Rmp


def observe_pages(file: File) -> dict[int, tuple[int, int, int, int, int]]:
    """(frame or 0, folio order or -1, shared, content, mapped) of every page that is present, shared or mapped."""
    seen: dict[int, tuple[int, int, int, int, int]] = {}
    for index in sorted(set(file.pages) | file.shared | file.mapped):
        page = file.pages.get(index)
        backing = (page.frame, page.folio.order, page.content) if page is not None else (0, -1, 0)
        seen[index] = (backing[0], backing[1], int(index in file.shared), backing[2], int(index in file.mapped))
    return seen


def observe_blocks(file: File) -> dict[int, tuple[int, int, int]]:
    """(mapped as a whole, history, inhibit) of every 2 MiB of file for which one of them is set."""
    return {
        block: (int(block in file.huge_mapped), int(block in file.history), int(block in file.inhibit))
        for block in sorted(file.huge_mapped | file.history | file.inhibit)
    }


def observe_states(file: File) -> dict[int, tuple[int, int]]:
    """(assigned by the RMP, accepted) of every page for which one of them holds."""
    assigned = {index for index, page in file.pages.items() if file.rmp is not None and page.frame in file.rmp.assigned}
    return {index: (int(index in assigned), int(index in file.accepted)) for index in sorted(assigned | file.accepted)}


def observe_entries(file: File) -> dict[int, tuple[int, int]]:
    """(one RMP entry, one-way mark) of every 2 MiB of file for which one of them is set."""
    whole = set() if file.rmp is None else file.rmp.whole
    blocks = {index // BLOCK_PAGES for index, page in file.pages.items() if page.frame // BLOCK_PAGES in whole}
    return {block: (int(block in blocks), int(block in file.one_way)) for block in sorted(blocks | file.one_way)}


def kept_entries(rmp: Rmp, orphans: list[Folio]) -> int:
    """Frames of orphans that the RMP still gives to a guest."""
    return len(rmp.assigned & {frame for folio in orphans for frame in folio.frames()})
