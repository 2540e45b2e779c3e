"""How the oracle's folios are given other frames, or split where they find none of their size."""

from gmemlab.core.layout import BLOCK_PAGES, KIND_ANON
from oracle_files import Folio
from oracle_guests import part_huge, tell_moves
from oracle_memory import Memory
from oracle_snp import move_entry
from oracle_split import split_to_pages


def is_mapped_in_part(folio: Folio) -> bool:
    """Whether pages of an anonymous folio were unmapped: it is split before it moves."""
    return folio.file.policy.kind == KIND_ANON and len(folio.members) < 1 << folio.order


def split(memory: Memory, folio: Folio) -> None:
    """Into base pages; zeros of anonymous memory are freed (L17)."""
    if folio.file.policy.kind == KIND_ANON:
        split_to_pages(memory, folio)
    else:
        memory.cut(folio, [(page, 0) for page in range(folio.index, folio.index + (1 << folio.order))])
        part_huge(folio.file, folio.index // BLOCK_PAGES, memory.counters)


def move(memory: Memory, folio: Folio, target: int) -> None:
    """Other frames for a folio; its old ones are nobody's."""
    tell_moves(
        folio.file,
        folio.index,
        list(zip(folio.frames(), range(target, target + (1 << folio.order)), strict=True)),
        memory.counters,
    )
    for pfn in folio.frames():
        del memory.users[pfn]
    folio.pfn = target
    for offset, pfn in enumerate(folio.frames()):
        memory.users[pfn] = folio
        move_entry(folio.file, folio.file.pages[folio.index + offset].frame, pfn)
        folio.file.pages[folio.index + offset].frame = pfn
        copied_by_firmware = folio.file.confidential() and folio.index + offset not in folio.file.shared
        memory.counters["firmware_copies"] += copied_by_firmware
    memory.counters["moved"] += 1 << folio.order
