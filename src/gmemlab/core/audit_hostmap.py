"""The invariants of what VMMs map: shared pages that are present, and nothing private (G45)."""

from gmemlab.core import decisions
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES, KIND_GUEST_MEMFD
from gmemlab.core.mapping import frame_of
from gmemlab.core.page_details import HOST_MAPPED, SHARED, has_mark
from gmemlab.core.state import State

MAPPED_FOR_HOST = 35


@jit
def audit_host_mappings(state: State, file: int, row: int) -> int:
    """Check one file block. Returns the rule that is broken, or 0."""
    record = state.files[file]
    block = state.file_blocks[row]
    count = int(block.nr_host_mapped)
    in_place = record.kind == KIND_GUEST_MEMFD and decisions.shares_in_place(state.policies[record.policy])
    if count and not in_place:
        return MAPPED_FOR_HOST
    if block.detail == 0:
        possible = count == 0 or (count == BLOCK_PAGES and block.nr_shared == BLOCK_PAGES and block.nr_present == BLOCK_PAGES)
        return 0 if possible else MAPPED_FOR_HOST
    base = int(block.detail) * BLOCK_PAGES
    for offset in range(BLOCK_PAGES):
        is_mapped = has_mark(state, base + offset, HOST_MAPPED)
        count -= is_mapped
        if is_mapped and (frame_of(state, row, offset) == 0 or not has_mark(state, base + offset, SHARED)):
            return MAPPED_FOR_HOST
    return MAPPED_FOR_HOST if count else 0
