"""Every choice that a policy makes, and nothing else.

Each function takes the policy record and numbers, returns a number, and writes nothing. To try a new idea, edit this file:
the next run compiles it anew.
"""

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GFP_DIRECT,
    GFP_HIGH,
    GFP_KSWAPD,
    GFP_RETRY_MAYFAIL,
    KIND_GUEST_MEMFD,
    KIND_SHMEM,
    MERGE_EAGER,
    MOVABLE,
    SOURCE_POOL,
    SPLIT_2M_FIRST,
    SPLIT_BUDDY,
    UNMOVABLE,
)
from gmemlab.core.state import Records

# What happens to the covered part of a folio that a punch covers only partly.
PART_SPLIT = 0  # split it and free the part
PART_ZERO = 1  # the part reads zero and stays charged
PART_STALE = 2  # the part keeps its contents and stays charged
PART_DROP = 3  # the whole folio leaves the file
PART_KEEP = 4  # nothing
PART_DEFER = 5  # the part is unmapped; its frames stay with the folio


@jit
def sizes_tried(policy: Records, by_fallocate: bool) -> int:
    """Folio orders that a population tries, as bits. shmem has more of them for fallocate than for faults (L12)."""
    return int(policy.fallocate_sizes) if by_fallocate else int(policy.sizes)


@jit
def next_order(sizes: int, order: int) -> int:
    """The order to try after `order` could not be had, first of all when that is 19; -1 when the policy gives up."""
    for smaller in range(order - 1, -1, -1):
        if sizes >> smaller & 1:
            return smaller
    return -1


@jit
def migratetype(policy: Records) -> int:
    """Which free lists the policy's memory comes from (G54: guest_memfd is unmovable)."""
    return MOVABLE if policy.movable else UNMOVABLE


@jit
def gfp(policy: Records, kind: int, order: int, by_fallocate: bool) -> int:
    """What an allocation of this order does that the free lists above the low watermarks cannot serve (GFP_*, K14).

    Base pages always have memory reclaimed, but for those that cannot wait. For larger folios GFP_HIGHUSER, as guest_memfd's
    memory, wakes kswapd, GFP_TRANSHUGE does not: of ordinary memory only what `defer` asks for does. fallocate of shmem knows
    no mapping that was madvised, and does not wait (`shmem_get_folio_gfp`; with `defrag=always` it would, once).
    """
    if policy.effort == layout.EFFORT_ATOMIC:
        return GFP_KSWAPD | GFP_HIGH
    if order == 0:
        return GFP_KSWAPD | GFP_DIRECT
    if policy.effort == layout.EFFORT_NONE:
        return 0
    told = GFP_KSWAPD if kind == KIND_GUEST_MEMFD or policy.effort == layout.EFFORT_LIGHT else 0
    if policy.effort == layout.EFFORT_LIGHT or (by_fallocate and kind == KIND_SHMEM):
        return told
    return told | GFP_DIRECT | (GFP_RETRY_MAYFAIL if policy.effort == layout.EFFORT_RETRY else 0)


@jit
def collapse_gfp() -> int:
    """The same for the huge page of a collapse, whatever faults do (`alloc_charge_folio`).

    GFP_TRANSHUGE for MADV_COLLAPSE; for khugepaged `alloc_hugepage_khugepaged_gfpmask`, where its `defrag` is 1.
    """
    return GFP_DIRECT


@jit
def has_khugepaged(policy: Records) -> bool:
    """Whether khugepaged scans the policy's memory (T1)."""
    return bool(policy.repair & layout.REPAIR_COLLAPSE)


@jit
def may_fill(holes: int, max_ptes_none: int) -> bool:
    """Whether khugepaged may fill so many holes of 2 MiB with zeros, which are charged then (L15)."""
    return holes <= max_ptes_none


@jit
def looks_for_zeros(policy: Records, kind: int) -> bool:
    """Whether the shrinker frees pages of zeros in huge pages: in anonymous memory (L17), in shmem where it is set (T4)."""
    return bool(kind == layout.KIND_ANON or policy.zero_scan)


@jit
def is_underused(zeros: int, max_ptes_none: int) -> bool:
    """Whether the shrinker splits a huge page with so many pages of zeros (`thp_underused`, L17)."""
    return zeros > max_ptes_none and max_ptes_none < layout.BLOCK_PAGES - 1


@jit
def works_in_units(policy: Records) -> bool:
    """Whether the policy allocates and frees in 2 MiB or 1 GiB units only, so that nothing smaller leaves a file."""
    return bool(policy.unit >= BLOCK_ORDER)


@jit
def punch_granularity(policy: Records, kind: int) -> int:
    """Pages that the bounds of a punch must be multiples of, else EINVAL (G69)."""
    keeps = policy.punch == layout.PUNCH_ZERO or policy.punch == layout.PUNCH_KEEP
    if kind != KIND_GUEST_MEMFD or keeps or not works_in_units(policy):
        return 1
    return 1 << int(policy.unit)


@jit
def allocate_granularity(policy: Records, kind: int) -> int:
    """Pages that the bounds of a preallocation must be multiples of, else EINVAL (G69)."""
    if policy.source == SOURCE_POOL and kind == KIND_GUEST_MEMFD:
        return 1 << int(policy.unit)
    return 1


@jit
def truncation_zeroes(policy: Records) -> bool:
    """Whether truncation zeroes a part that it covers before it splits the folio (K1).

    It does not where the mapping is marked inaccessible (AS_INACCESSIBLE, commit c72ceafbd12c).
    """
    return bool(policy.truncation == layout.TRUNCATION_ZEROES)


@jit
def partial_punch(policy: Records, kind: int, busy: int, dirty: bool) -> int:
    """What a punch does with a folio that it covers in part.

    A busy folio cannot be split. Inaccessible memory is not zeroed first (K1); a dirty folio then keeps stale contents and
    a clean one is dropped as a whole (K2). Accessible memory has been zeroed (L14).
    """
    if policy.punch == layout.PUNCH_ZERO:
        return PART_ZERO
    if policy.punch == layout.PUNCH_KEEP:
        return PART_KEEP
    if policy.punch == layout.PUNCH_DEFER:
        return PART_DEFER
    if busy == 0:
        return PART_SPLIT
    if kind != KIND_GUEST_MEMFD or truncation_zeroes(policy):
        return PART_ZERO
    return PART_STALE if dirty else PART_DROP


@jit
def keeps_pieces(policy: Records) -> bool:
    """Whether a split leaves the largest aligned pieces (L13) instead of base pages."""
    return bool(policy.split == SPLIT_BUDDY)


@jit
def splits_giga_to_blocks(policy: Records) -> bool:
    """Whether a 1 GiB folio is split to 2 MiB first and only the touched block to 4 KiB (Q6)."""
    return bool(policy.split == SPLIT_2M_FIRST)


@jit
def merges_after_conversion(policy: Records) -> bool:
    """Whether a huge range that became private again is made one folio at once (G72) or not before it is freed (G65)."""
    return bool(policy.merge == MERGE_EAGER)


@jit
def vmm_punches(policy: Records, to_shared: bool) -> bool:
    """Whether the VMM discards the other side of a range that was converted (K12)."""
    bit = layout.VMM_PUNCHES_PRIVATE if to_shared else layout.VMM_PUNCHES_SHARED
    return bool(policy.vmm_punch & bit)


@jit
def shares_in_place(policy: Records) -> bool:
    """Whether shared pages live in the same file as private ones, so that attributes matter for folios (G90)."""
    return bool(policy.conversion == layout.CONVERT_IN_PLACE)


@jit
def folio_may_cover(policy: Records, order: int, all_private: bool) -> bool:
    """Whether a new folio may cover pages that are not all private (G90: shared folios are small)."""
    if order == 0 or all_private:
        return True
    return bool(policy.source == SOURCE_POOL or works_in_units(policy))  # taken whole and split at once (G71)


@jit
def accepts(guest: int) -> bool:
    """Whether a guest of this kind must accept its private pages before it uses them."""
    return guest == layout.GUEST_SNP or guest == layout.GUEST_TDX


@jit
def accept_limits(guest: int) -> bool:
    """Whether the size of an accept limits the mapping: TDX tells it with the fault (G79), SNP after it (G83)."""
    return guest == layout.GUEST_GENERIC or guest == layout.GUEST_TDX


@jit
def zaps_exactly(guest: int, converts_in_place: bool) -> bool:
    """Whether a zap takes away the pages in its range only.

    Under TDX a page once zapped must be accepted again (G78); a conversion in place splits the leaves that it cuts (G72).
    """
    return guest == layout.GUEST_GENERIC or guest == layout.GUEST_TDX or converts_in_place


@jit
def keeps_contents(guest: int) -> bool:
    """Whether a conversion leaves contents as they are (G50)."""
    return not accepts(guest)


@jit
def marks_accepts(policy: Records) -> bool:
    """Whether a 4 KiB accept forbids 2 MiB there for good (TDX huge pages v2 on, G79), or in its own fault only (RFC v1)."""
    return bool(policy.accept_mark == layout.ACCEPT_MARK_ONE_WAY)


@jit
def marks_that_count(guest: int, marks: int, hardware: int, assigned: bool) -> int:
    """The marks of a file block that forbid 2 MiB mappings, for `mapping_term`.

    KVM follows the RMP and never un-smashes it (G83); TDX has no promotion, and a one-way mark (G76, G79). A guest without
    such hardware is mapped at 2 MiB again when it faults next.
    """
    if guest == layout.GUEST_SNP:
        return layout.HISTORY if assigned and hardware & layout.RMP_WHOLE == 0 else 0
    if guest == layout.GUEST_TDX:
        return marks & layout.HISTORY | (layout.INHIBIT if hardware & layout.ONE_WAY else 0)
    return marks if guest == layout.GUEST_GENERIC else 0


@jit
def mapping_term(order: int, in_slot: bool, congruent: bool, mixed: bool, marks: int, accept: int) -> int:
    """The first term of K8 that keeps a private page from being mapped at 2 MiB; TERM_NONE if none does."""
    if order < BLOCK_ORDER:
        return layout.TERM_FOLIO
    if not in_slot:
        return layout.TERM_SLOT
    if not congruent:
        return layout.TERM_CONGRUENCE
    if mixed:
        return layout.TERM_ATTRIBUTES
    if marks & layout.INHIBIT:  # before what is lifted sooner
        return layout.TERM_INHIBIT
    if marks & layout.HISTORY:
        return layout.TERM_HISTORY
    if accept == layout.ACCEPT_4K:
        return layout.TERM_ACCEPT
    return layout.TERM_NONE
