"""What the hardware of a guest makes of an access, in the oracle."""

import oracle_snp as snp
import oracle_tdx as tdx
from gmemlab.core.hardware.counts import PAGE_MOVE_2M, PAGE_MOVE_4K, RANGE_BLOCK, TRACK
from gmemlab.core.layout import ACCEPT_2M, ACCEPT_4K, BLOCK_PAGES, GUEST_GENERIC, GUEST_SNP, GUEST_TDX
from oracle_files import File
from oracle_mapping import mend, shatter, zap_huge


def touch_block(file: File, pages: list[int], accept: int, counters: dict[str, int]) -> None:
    """What the hardware makes of an access to pages of one block."""
    if file.guest == GUEST_SNP:
        snp.access(file, pages, accept, counters)
    elif file.guest == GUEST_TDX:
        tdx.access(file, pages, accept, counters)


def tell_moves(file: File, base: int, frames: list[tuple[int, int]], counters: dict[str, int]) -> None:
    """What the hardware is told of pages from index `base` on that move, from frame to frame, before they do (K16, G87)."""
    if not file.confidential():
        return
    block, whole = base // BLOCK_PAGES, len(frames) == BLOCK_PAGES
    if not whole:
        part_huge(file, block, counters)
    if file.guest == GUEST_SNP and whole and snp.has_one_entry(file, block):
        snp.move_whole(file, frames[0][0] // BLOCK_PAGES, frames[0][1] // BLOCK_PAGES)
    elif file.guest == GUEST_SNP:
        snp.note_moves(file, frames)
    elif file.guest == GUEST_TDX:
        huge = block in file.huge_mapped
        moved = 1 if huge else len(file.mapped & set(range(base, base + len(frames))))
        for operation in (RANGE_BLOCK, TRACK, PAGE_MOVE_2M if huge else PAGE_MOVE_4K):
            file.note(operation, moved)


def part_huge(file: File, block: int, counters: dict[str, int]) -> None:
    """A part of 2 MiB moves alone: one entry is smashed, one mapping is split or zapped."""
    if file.guest == GUEST_SNP and snp.has_one_entry(file, block):
        snp.smash(file, block)
    if block in file.huge_mapped:
        if file.guest == GUEST_TDX:
            tdx.demote(file, block, "shattered_move", counters)
        elif file.guest == GUEST_GENERIC:
            shatter(file, block, "shattered_move", counters)
        else:
            zap_huge(file, block, "shattered_move", counters)
            mend(file, block, counters)


def ask_for_accepts(file: File, first: int, end: int, accept: int) -> None:
    """Before it accepts pages, an SNP guest asks for their state; those in front of the first shared one."""
    stop = min([index for index in range(first, end) if index in file.shared], default=end)
    if file.guest == GUEST_SNP and accept in (ACCEPT_4K, ACCEPT_2M):
        snp.request_accepts(file, first, stop, accept)
