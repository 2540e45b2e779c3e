"""From a file's pages to frames: file blocks, and the page details of those that are not uniform.

A file block without details is uniform: none or all of its pages are present (in the 512 frames of one host block, in
order), none or all are shared, mapped (by the guest, or by the VMM), and of one content. Details open when that stops being
true, and settle when it is true again. Counts in the block record are exact in both forms.
"""

from gmemlab.core import layout
from gmemlab.core.frames import settle_block
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, STALE, UNSPECIFIED, USED, ZEROED
from gmemlab.core.page_details import (
    ACCEPTED,
    ASSIGNED,
    CONTENT,
    HOST_MAPPED,
    MAPPED,
    SHARED,
    content_at,
    has_mark,
    put_content,
    put_mark,
)
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def block_row(state: State, file: int, index: int) -> int:
    """Row in `state.file_blocks` of the 2 MiB that hold page `index`."""
    return int(state.files[file].first_block) + (index >> BLOCK_ORDER)


@jit
def block_span(state: State, file: int, index: int) -> int:
    """How many pages of the 2 MiB around page `index` lie within the file."""
    return min(BLOCK_PAGES, int(state.files[file].pages) - (index & ~(BLOCK_PAGES - 1)))


@jit
def take_page_slab(state: State) -> int:
    """A slab of page details (rows undefined); 0 and `host.exhausted` when the table is full."""
    host = state.host[0]
    slab = int(host.free_page_slab)
    if slab:
        host.free_page_slab = state.page_slabs[slab].next
        return slab
    slab = int(host.next_page_slab)
    if slab >= host.max_page_slabs:
        host.exhausted = 1
        return 0
    host.next_page_slab = slab + 1
    return slab


@jit
def open_details(state: State, row: int) -> int:
    """Make sure that a file block has page details. Returns the row of its first page in `state.pages`."""
    detail = int(state.file_blocks[row].detail)
    return detail * BLOCK_PAGES if detail else write_details(state, row)


@part
def write_details(state: State, row: int) -> int:
    """`open_details` of a file block that has none."""
    block = state.file_blocks[row]
    slab = take_page_slab(state)
    base = slab * BLOCK_PAGES
    page = int(block.content) if block.nr_present else 0
    page |= MAPPED if block.nr_mapped else 0
    page |= ASSIGNED if state.hardware[row].nr_assigned else 0
    page |= ACCEPTED if state.hardware[row].nr_accepted else 0
    page |= HOST_MAPPED if block.nr_host_mapped else 0
    shared = int(block.nr_shared)  # all pages within the file, or none
    for slot in range(base, base + shared):
        state.pages[slot] = page | SHARED
    for slot in range(base + shared, base + BLOCK_PAGES):
        state.pages[slot] = page
    block.detail = slab
    return base


@jit
def open_frames(state: State, row: int) -> None:
    """Give the pages of a file block that has details rows for their frames, as they will no longer lie in order."""
    if state.file_blocks[row].block:
        write_frame_rows(state, row)


@part
def write_frame_rows(state: State, row: int) -> None:
    """`open_frames` of a file block whose pages lie in order."""
    block = state.file_blocks[row]
    base = int(block.detail) * BLOCK_PAGES
    first = int(block.block) * BLOCK_PAGES
    for offset in range(BLOCK_PAGES):
        state.page_frames[base + offset] = first + offset
    block.block = 0


@jit
def drop_details(state: State, row: int) -> None:
    """Give a file block's page details back."""
    block = state.file_blocks[row]
    host = state.host[0]
    state.page_slabs[block.detail].next = host.free_page_slab
    host.free_page_slab = int(block.detail)
    block.detail = 0


@jit
def frame_of(state: State, row: int, index: int) -> int:
    """Frame behind page `index`, or 0."""
    block = state.file_blocks[row]
    offset = index & (BLOCK_PAGES - 1)
    if block.block:
        return int(block.block) * BLOCK_PAGES + offset
    return int(state.page_frames[int(block.detail) * BLOCK_PAGES + offset]) if block.nr_present else 0


@jit
def is_shared(state: State, row: int, index: int) -> bool:
    """Attribute of page `index`."""
    block = state.file_blocks[row]
    if block.detail:
        return bool(has_mark(state, int(block.detail) * BLOCK_PAGES + (index & (BLOCK_PAGES - 1)), SHARED))
    return bool(block.nr_shared)


@jit
def contiguous_block(state: State, row: int) -> int:
    """The host block whose 512 frames back a file block in order; 0 where they do not."""
    block = state.file_blocks[row]
    if block.nr_present != BLOCK_PAGES:
        return 0
    if block.block:
        return int(block.block)
    base = int(block.detail) * BLOCK_PAGES
    first = int(state.page_frames[base])
    if first & (BLOCK_PAGES - 1):
        return 0
    for offset in range(1, BLOCK_PAGES):
        if state.page_frames[base + offset] != first + offset:
            return 0
    return first >> BLOCK_ORDER


@jit
def content_is_uniform(state: State, base: int, changed: int) -> bool:
    """Whether all 512 pages of a set of details have the same content; asks first of `changed`, the page that changed last."""
    first = int(state.pages[base + changed])
    differing = (int(state.pages[base]) ^ first) | (int(state.pages[base + BLOCK_PAGES - 1]) ^ first)
    if differing & CONTENT:
        return False
    for slot in range(base, base + BLOCK_PAGES):
        differing |= int(state.pages[slot]) ^ first
    return differing & CONTENT == 0


@part
def settle(state: State, file: int, index: int) -> None:
    """Drop the details of the block around page `index` if it is uniform again, and settle its host block likewise."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    if block.detail == 0:
        if block.block:
            settle_block(state, int(block.block))
        return
    if block.nr_shared and block.nr_shared != block_span(state, file, index):
        return
    if block.nr_present == 0:
        drop_details(state, row)
        block.block = 0
        block.content = 0
        return
    if block.nr_present != BLOCK_PAGES or (block.nr_mapped and block.nr_mapped != BLOCK_PAGES):
        return
    if block.nr_host_mapped and block.nr_host_mapped != BLOCK_PAGES:
        return
    hardware = state.hardware[row]
    if hardware.nr_assigned not in (0, BLOCK_PAGES) or hardware.nr_accepted not in (0, BLOCK_PAGES):
        return
    if block.nr_stranded and block.nr_stranded != BLOCK_PAGES:
        return
    base = int(block.detail) * BLOCK_PAGES
    if not content_is_uniform(state, base, index & (BLOCK_PAGES - 1)):
        return
    host_block = contiguous_block(state, row)
    if host_block:
        block.content = content_at(state, base)
        block.block = host_block
        drop_details(state, row)
        settle_block(state, host_block)


@jit
def fill_block(state: State, row: int, host_block: int) -> None:
    """Make a whole host block the backing of an empty file block; pages are fresh."""
    block = state.file_blocks[row]
    block.block = host_block
    block.nr_present = BLOCK_PAGES
    block.content = layout.FRESH


@jit
def rows_to_fill(state: State, row: int) -> int:
    """Make sure that a file block which lacks pages has details, and rows for their frames. Returns the first page's row."""
    base = open_details(state, row)
    if state.file_blocks[row].nr_present == 0:
        for slot in range(base, base + BLOCK_PAGES):
            state.page_frames[slot] = 0
    return base


@jit
def fill_pages(state: State, row: int, index: int, pfn: int, count: int) -> None:
    """Insert `count` fresh pages (a folio below order 9) at page `index`."""
    place = rows_to_fill(state, row) + (index & (BLOCK_PAGES - 1))
    for offset in range(count):
        state.page_frames[place + offset] = pfn + offset
    state.file_blocks[row].nr_present += count
    state.file_blocks[row].content = layout.FRESH


@jit
def is_stranded(content: int) -> bool:
    """Whether a present page of this content was punched."""
    return content == ZEROED or content == STALE


@jit
def set_content(state: State, row: int, begin: int, end: int, content: int) -> None:
    """Set the content of the present pages [begin, end) of a file block (offsets within it)."""
    block = state.file_blocks[row]
    if block.nr_present == 0:
        return
    if block.detail == 0 and begin == 0 and end == BLOCK_PAGES:
        block.content = content
        block.nr_stranded = BLOCK_PAGES if is_stranded(content) else 0
        return
    if block.detail == 0 and block.content == content:
        return
    base = open_details(state, row)
    for offset in range(begin, end):
        if frame_of(state, row, offset):
            block.nr_stranded += int(is_stranded(content)) - int(is_stranded(content_at(state, base + offset)))
            put_content(state, base + offset, content)


@jit
def scramble(state: State, row: int, begin: int, end: int) -> None:
    """What was written to the present pages [begin, end) of a file block means nothing any more."""
    block = state.file_blocks[row]
    if block.nr_present == 0 or (block.detail == 0 and block.content != USED):
        return
    if block.detail == 0 and end - begin == BLOCK_PAGES:
        block.content = UNSPECIFIED
        return
    base = open_details(state, row)
    for offset in range(begin, end):
        if content_at(state, base + offset) == USED:
            put_content(state, base + offset, UNSPECIFIED)


@jit
def set_shared(state: State, row: int, begin: int, end: int, span: int, shared: int) -> None:
    """Set the attribute of pages [begin, end) of a file block with `span` pages within the file."""
    block = state.file_blocks[row]
    if begin == 0 and end == span and block.detail == 0:
        block.nr_shared = span if shared else 0
        return
    if block.detail == 0 and (block.nr_shared > 0) == (shared > 0):
        return
    base = open_details(state, row)
    for offset in range(begin, end):
        block.nr_shared += shared - has_mark(state, base + offset, SHARED)
        put_mark(state, base + offset, SHARED, shared)


@inline
def remove_pages(state: State, row: int, begin: int, end: int) -> None:
    """Take the present pages [begin, end) (offsets, already unmapped) out of a file block that has details."""
    block = state.file_blocks[row]
    base = int(block.detail) * BLOCK_PAGES
    open_frames(state, row)
    stranded = 0
    for slot in range(base + begin, base + end):
        stranded += 1 if is_stranded(content_at(state, slot)) else 0
        put_content(state, slot, layout.FRESH)
        state.page_frames[slot] = 0
    block.nr_present -= end - begin
    block.nr_stranded -= stranded
    if block.nr_present == 0:
        block.marks &= ~layout.GONE_WITH_PAGES


@jit
def empty_block(state: State, row: int) -> None:
    """Take all pages (already unmapped) out of a file block. Attributes stay (G22)."""
    block = state.file_blocks[row]
    block.nr_present = 0
    block.nr_stranded = 0
    block.block = 0
    block.content = layout.FRESH
    block.marks &= ~layout.GONE_WITH_PAGES
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for slot in range(base, base + BLOCK_PAGES):
            put_content(state, slot, layout.FRESH)
