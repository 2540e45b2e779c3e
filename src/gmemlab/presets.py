"""The preset policies: which choices each is made of, where it comes from, and which are for guests.

To add one: a `_preset(...)` here; if no combination of choices expresses it, a choice in `policy.py` first.
"""

from typing import Final

from gmemlab.errors import UsageError
from gmemlab.policy import Policy
from gmemlab.policy_sizes import ORDER_2M, PAGE, parse_sizes


def _preset(name: str, sizes: str, summary: str, status: str, origin: str, fallocate_sizes: str = "", **choices: str) -> Policy:
    fallocate = parse_sizes(fallocate_sizes) if fallocate_sizes else ()
    described = {"summary": summary, "status": status, "origin": origin}
    return Policy(name=name, sizes=parse_sizes(sizes), fallocate_sizes=fallocate, **described, **choices)


_IN_PLACE: Final = {"conversion": "in-place", "split": "4k", "vmm_punch": "none"}
_MERGED: Final = {**_IN_PLACE, "merge": "eager", "repair": "merge", "effort": "retry"}
_HUGETLB: Final = {**_MERGED, "source": "pool", "punch": "refuse", "hvo": "on"}
_ORDINARY: Final = {"conversion": "none", "vmm_punch": "none", "zone": "movable"}
_DAEMONS: Final = {"repair": "collapse,compaction"}

PRESETS: Final[dict[str, Policy]] = {
    policy.name: policy
    for policy in (
        _preset("4k", "4K", "4K pages, private and shared from two sources: what Linux does today", "merged", "G34"),
        _preset("4k-inplace", "4K", "4K pages, converted in place", "next", "G41 to G50", **_IN_PLACE),
        _preset(
            "thp", "2M,4K", "2M pages with fallback, split by partial punches", "posted", "G58 to G61", effort="direct-once"
        ),
        _preset(
            "thp-inplace", "2M,4K", "2M pages with fallback, split at conversion", "proposed in words", "G90",
            **_IN_PLACE, effort="direct-once",
        ),
        _preset(
            "thp-strict-refuse", "2M", "2M pages or failure; partial punches are refused", "proposed in words",
            "G89, T12, T13", **_MERGED, punch="refuse",
        ),
        _preset(
            "thp-strict-zero", "2M", "2M pages or failure; partial punches only zero", "proposed in words",
            "G89, T12, T13", **_MERGED, punch="zero",
        ),
        _preset(
            "thp-migratable", "2M,4K", "like thp-inplace in movable memory, which daemons collapse and move", "upper bound",
            "T17, K16", **_IN_PLACE, **_DAEMONS, zone="movable", effort="direct-once",
        ),
        _preset("hugetlb-2m", "2M", "2M pages from a pool, split and merged at conversion", "posted", "G64 to G74", **_HUGETLB),
        _preset("hugetlb-1g", "1G", "1G pages from a pool, split to 4K at conversion", "posted", "G64 to G74", **_HUGETLB),
        _preset(
            "hugetlb-1g-2m", "1G", "1G pages from a pool, split to 2M first", "proposed in words", "Q6",
            **{**_HUGETLB, "split": "2m-first"},
        ),
        _preset(
            "ladder", "2M,1M,64K,4K", "several sizes, the largest that fits", "proposed in words", "T18",
            **{**_IN_PLACE, "split": "pieces"}, effort="light",
        ),
        _preset(
            "shmem-thp", "2M,4K", "ordinary shared memory with THP: live stand-in", "merged", "L12 to L15",
            memory="shmem", effort="direct-once", fallocate_sizes="2M,1M,512K,256K,128K,64K,32K,16K,8K,4K", **_ORDINARY,
            **_DAEMONS,
        ),
        _preset(
            "anon-thp", "2M,4K", "ordinary anonymous memory with THP: live stand-in", "merged", "L16, L17",
            memory="anon", punch="defer", effort="direct-once", **_ORDINARY, **_DAEMONS,
        ),
        _preset(
            "hugetlbfs", "2M", "ordinary hugetlb memory: live stand-in", "merged", "L18 to L20", memory="hugetlb",
            source="pool", punch="zero", split="4k", merge="lazy", repair="merge", conversion="none", vmm_punch="none",
            effort="retry",
        ),
    )
}  # fmt: skip


def find(name: str) -> Policy:
    """A preset by name. UsageError with the names that exist."""
    if name not in PRESETS:
        raise UsageError("no such policy", key="policy", value=name, allowed=", ".join(PRESETS))
    return PRESETS[name]


def for_guest(policy: Policy | str) -> Policy:
    """The policy, or the preset of that name, if a guest_memfd can be backed by it. UsageError for one of ordinary memory."""
    return _of_kind(policy, True, "a policy for ordinary memory, which confidential guests cannot have")


def for_ordinary_memory(policy: Policy | str) -> Policy:
    """The policy, or the preset of that name, if it is of shmem, anonymous or hugetlb memory. UsageError for guest_memfd."""
    return _of_kind(policy, False, "a policy for guest_memfd, which is no ordinary memory")


def _of_kind(policy: Policy | str, confidential: bool, refusal: str) -> Policy:
    if isinstance(policy, str):
        policy = find(policy)
    if not isinstance(policy, Policy):
        raise UsageError("not a policy", key="policy", value=policy, allowed="a Policy, or the name of one")
    if (policy.memory == "guest_memfd") is not confidential:
        names = (name for name, preset in PRESETS.items() if (preset.memory == "guest_memfd") is confidential)
        raise UsageError(refusal, key="policy", value=policy.name, allowed=", ".join(names))
    return policy


def background(movable: bool) -> Policy:
    """How the host's own memory behaves: single pages, freed as they are given back."""
    zone, repair = ("movable", "compaction") if movable else ("unmovable", "none")
    return Policy(name=f"host-{zone}", memory="host", zone=zone, repair=repair, conversion="none", vmm_punch="none")


def page_cache() -> Policy:
    """Clean page cache of the host's: what was read from files, in 4K pages, which reclaim may drop."""
    return Policy(name="host-cache", memory="cache", zone="movable", repair="compaction", conversion="none", vmm_punch="none")


def atomic(size: int) -> Policy:
    """Kernel memory that is taken where nothing may wait, in pieces of one size: a network driver's buffers."""
    return Policy(name="host-atomic", memory="host", sizes=(size,), effort="atomic", conversion="none", vmm_punch="none")


def shared_side(policy: Policy) -> Policy:
    """The ordinary, anonymous memory beside a two-source guest (K13), which compaction moves.

    Where it has 2M pages (`shared=thp`), khugepaged and `effort` are for it, too; `retry` is `direct-once`, as no fault there
    has __GFP_RETRY_MAYFAIL (`vma_thp_gfp_mask`, 6.18).
    """
    sizes = (PAGE << ORDER_2M, PAGE) if policy.shared == "thp" else (PAGE,)
    return Policy(
        name=f"{policy.name}:shared",
        memory="anon",
        sizes=sizes,
        zone="movable",
        punch="defer",
        conversion="none",
        vmm_punch="none",
        effort={"4k": "none", "thp": "direct-once" if policy.effort == "retry" else policy.effort}[policy.shared],
        repair="collapse,compaction" if policy.shared == "thp" and policy.is_repaired_by("collapse") else "compaction",
    )
