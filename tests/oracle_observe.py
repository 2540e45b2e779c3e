"""What can be seen of the oracle's files."""

from oracle_files import File


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
