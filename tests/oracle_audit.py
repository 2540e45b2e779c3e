"""The oracle's own invariants, each counted anew from the plainest evidence."""

from collections import Counter

from gmemlab.core.layout import BLOCK_PAGES, FRESH, GIGA_ORDER, KIND_HUGETLB
from oracle_files import File, Folio, Mount
from oracle_mapping import block_pages
from oracle_memory import Memory


def check(memory: Memory, files: dict[int, File], mounts: list[Mount]) -> None:
    """Every frame has exactly one owner; folios, mappings, holds, pools and free lists are consistent."""
    folios: dict[Folio, None] = {}
    for file in files.values():
        check_file(file)
        folios.update(dict.fromkeys(page.folio for page in file.pages.values()))
    check_owners(memory, list(folios))
    check_holds(memory, files, list(folios))
    check_pools(memory, files, list(folios), mounts)
    assert all(count >= 0 for count in memory.counters.values())


def check_owners(memory: Memory, folios: list[Folio]) -> None:
    owners: Counter[int] = Counter()
    owners.update(memory.buddy.check())
    owners.update(memory.reserved)
    for pool in memory.pools.values():
        for pfn in pool.idle:
            owners.update(range(pfn, pfn + (1 << pool.order)))
    used: dict[int, Folio] = {}
    for folio in folios + memory.orphans:
        owners.update(folio.frames())
        used.update(dict.fromkeys(folio.frames(), folio))
    assert used == memory.users
    huge_pages = {folio.huge: None for folio in folios + memory.orphans if folio.huge is not None}
    for chain in memory.chains.values():
        owners.update(chain)
    for huge in huge_pages:
        for chain in huge.chains.values():
            owners.update(chain)
    assert all(count == 1 for count in owners.values()), "a frame has two owners"
    blocks = [b for b in range(1, memory.buddy.nr_blocks + 1) if memory.buddy.zone_of_block(b) is not None]
    managed = {b * BLOCK_PAGES + offset for b in blocks for offset in range(BLOCK_PAGES)}
    assert set(owners) | memory.reserved == managed | memory.reserved, "a frame has no owner"


def check_file(file: File) -> None:
    for index, page in file.pages.items():
        folio = page.folio
        assert 0 <= index < file.size
        assert folio.file is file
        assert index in folio.members
        assert index - folio.index in range(1 << folio.order)
        assert page.frame - folio.pfn == index - folio.index
        assert folio.index % (1 << folio.order) == 0
        assert folio.pfn % (1 << folio.order) == 0
        assert not (folio.cleared and page.content == FRESH)
        assert not (file.in_place() and index in file.shared and folio.order > 0), "a shared page in a large folio"
    assert all(0 <= index < file.size for index in file.shared)
    assert file.host_mapped <= file.shared & set(file.pages), "the host maps something private, or absent"
    assert file.in_place() or not file.host_mapped
    assert file.mapped <= set(file.pages)
    if not file.in_place():
        assert not file.mapped & file.shared
    for block in file.huge_mapped:
        assert block_pages(block) <= file.mapped
        assert not block_pages(block) & file.shared
    mapped_blocks = {index // BLOCK_PAGES for index in file.mapped}
    assert file.huge_mapped | file.history == mapped_blocks
    assert not file.huge_mapped & file.history
    assert file.inhibit <= {index // BLOCK_PAGES for index in file.pages}


def check_holds(memory: Memory, files: dict[int, File], folios: list[Folio]) -> None:
    pins: Counter[Folio] = Counter()
    references: Counter[Folio] = Counter()
    for file in files.values():
        for hold in file.holds:
            (pins if hold.pin else references).update(hold.folios)
    for folio in folios + memory.orphans:
        assert (folio.pins, folio.references) == (pins[folio], references[folio])
    assert set(pins) | set(references) <= set(folios) | set(memory.orphans), "a hold on a folio that is gone"
    assert all(folio.busy() and not folio.members for folio in memory.orphans)


def check_pools(memory: Memory, files: dict[int, File], folios: list[Folio], mounts: list[Mount]) -> None:
    in_use = {folio.huge: None for folio in folios + memory.orphans if folio.huge is not None}
    for order, pool in memory.pools.items():
        assert pool.nr == len(pool.idle) + sum(1 for huge in in_use if huge.order == order)
        mine = [file for file in files.values() if file.from_pool() and file.policy.sizes[0] == order]
        kept = sum(mount.kept for mount in mounts if mount.pool is pool)
        assert pool.reserved == kept + sum(file.outstanding() for file in mine)
        assert pool.order == GIGA_ORDER or pool.reserved <= len(pool.idle)  # of 1 GiB pages, demotion takes promised ones
        for node in memory.all_nodes():
            held = [pfn for pfn in pool.idle if memory.buddy.node_of(pfn) == node]
            held += [huge.pfn for huge in in_use if huge.order == order and memory.buddy.node_of(huge.pfn) == node]
            assert pool.nr_on[node] == len(held) and pool.surplus_on[node] >= 0
            assert pool.surplus_on[node] <= pool.nr_on[node] or pool.hvo
        assert pool.surplus <= pool.nr
    for file in files.values():
        present = {index // file.unit() for index in file.pages}
        assert present <= file.promised if file.policy.kind == KIND_HUGETLB else not file.promised
