"""Policies: how a guest's memory is backed, as named choices, and the presets with their origin and status.

A policy is a frozen set of choices. Every combination either works or is refused with the reason. What the choices do is
decided in ``core/decisions.py``; this module only names, checks and lists them.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from gmemlab.errors import UsageError
from gmemlab.units import format_size, parse_size

PAGE: Final = 4096
ORDER_2M: Final = 9
ORDER_1G: Final = 18
LARGEST_POOL: Final = 64 << 40  # bytes: as much as the largest host has

# Each choice with what it may be; `sizes` and `pool` are checked on their own.
ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "memory": ("guest_memfd", "shmem", "anon", "hugetlb", "host"),
    "source": ("buddy", "pool"),
    "effort": ("none", "light", "direct-once", "retry"),
    "zone": ("unmovable", "movable"),
    "punch": ("split", "zero", "refuse", "no-op", "defer"),
    "conversion": ("none", "two-sources", "in-place"),
    "split": ("pieces", "4k", "2m-first"),
    "shared": ("4k", "thp"),
    "merge": ("never", "eager", "lazy"),
    "repair": ("none",),
    "vmm_punch": ("none", "private", "shared", "both"),
    "hvo": ("on", "off"),
}


@dataclass(frozen=True)
class Policy:
    """The choices of one policy.

    Attributes:
        name: what it is called in tables.
        memory: which kernel object holds it: guest_memfd, or ordinary memory (shmem, anon, hugetlb; host: the background).
        sizes: bytes of the folios that are tried, largest first.
        fallocate_sizes: the same for fallocate, where it differs: shmem honours per-size settings in faults only (L12).
        source: buddy allocator, or a hugetlb pool reserved at creation (G70).
        effort: how hard a huge allocation tries (K14): the free lists (`none`, `light`: what `light` wakes is not modelled),
            one direct compaction unless it failed lately (`direct-once`), or up to four (`retry`). No reclaim.
        zone: unmovable (G54) or movable memory (K15).
        punch: what happens to a folio that a punch covers in part: split it, zero the part, refuse the call, do nothing, or
            free it when its last page goes (anonymous memory, L16).
        conversion: private and shared from two sources of memory, or in place.
        split: a split leaves the largest aligned pieces (L13), 4K pages, or 2M pages first (Q6).
        shared: backing of the shared side of a two-source guest (K13).
        merge: at once after a conversion back to private (G72), lazily as a pool takes the whole page back (G65), or never:
            pieces of buddy pages merge in the buddy allocator, if at all.
        repair: daemons that mend what was split; none are modelled yet.
        vmm_punch: which side the VMM discards on conversion (K12).
        hvo: whether the pool's huge pages give back their page structs (C25).
        pool: size of the pool: "auto" (what the workload can hold at once), a size, or a share of free memory ("80%").
        status: merged, next, posted, proposed in words, or upper bound.
        origin: rows of the facts behind it.
        summary: one line for people.
    """

    name: str
    memory: str = "guest_memfd"
    sizes: tuple[int, ...] = (PAGE,)
    fallocate_sizes: tuple[int, ...] = ()
    source: str = "buddy"
    effort: str = "none"
    zone: str = "unmovable"
    punch: str = "split"
    conversion: str = "two-sources"
    split: str = "pieces"
    shared: str = "4k"
    merge: str = "never"
    repair: str = "none"
    vmm_punch: str = "both"
    hvo: str = "off"
    pool: str = "auto"
    status: str = "custom"
    origin: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, with the reason."""
        for choice, allowed in ALLOWED.items():
            if getattr(self, choice) not in allowed:
                raise UsageError(
                    _no_such_value(choice), key=choice, value=str(getattr(self, choice)), allowed=", ".join(allowed)
                )
        _check_sizes("sizes", self.sizes)
        if self.fallocate_sizes != ():
            _check_sizes("fallocate_sizes", self.fallocate_sizes)
        _check_pool(self.pool, self.unit)
        for impossible, reason in _impossible(self):
            if impossible:
                raise UsageError(f"policy {self.name}: {reason}")

    @property
    def orders(self) -> tuple[int, ...]:
        """Folio orders that are tried, largest first."""
        return tuple((size // PAGE).bit_length() - 1 for size in self.sizes)

    @property
    def fallocate_orders(self) -> tuple[int, ...]:
        """Folio orders that fallocate tries, largest first."""
        return tuple((size // PAGE).bit_length() - 1 for size in self.fallocate_sizes or self.sizes)

    @property
    def unit(self) -> int:
        """Bytes of the smallest folio that the policy allocates: memory is reserved in multiples of it."""
        return self.sizes[-1]

    def with_choices(self, choices: dict[str, str]) -> "Policy":
        """The same policy with some choices set, as `--set choice=value` does. UsageError for an unknown choice."""
        changed: dict[str, Any] = {}
        for choice, value in choices.items():
            if choice not in CHOICES:
                raise UsageError("unknown choice", key=choice, value=value, allowed=", ".join(CHOICES))
            try:
                changed[choice] = _parse_sizes(value) if choice in ("sizes", "fallocate_sizes") else value
            except UsageError as error:
                raise error.at(key=choice) from error
        suffix = ",".join(f"{choice}={value}" for choice, value in choices.items())
        name = f"{self.name}[{suffix}]" if suffix else self.name
        return replace(self, **changed, name=name, status="custom" if choices else self.status)


CHOICES: Final = tuple(
    field.name for field in fields(Policy) if field.name not in ("name", "status", "origin", "summary", "memory")
)


def _no_such_value(choice: str) -> str:
    """Why a value is not among a choice's values."""
    if choice == "repair":
        return "nothing runs khugepaged, kcompactd or shrinkers by itself yet, so no policy can rely on them"
    return "not one of the choices"


def _check_sizes(key: str, sizes: tuple[int, ...]) -> None:
    """Sizes must be powers of two from 4K to 2M, or 1G alone, largest first."""
    allowed = "powers of two from 4K to 2M, largest first; or 1G alone"
    if not isinstance(sizes, tuple) or not all(type(size) is int for size in sizes):
        raise UsageError("not a tuple of bytes", key=key, value=sizes, allowed=f"{allowed}: (2097152, 4096)")
    shown = ",".join(format_size(size) for size in sizes)
    powers = all(size >= PAGE and size & (size - 1) == 0 for size in sizes)
    if not sizes or not powers or list(sizes) != sorted(set(sizes), reverse=True):
        raise UsageError("not a ladder of page sizes", key=key, value=shown, allowed=allowed)
    if any(size > PAGE << ORDER_2M for size in sizes) and sizes != (PAGE << ORDER_1G,):
        raise UsageError(
            "the buddy allocator hands out at most 4M, and no THP is larger than 2M", key=key, value=shown, allowed=allowed
        )


def _check_pool(pool: str, page: int) -> None:
    """A pool's size: auto, a share of free memory, or bytes: at least one of its pages, at most what the largest host has."""
    allowed = f"auto, a size from {format_size(page)} to {format_size(LARGEST_POOL)}, or a share of free memory such as 80%"
    if pool == "auto":
        return
    try:
        if isinstance(pool, str) and pool.endswith("%"):
            good = pool[:-1].isascii() and pool[:-1].isdigit() and 0 < int(pool[:-1]) <= 100
        else:
            good = isinstance(pool, str) and page <= parse_size(pool) <= LARGEST_POOL
    except (UsageError, ValueError):
        good = False
    if not good:
        raise UsageError("not a size of a pool", key="pool", value=pool, allowed=allowed)


def _parse_sizes(text: str) -> tuple[int, ...]:
    """`2M,64K,4K` as bytes; `+` may stand for the comma where a shell list uses it."""
    return tuple(parse_size(part) for part in text.replace("+", ",").split(","))


def _impossible(policy: Policy) -> list[tuple[bool, str]]:
    """Combinations that cannot work, each with its reason."""
    huge_only = policy.unit >= PAGE << ORDER_2M
    confidential = policy.memory == "guest_memfd"
    pooled = policy.source == "pool"
    giga = policy.sizes == (PAGE << ORDER_1G,)
    return [
        (
            pooled and not (huge_only and len(policy.sizes) == 1),
            "a pool holds pages of one huge size: set sizes=2M or sizes=1G",
        ),
        (giga and not pooled, "1G pages come from a pool only: the buddy allocator ends at 4M (set source=pool)"),
        (
            policy.punch == "split" and huge_only,
            "punch=split leaves holes that a policy without smaller sizes cannot fill again",
        ),
        (policy.punch == "defer" and policy.memory != "anon", "punch=defer is how anonymous memory works; files punch"),
        (
            bool(policy.fallocate_sizes) and policy.memory != "shmem",
            "fallocate_sizes is for shmem: only there do fallocate and faults follow different settings (L12)",
        ),
        (policy.punch == "refuse" and not confidential, "ordinary memory never refuses a punch"),
        (confidential != (policy.conversion != "none"), "conversion is for guest_memfd, and guest_memfd needs one"),
        (policy.split == "2m-first" and not giga, "split=2m-first is for 1G pages"),
        (policy.split == "pieces" and huge_only, "huge-only memory is split to 4k (or 2m-first), not into other pieces"),
        (policy.hvo == "on" and not pooled, "HVO works on hugetlb pages only (set source=pool)"),
        (
            policy.merge == "eager" and policy.conversion != "in-place",
            "merge=eager needs in-place conversion: with two sources the punched pages are gone",
        ),
        (policy.merge == "never" and pooled, "a pool takes back whole pages only: merge is eager or lazy"),
        (
            policy.merge == "lazy" and not pooled,
            "what is left of buddy pages merges in the buddy allocator when it is freed: merge is eager or never",
        ),
        (
            policy.shared != "4k" and policy.conversion != "two-sources",
            "shared=thp backs the shared side of a two-source guest, and there is none (set conversion=two-sources)",
        ),
        (policy.pool != "auto" and not pooled, "there is no pool whose size could be set (set source=pool)"),
        (
            policy.merge == "eager" and PAGE << ORDER_2M not in policy.sizes and not giga,
            "there is nothing to merge to below 2M",
        ),
        (policy.memory == "hugetlb" and not pooled, "hugetlb memory comes from a pool"),
        (policy.memory == "hugetlb" and policy.punch != "zero", "a partial punch of hugetlb memory zeroes (L18)"),
        (policy.memory == "anon" and policy.punch != "defer", "a partial punch of anonymous memory is deferred (L16)"),
        (
            policy.conversion != "two-sources" and policy.vmm_punch != "none",
            "without two sources there is no second side to punch",
        ),
        (
            pooled and policy.zone == "movable",
            "pool pages are taken from either zone type by the pool itself, not by the policy",
        ),
    ]


def _preset(name: str, sizes: str, summary: str, status: str, origin: str, fallocate_sizes: str = "", **choices: str) -> Policy:
    fallocate = _parse_sizes(fallocate_sizes) if fallocate_sizes else ()
    described = {"summary": summary, "status": status, "origin": origin}
    return Policy(name=name, sizes=_parse_sizes(sizes), fallocate_sizes=fallocate, **described, **choices)


_IN_PLACE: Final = {"conversion": "in-place", "split": "4k", "vmm_punch": "none"}
_HUGETLB: Final = {**_IN_PLACE, "source": "pool", "punch": "refuse", "merge": "eager", "hvo": "on", "effort": "retry"}
_ORDINARY: Final = {"conversion": "none", "vmm_punch": "none", "zone": "movable"}

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
            "G89, T12, T13", **_IN_PLACE, punch="refuse", merge="eager", effort="retry",
        ),
        _preset(
            "thp-strict-zero", "2M", "2M pages or failure; partial punches only zero", "proposed in words",
            "G89, T12, T13", **_IN_PLACE, punch="zero", merge="eager", effort="retry",
        ),
        _preset(
            "thp-migratable", "2M,4K", "like thp-inplace in movable memory, which direct compaction moves", "upper bound",
            "T17, K16", **_IN_PLACE, zone="movable", effort="direct-once",
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
        ),
        _preset(
            "anon-thp", "2M,4K", "ordinary anonymous memory with THP: live stand-in", "merged", "L16, L17",
            memory="anon", punch="defer", effort="direct-once", **_ORDINARY,
        ),
        _preset(
            "hugetlbfs", "2M", "ordinary hugetlb memory: live stand-in", "merged", "L18 to L20", memory="hugetlb",
            source="pool", punch="zero", split="4k", merge="lazy", conversion="none", vmm_punch="none", effort="retry",
        ),
    )
}  # fmt: skip


def find(name: str) -> Policy:
    """A preset by name. UsageError with the names that exist."""
    if name not in PRESETS:
        raise UsageError("no such policy", key="policy", value=name, allowed=", ".join(PRESETS))
    return PRESETS[name]


def for_guest(policy: Policy) -> Policy:
    """The policy, if a guest_memfd can be backed by it. UsageError for one of ordinary memory."""
    return _of_kind(policy, True, "a policy for ordinary memory, which confidential guests cannot have")


def for_ordinary_memory(policy: Policy) -> Policy:
    """The policy, if it is one of shmem, anonymous or hugetlb memory. UsageError for one of guest_memfd."""
    return _of_kind(policy, False, "a policy for guest_memfd, which is no ordinary memory")


def _of_kind(policy: Policy, confidential: bool, refusal: str) -> Policy:
    if not isinstance(policy, Policy):
        raise UsageError("not a policy", key="policy", value=policy, allowed="a Policy, or the name of one")
    if (policy.memory == "guest_memfd") is not confidential:
        names = (name for name, preset in PRESETS.items() if (preset.memory == "guest_memfd") is confidential)
        raise UsageError(refusal, key="policy", value=policy.name, allowed=", ".join(names))
    return policy


def background(movable: bool) -> Policy:
    """How the host's own memory behaves: single pages, freed as they are given back."""
    zone = "movable" if movable else "unmovable"
    return Policy(name=f"host-{zone}", memory="host", zone=zone, conversion="none", vmm_punch="none")


def shared_side(policy: Policy) -> Policy:
    """The ordinary, anonymous memory beside a two-source guest (K13)."""
    sizes = (PAGE << ORDER_2M, PAGE) if policy.shared == "thp" else (PAGE,)
    return Policy(
        name=f"{policy.name}:shared",
        memory="anon",
        sizes=sizes,
        zone="movable",
        punch="defer",
        conversion="none",
        vmm_punch="none",
    )
