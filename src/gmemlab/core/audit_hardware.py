"""The invariants of page states: RMP and S-EPT agree with who owns a page, and with how the guest maps it."""

from gmemlab.core import decisions, layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES, GUEST_SNP, GUEST_TDX, HUGE_MAPPED, RMP_WHOLE
from gmemlab.core.mapping import contiguous_block, frame_of
from gmemlab.core.page_details import ACCEPTED, ASSIGNED, MAPPED, SHARED, has_mark
from gmemlab.core.state import State

BROKEN = 33


@jit
def audit_bits(state: State, file: int, row: int) -> bool:
    """Whether the bits of a file block that has page details are possible, and add up.

    SNP: what is validated is assigned, what is assigned is present, what is mapped is assigned, and what is shared in place is
    none of it. TDX: what is accepted is mapped. A guest without such hardware has neither.
    """
    record = state.files[file]
    in_place = decisions.shares_in_place(state.policies[record.policy])
    base = int(state.file_blocks[row].detail) * BLOCK_PAGES
    assigned, accepted = 0, 0
    for offset in range(BLOCK_PAGES):
        slot = base + offset
        is_mapped, is_shared = has_mark(state, slot, MAPPED), has_mark(state, slot, SHARED)
        is_assigned, is_accepted = has_mark(state, slot, ASSIGNED), has_mark(state, slot, ACCEPTED)
        assigned += is_assigned
        accepted += is_accepted
        if record.guest == GUEST_SNP:
            if is_accepted > is_assigned or is_mapped > is_assigned or (is_assigned and frame_of(state, row, offset) == 0):
                return False
            if is_shared and (is_accepted or (in_place and is_assigned)):
                return False
        elif is_assigned or (record.guest == GUEST_TDX and is_accepted > is_mapped):
            return False
    hardware = state.hardware[row]
    return bool(assigned == hardware.nr_assigned and accepted == hardware.nr_accepted)


@jit
def audit_counts(state: State, file: int, row: int) -> bool:
    """Whether the counts of a file block without page details are possible: all of it, or none."""
    hardware = state.hardware[row]
    block = state.file_blocks[row]
    if hardware.nr_assigned not in (0, BLOCK_PAGES) or hardware.nr_accepted not in (0, BLOCK_PAGES):
        return False
    if state.files[file].guest == GUEST_SNP:
        possible = hardware.nr_accepted <= hardware.nr_assigned <= block.nr_present and block.nr_mapped <= hardware.nr_assigned
        return bool(possible and (block.nr_shared == 0 or hardware.nr_accepted == 0))
    return bool(hardware.nr_assigned == 0 and hardware.nr_accepted <= block.nr_mapped)


@jit
def count_kept(state: State, block: int) -> int:
    """Frames of orphans in a host block that the RMP gives to a guest."""
    record = state.blocks[block]
    if record.kind == layout.ORPHAN:
        return BLOCK_PAGES if record.assigned < 0 else int(record.assigned)
    if record.kind != layout.SPLIT:
        return 0
    base = int(record.detail) * BLOCK_PAGES
    found = 0
    for slot in range(base, base + BLOCK_PAGES):
        found += int(state.frames[slot].index) if state.frames[slot].kind == layout.FRAME_ORPHAN else 0
    return found


@jit
def audit_orphans(state: State) -> tuple[int, int]:
    """Hold the number of orphans' frames that are assigned against the orphans."""
    kept = 0
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        kept += count_kept(state, block)
    return (0, 0) if kept == state.host[0].kept_entries else (BROKEN, 0)


@jit
def audit_states(state: State, file: int, row: int) -> int:
    """Check the page states of one file block. Returns the rule that is broken, or 0."""
    hardware = state.hardware[row]
    block = state.file_blocks[row]
    guest = state.files[file].guest
    fine = audit_bits(state, file, row) if block.detail else audit_counts(state, file, row)
    if not fine or hardware.marks & layout.ZAPPED:
        return BROKEN
    if hardware.marks & RMP_WHOLE and (hardware.nr_assigned != BLOCK_PAGES or contiguous_block(state, row) == 0):
        return BROKEN
    if guest == GUEST_SNP and block.marks & HUGE_MAPPED and hardware.marks & RMP_WHOLE == 0:
        return BROKEN
    if not decisions.accepts(int(guest)) and (hardware.marks or hardware.nr_accepted):
        return BROKEN
    return 0
