"""The invariants of page states: RMP and S-EPT agree with who owns a page, and with how the guest maps it."""

from gmemlab.core import decisions, layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES, GUEST_SNP, GUEST_TDX, HUGE_MAPPED, RMP_WHOLE
from gmemlab.core.mapping import contiguous_block
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
    for slot in range(base, base + BLOCK_PAGES):
        page = state.pages[slot]
        assigned += int(page.assigned)
        accepted += int(page.accepted)
        if record.guest == GUEST_SNP:
            if page.accepted > page.assigned or page.mapped > page.assigned or (page.assigned and page.frame == 0):
                return False
            if page.shared and (page.accepted or (in_place and page.assigned)):
                return False
        elif page.assigned or (record.guest == GUEST_TDX and page.accepted > page.mapped):
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
