"""Faults to seed into core/, one at a time, and the short tests that notice them.

`test_seeded_faults.py` applies them to copies of the package. To add one, add a row to `FAULTS`.
"""

from typing import Final

from fault import Fault

ALLOCATOR: Final = "tests/test_oracle_allocator.py::test_"
ORACLE: Final = "tests/test_oracle.py::test_"
CONVERSION: Final = "tests/test_oracle_conversion.py::test_"
TYPES: Final = "tests/test_oracle_types.py::test_"
RECLAIM: Final = "tests/test_oracle_reclaim.py::test_"
SHRINKER: Final = "tests/test_oracle_shrinker.py::test_"
CPUS: Final = "tests/test_oracle_cpus.py::test_"
DAEMONS: Final = "tests/test_oracle_daemons.py::test_"
NODES: Final = "tests/test_oracle_nodes.py::test_"
SNP: Final = "tests/test_oracle_snp.py::test_"
TDX: Final = "tests/test_oracle_tdx.py::test_"
HOSTMAP: Final = "tests/test_oracle_hostmap.py::test_"
MOVES: Final = "tests/test_oracle_moves.py::test_"
HUGETLB: Final = "tests/test_oracle_hugetlb.py::test_"
GAME: Final = "tests/short_game.py::test_short_game"

FAULTS: Final = (
    Fault(
        "a page leaves its contents behind",
        "mapping.py",
        "        put_content(state, slot, layout.FRESH)\n        state.page_frames[slot] = 0\n",
        "        state.page_frames[slot] = 0\n",
        (f"{ORACLE}pages_that_come_back_are_fresh[core-1]",),
    ),
    Fault(
        "a page that leaves alone stays assigned",
        "operations/drop.py",
        "        rmp.leave_base_page(state, file, row, index, pfn)\n",
        "        pass\n",
        ("tests/test_oracle_snp.py::test_snp_base_pages_leave_one_by_one[core-1]",),
    ),
    Fault(
        "a page that leaves alone stays mapped by its VMM",
        "operations/punch.py",
        "    unmap_from_host(state, file, row, index, index + 1)\n",
        "",
        (f"{HOSTMAP}mapping_goes_with_a_page_that_is_punched_alone[core]",),
    ),
    Fault(
        "a page that leaves alone stays mapped by its guest",
        "operations/punch.py",
        "    unmap(state, file, row, index, index + 1, CAUSE_PUNCH)\n",
        "",
        (f"{ORACLE}one_page_at_a_time[core-0]",),
    ),
    Fault(
        "the last page that leaves alone leaves its details behind",
        "operations/punch.py",
        "    if state.file_blocks[row].nr_present == 0:\n        settle(state, file, index)\n\n",
        "\n",
        ("tests/core/test_page_details.py::test_details_go_with_the_last_page_that_comes_or_goes_alone",),
    ),
    Fault(
        "the last page that comes alone leaves details",
        "operations/populate.py",
        "        settle(state, file, index)\n    return 0\n",
        "        pass\n    return 0\n",
        ("tests/core/test_page_details.py::test_details_go_with_the_last_page_that_comes_or_goes_alone",),
    ),
    Fault(
        "kswapd waits until a chunk of base pages is full",
        "operations/populate.py",
        "1 if host.calls_kswapd else most",
        "most",
        (f"{RECLAIM}kswapd_has_its_turn_between_base_pages[core]",),
    ),
    Fault(
        "a page that is there is allocated once more",
        "operations/populate.py",
        "    if frame_of(state, row, index):\n        return 0\n    pfn, _ =",
        "    pfn, _ =",
        (f"{ORACLE}one_page_at_a_time[core-0]",),
    ),
    Fault(
        "unmovable memory comes from CMA blocks",
        "buddy.py",
        "if migratetype == MOVABLE and state.zones[zone].free_cma > 0:",
        "if state.zones[zone].free_cma > 0:",
        (f"{TYPES}unmovable_memory_never_gets_cma[core]",),
    ),
    Fault(
        "a CMA block merges with an ordinary one",
        "buddy.py",
        "free and other.zone == zone and may_merge(int(other.migratetype), migratetype):",
        "free and other.zone == zone:",
        (f"{TYPES}cma_and_ordinary_blocks_do_not_merge[core]",),
    ),
    Fault(
        "kswapd stops at the low watermark",
        "daemons/reclaim.py",
        "- (1 << order) >= state.zones[zone].high:",
        "- (1 << order) >= state.zones[zone].low:",
        (f"{RECLAIM}kswapd_reclaims_up_to_the_high_watermark[core]",),
    ),
    Fault(
        "reclaim drops what is held",
        "daemons/reclaim.py",
        "kind <= highest and folio_busy(state, pfn) == 0",
        "kind <= highest",
        (f"{RECLAIM}the_hand_goes_round_and_leaves_what_is_held[core]",),
    ),
    Fault(
        "the shrinker forgets what it left undone",
        "daemons/shrinker.py",
        "record.nr_deferred = min(max(deferred + delta - scanned, 0), 2 * freeable)",
        "record.nr_deferred = 0",
        (f"{SHRINKER}how_much_is_looked_at[core]",),
    ),
    Fault(
        "a huge page is looked at without being on the queue any less",
        "underused.py",
        "    dequeue_whole(state, pfn >> BLOCK_ORDER)\n    if block.detail == 0:",
        "    if block.detail == 0:",
        (f"{SHRINKER}huge_pages_of_zeros_are_looked_at_once[core]",),
    ),
    Fault(
        "an RMP entry is not smashed when a part of it is made shared",
        "hardware/rmp.py",
        "    if hardware.marks & RMP_WHOLE and not whole:\n        smash(state, file, row)\n",
        "",
        (f"{SNP}snp_small_part_of_a_huge_page_leaves[core]",),
    ),
    Fault(
        "a 4 KiB accept leaves no one-way mark",
        "hardware/tdx.py",
        "        demote(state, file, row, CAUSE_ACCEPT)\n        state.hardware[row].marks |= ONE_WAY\n",
        "        demote(state, file, row, CAUSE_ACCEPT)\n",
        (f"{TDX}tdx_accept_smaller_than_the_mapping[core]",),
    ),
    Fault(
        "a 2 MiB entry is made over small ones",
        "hardware/snp.py",
        "if hardware.nr_assigned == 0 and term != layout.TERM_FOLIO and term != layout.TERM_SLOT:",
        "if term != layout.TERM_FOLIO and term != layout.TERM_SLOT:",
        (f"{SNP}snp_launch_image_is_small_and_validated[core]",),
    ),
    Fault(
        "a conversion that is refused leaves the VMM its mapping",
        "operations/convert.py",
        "        unmap_range_from_host(state, file, index, stop)\n        busy = first_busy(state, file, index, stop)\n",
        "        busy = first_busy(state, file, index, stop)\n",
        (f"{HOSTMAP}conversion_that_is_refused_takes_them_away_as_well[core]",),
    ),
    Fault(
        "a page that moves leaves the kernel's mapping of its target whole",
        "hardware/moves.py",
        "        split_direct_map(state, file, target)\n",
        "",
        (f"{MOVES}snp_collapse_moves_every_page_that_is_assigned[core]",),
    ),
    Fault(
        "a buddy of another order is merged",
        "buddy.py",
        "if frame.kind != FRAME_FREE or frame.order != order:",
        "if frame.kind != FRAME_FREE:",
        (f"{ALLOCATOR}only_buddies_of_one_order_merge[core]", f"{GAME}[4k-1]"),
    ),
    Fault(
        "a block is claimed for its free pages only",
        "buddy.py",
        "if pages_alike(state, block, migratetype, missing) >= missing:",
        "if missing == 0:",
        (f"{ALLOCATOR}block_is_claimed_with_the_help_of_pages_alike[core]",),
    ),
    Fault(
        "pages of guest_memfd are no movable ones where a block is claimed",
        "lru.py",
        "return bool(policy.movable or (record.kind != KIND_HOST and policy.source != SOURCE_POOL))",
        "return bool(policy.movable)",
        (f"{ALLOCATOR}pages_of_guest_memfd_count_as_movable_ones[core-kind0-1]",),
    ),
    Fault(
        "a CPU gives back its newest pages",
        "pcp.py",
        "free_at_once(state, unkeep(state, row, index, True), order)",
        "free_at_once(state, unkeep(state, row, index, False), order)",
        (f"{CPUS}a_full_list_gives_its_oldest_back[core]",),
    ),
    Fault(
        "a CPU hands out its oldest page",
        "pcp.py",
        "    return unkeep(state, row, index, False)\n",
        "    return unkeep(state, row, index, True)\n",
        (f"{CPUS}what_was_freed_last_comes_back_first_and_merges_with_nothing[core]",),
    ),
    Fault(
        "only the first type to fall back to is tried",
        "buddy.py",
        "for choice in range(2):",
        "for choice in range(1):",
        (f"{ORACLE}fresh_blocks_ascend_and_turn_unmovable[core]",),
    ),
    Fault(
        "a chunk that may merge soon goes to the head",
        "buddy.py",
        "order, merge_likely(state, block, base, offset, order))",
        "order, False)",
        (f"{ORACLE}chunk_whose_buddy_may_merge_soon_goes_to_the_tail[core]",),
    ),
    Fault(
        "a busy folio is split by a punch",
        "decisions.py",
        "if busy == 0:",
        "if busy >= 0:",
        (f"{ORACLE}pinned_shmem_folio_is_zeroed_piece_by_piece[core]",),
    ),
    Fault(
        "stale pages are not counted",
        "operations/punch.py",
        "state.tally[layout.TALLY_STALE_PAGES] += end - begin",
        "state.tally[layout.TALLY_STALE_PAGES] += 0",
        (f"{ORACLE}failed_split_of_a_dirty_private_folio_leaves_stale_pages[core]",),
    ),
    Fault(
        "a file's end does not limit its folios",
        "operations/populate.py",
        "base + (1 << order) <= state.files[file].pages and ",
        "",
        (f"{ORACLE}huge_range_past_the_end_falls_back[core]",),
    ),
    Fault(
        "folios go as they lie in a hole",
        "operations/punch.py",
        "if begin >= stop:",
        "if begin >= first:",
        (f"{CPUS}folios_that_are_punched_as_a_whole_go_first[core]",),
    ),
    Fault(
        "what a hole cuts off goes page by page",
        "operations/split.py",
        "leaves = keep and cause == layout.CAUSE_PUNCH",
        "leaves = False",
        (f"{CPUS}pieces_of_what_is_punched_are_freed_as_they_are[core]",),
    ),
    Fault(
        "pinned pages become private",
        "operations/convert.py",
        "if busy < stop:",
        "if busy < index:",
        (f"{CONVERSION}pinned_page_stops_the_conversion_to_private[core]",),
    ),
    Fault(
        "a folio is not split before it is shared",
        "operations/convert.py",
        "split_folio(state, file, index, index, stop, CAUSE_CONVERT)",
        "pass",
        (f"{CONVERSION}held_folio_is_not_split_for_sharing[core]",),
    ),
    Fault(
        "a shattered mapping leaves no history",
        "guestmap.py",
        "| HISTORY | SHATTERED",
        "| SHATTERED",
        (f"{CONVERSION}merged_backing_does_not_heal_the_mapping[core]",),
    ),
    Fault(
        "HVO saves one frame too few",
        "vmemmap.py",
        "SAVED_FRAMES: Final = STRUCT_FRAMES - 1",
        "SAVED_FRAMES: Final = STRUCT_FRAMES - 2",
        (f"{HUGETLB}split_restores_page_structs_of_2m[core]",),
    ),
    Fault(
        "a punched huge page is not promised to its file again",
        "pools.py",
        "        state.files[file].reserved += 1\n        pool.reserved += 1\n",
        "        state.files[file].reserved += 1\n",
        (f"{GAME}[hugetlb-2m-2]",),
    ),
    Fault(
        "bound memory comes from any node",
        "nodes.py",
        "(allowed == 0 or (allowed >> int(",
        "(allowed >= 0 or (allowed >> int(",
        (f"{NODES}bound_memory_goes_nowhere_else[core]",),
    ),
    Fault(
        "blocks are kept unmixed on other nodes first",
        "nodes.py",
        "if effort == UNMIXED and state.zones[zone].node != wanted:",
        "if effort == UNMIXED and state.zones[zone].node == -1:",
        (f"{NODES}locality_matters_more_than_unmixed_blocks",),
    ),
    Fault(
        "a page that is given back pays for surplus of another node",
        "pools.py",
        "elif state.node_pools[part_of(order, node)].surplus:",
        "elif pool.surplus:",
        (f"{NODES}pages_are_taken_near_and_bound_files_take_surplus[core]",),
    ),
    Fault(
        "a mount keeps nothing for its files",
        "subpools.py",
        "    record.rsv_hpages += kept\n",
        "    kept = 0\n",
        (f"{NODES}a_mount_limits_and_keeps[core]",),
    ),
    Fault(
        "movable frames are not counted",
        "operations/populate.py",
        "record.nr_movable += pages\n",
        "record.nr_movable += 0\n",
        (f"{GAME}[4k-1]", f"{GAME}[ladder-2]"),
    ),
    Fault(
        "the last pin does not free an orphan",
        "operations/pin.py",
        "if record.kind == ORPHAN:",
        "if record.kind < 0:",
        (f"{ORACLE}exact_punch_removes_a_pinned_folio[core]",),
    ),
    Fault(
        "two chunks of 2 MiB merge across a zone's border",
        "buddy.py",
        "free and other.zone == zone and may_merge",
        "free and may_merge",
        (f"{ALLOCATOR}chunks_do_not_merge_across_zones[core]",),
    ),
    Fault(
        "khugepaged does not count what it looked at",
        "daemons/khugepaged.py",
        "daemons.progress += BLOCK_PAGES",
        "daemons.progress += 0",
        (f"{DAEMONS}pages_to_scan_bounds_each_wake[core]",),
    ),
    Fault(
        "khugepaged takes pinned pages",
        "daemons/khugepaged.py",
        "elif folio_busy(state, pfn):",
        "elif folio_busy(state, pfn) < 0:",
        (f"{DAEMONS}pinned_pages_are_skipped[core]",),
    ),
    Fault(
        "khugepaged fills one hole too many",
        "decisions.py",
        "return holes <= max_ptes_none",
        "return holes <= max_ptes_none + 1",
        (f"{DAEMONS}holes_are_filled_up_to_max_ptes_none[core-60-61]",),
    ),
    Fault(
        "a cursor stays in a file that is gone",
        "daemons/register.py",
        "        daemons.file = after\n",
        "        daemons.file = file\n",
        (f"{DAEMONS}files_are_scanned_in_the_order_in_which_they_came[core]",),
    ),
    Fault(
        "proactive compaction does not wait when it wins nothing",
        "daemons/kcompactd.py",
        "return KCOMPACTD_INTERVAL if won else",
        "return KCOMPACTD_INTERVAL if won or not won else",
        (f"{DAEMONS}proactive_compaction_that_wins_nothing_waits[core]",),
    ),
    Fault(
        "kcompactd is told nothing by failed allocations",
        "daemons/register.py",
        "    if order == 0:\n",
        "    if order >= 0:\n",
        (f"{DAEMONS}failed_allocations_wake_kcompactd[core]",),
    ),
    Fault(
        "kswapd leaves the hints of compaction",
        "daemons/reclaim.py",
        "            reset_isolation_suitable(state, zone)\n",
        "            pass\n",
        ("tests/test_oracle_compaction.py::test_kswapd_clears_hints_after_the_scanners_met[core]",),
    ),
    Fault(
        "compaction looks at every frame behind a block without targets",
        "daemons/free_scanner.py",
        "min(CLUSTER, stride << 1)",
        "1",
        ("tests/test_oracle_compaction.py::test_target_scan_strides_over_holes_behind_a_block_without_any[core]",),
    ),
    Fault(
        "proactive compaction goes on below its low watermark",
        "daemons/fragmentation.py",
        "return wmark_low if low else",
        "return 0 if low else",
        (f"{DAEMONS}proactive_compaction_between_its_watermarks[core]",),
    ),
)
