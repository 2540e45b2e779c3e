"""What can be seen of the oracle."""

from gmemlab.core.layout import BLOCK_PAGES
from oracle_files import File, Folio, Mount, Observation, Pool, Rmp
from oracle_memory import Memory
from oracle_scanners import scanners_of


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


def observe(memory: Memory, files: dict[int, File], mounts: list[Mount | None]) -> Observation:
    """Everything that two implementations must agree on."""
    free = {
        (zone, mt, order): list(pfns)
        for zone, by_type in enumerate(memory.buddy.lists)
        for mt, by_order in enumerate(by_type)
        for order, pfns in enumerate(by_order)
        if pfns
    }
    deferred = {pfn for pfn, folio in memory.users.items() if folio.members} - {
        page.frame for file in files.values() for page in file.pages.values()
    }
    return {
        "free": free,
        "kept": memory.buddy.kept(),
        "blocktypes": list(memory.buddy.blocktype),
        "files": {file.id: observe_pages(file) for file in files.values()},
        "blocks": {file.id: observe_blocks(file) for file in files.values()},
        "pools": {order: observe_pool(memory, pool) for order, pool in memory.pools.items()},
        "promised": {file.id: sorted(file.promised) for file in files.values()},
        "orphans": sorted(pfn for folio in memory.orphans for pfn in folio.frames()),
        "deferred": sorted(deferred),
        "queues": [
            (memory.shrinker.undone[node], [folio.pfn for folio in memory.shrinker.queue(node)])
            for node in sorted(memory.all_nodes())
        ],
        "scanners": [scanners_of(memory, zone).seen() for zone in range(len(memory.buddy.zones))],
        "skipped": sorted(block for scanners in memory.scanners.values() for block in scanners.skip),
        "counters": {**memory.counters, "missed_pages": memory.buddy.nodes.missed_pages},
        "boosts": list(memory.buddy.boost),
        "nodes": memory.buddy.nodes.observe(),
        "mounts": [(mount.used, mount.kept) for mount in mounts if mount is not None],
        "page_states": {file.id: observe_states(file) for file in files.values()},
        "entries": {file.id: observe_entries(file) for file in files.values()},
        "kept_entries": kept_entries(memory.rmp, memory.orphans),
        "operations": {key: count for key, count in memory.operations.items() if count},
        "direct": sorted(memory.rmp.direct),
        "hazards": {key: pages for key, pages in memory.hazards.items() if pages},
        "host_mapped": {file.id: sorted(file.host_mapped) for file in files.values()},
    }


def observe_pool(memory: Memory, pool: Pool) -> tuple[int, int, int, list[int], list[tuple[int, int]]]:
    """Pages in all, idle, promised; the idle ones by node; pages and surplus ones of each node."""
    idle = sorted(pool.idle, key=memory.buddy.node_of)
    parts = [(pool.nr_on[node], pool.surplus_on[node]) for node in range(memory.buddy.nodes.count())]
    return pool.nr, len(idle), pool.reserved, idle, parts
