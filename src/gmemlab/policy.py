"""Policies: how a guest's memory is backed, as named choices, and the presets with their origin and status.

A policy is a frozen set of choices. Every combination either works or is refused with the reason. What the choices do is
decided in ``core/decisions.py``; this module only names, checks and lists them.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from gmemlab.errors import UsageError
from gmemlab.policy_sizes import ORDER_1G, ORDER_2M, PAGE, check_pool, check_sizes, parse_sizes

# Each choice with what it may be; `sizes` and `pool` are checked on their own.
ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "memory": ("guest_memfd", "shmem", "anon", "hugetlb", "host", "cache"),
    "source": ("buddy", "pool"),
    "effort": ("none", "light", "direct-once", "retry", "atomic"),
    "zone": ("unmovable", "movable"),
    "punch": ("split", "zero", "refuse", "no-op", "defer"),
    "conversion": ("none", "two-sources", "in-place"),
    "split": ("pieces", "4k", "2m-first"),
    "shared": ("4k", "thp"),
    "merge": ("never", "eager", "lazy"),
    "repair": (
        "none",
        "collapse",
        "compaction",
        "collapse,compaction",
        "merge",
        "merge,collapse",
        "merge,compaction",
        "merge,collapse,compaction",
    ),
    "zero_scan": ("off", "on"),
    "truncation": ("inaccessible", "zeroes"),
    "accept_mark": ("one-way", "none"),
    "vmm_punch": ("none", "private", "shared", "both"),
    "hvo": ("on", "off"),
    "pool_at": ("run", "boot"),
}


@dataclass(frozen=True)
class Policy:
    """The choices of one policy.

    Attributes:
        name: what it is called in tables.
        memory: which kernel object holds it: guest_memfd, or ordinary memory (shmem, anon, hugetlb; host, cache: background).
        sizes: bytes of the folios that are tried, largest first.
        fallocate_sizes: the same for fallocate, where it differs: shmem honours per-size settings in faults only (L12).
        source: buddy allocator, or a hugetlb pool reserved at creation (G70).
        effort: how hard a huge allocation tries (K14): the free lists (`none`; `light` also wakes kswapd and kcompactd),
            one direct compaction unless it failed lately (`direct-once`), or up to four (`retry`). Only kernel memory that
            cannot wait takes of the reserves instead (`atomic`: GFP_ATOMIC). Base pages have memory reclaimed whatever this
            says, and MADV_COLLAPSE has it compacted. fallocate of shmem, which knows of no madvise, does not
            wait (with `defrag=always` Linux tries once, which no value here stands for).
        zone: unmovable (G54) or movable memory (K15), which compaction moves: the host's kcompactd, which works whatever the
            policies are (`DaemonSettings`), and allocations.
        punch: what happens to a folio that a punch covers in part: split it, zero the part, refuse the call, do nothing, or
            free it when its last page goes (anonymous memory, L16).
        conversion: private and shared from two sources of memory, or in place.
        split: a split leaves the largest aligned pieces (L13), 4K pages, or 2M pages first (Q6).
        shared: backing of the shared side of a two-source guest (K13). With `thp` its faults try for 2M as hard as `effort`
            says: `none` is `defrag=never`, `light` `defer`, `direct-once` `madvise` or `always` where the memory is madvised
            (`vma_thp_gfp_mask`, 6.18). There is no __GFP_RETRY_MAYFAIL there: `retry` is `direct-once`.
        merge: at once after a conversion back to private (G72), lazily as a pool takes the whole page back (G65), or never:
            pieces of buddy pages merge in the buddy allocator, if at all.
        repair: what mends memory that was split, any of three with a comma (or `+`) between: khugepaged scans it (`collapse`),
            compaction moves it (`compaction`, with `zone=movable` and only there), its own `merge` (`merge`, as `merge` says).
        zero_scan: the shrinker looks for zeros in huge pages of shmem, too, and frees them (T4): no kernel does.
        truncation: what the kernel does to the part that a punch covers before it splits the folio: nothing to memory that is
            marked inaccessible (6.11 on), or it zeroes it, private or not (K1; the code that T9 speaks of).
        accept_mark: whether a guest's accept of 4K forbids 2M there for as long as the guest lives (G79; SNP has no such mark),
            or in the fault of that accept only (TDX huge pages, RFC v1).
        vmm_punch: which side the VMM discards on conversion (K12).
        hvo: whether the pool's huge pages give back their page structs (C25).
        pool: size of the pool: "auto" (what the workload can hold at once), a size, or a share of free memory ("80%").
        pool_at: whether the pool grows when the scenario starts (`run`: a write to nr_hugepages), or was taken at boot, before
            anything else (`boot`: hugepages= on the command line), which only a host made up can be: `Host.rebooted`.
        status: merged, next, posted, proposed in words, custom; or upper bound, which memory that no kernel moves makes it.
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
    zero_scan: str = "off"
    truncation: str = "inaccessible"
    accept_mark: str = "one-way"
    vmm_punch: str = "both"
    hvo: str = "off"
    pool: str = "auto"
    pool_at: str = "run"
    status: str = "custom"
    origin: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, with the reason."""
        for choice, allowed in ALLOWED.items():
            if getattr(self, choice) not in allowed:
                shown = (" | " if choice == "repair" else ", ").join(allowed)
                raise UsageError("not one of the choices", key=choice, value=str(getattr(self, choice)), allowed=shown)
        check_sizes("sizes", self.sizes)
        if self.fallocate_sizes != ():
            check_sizes("fallocate_sizes", self.fallocate_sizes)
        check_pool(self.pool, self.unit)
        for impossible, reason in _impossible(self):
            if impossible:
                raise UsageError(f"policy {self.name}: {reason}")
        if self.copies_private_memory:
            object.__setattr__(self, "status", "upper bound")

    @property
    def orders(self) -> tuple[int, ...]:
        """Folio orders that are tried, largest first."""
        return tuple((size // PAGE).bit_length() - 1 for size in self.sizes)

    @property
    def fallocate_orders(self) -> tuple[int, ...]:
        """Folio orders that fallocate tries, largest first."""
        return tuple((size // PAGE).bit_length() - 1 for size in self.fallocate_sizes or self.sizes)

    def is_repaired_by(self, means: str) -> bool:
        """Whether `collapse`, `compaction` or `merge` mends what was split."""
        return means in self.repair.split(",")

    @property
    def copies_private_memory(self) -> bool:
        """Whether its results are an upper bound: no kernel moves guests' private memory (K16)."""
        return self.memory == "guest_memfd" and self.zone == "movable"

    @property
    def unit(self) -> int:
        """Bytes of the smallest folio that the policy allocates: memory is reserved in multiples of it."""
        return self.sizes[-1]

    def with_choices(self, choices: dict[str, str]) -> "Policy":
        """The same policy with some choices set, as `--set choice=value` does. UsageError for an unknown choice."""
        changed: dict[str, Any] = {}
        choices = dict(choices)
        if "repair" in choices:
            choices["repair"] = _in_order(choices["repair"])
        for choice, value in choices.items():
            if choice not in CHOICES:
                raise UsageError("unknown choice", key=choice, value=value, allowed=", ".join(CHOICES))
            try:
                changed[choice] = parse_sizes(value) if choice in ("sizes", "fallocate_sizes") else value
            except UsageError as error:
                raise error.at(key=choice) from error
        suffix = ",".join(f"{choice}={value}" for choice, value in choices.items())
        name = f"{self.name}[{suffix}]" if suffix else self.name
        if "repair" not in changed:
            changed["repair"] = self._repair_after(changed)
        return replace(self, **changed, name=name, status="custom" if choices else self.status)

    def _repair_after(self, changed: dict[str, Any]) -> str:
        """What `repair` says when others are changed: it follows `merge` and `zone`; khugepaged goes with its 2M pages."""
        sizes, zone = changed.get("sizes", self.sizes), changed.get("zone", self.zone)
        scanned = PAGE << ORDER_2M in sizes and (zone == "movable" or self.memory != "guest_memfd")
        kept = {
            "merge": changed.get("merge", self.merge) != "never",
            "collapse": self.is_repaired_by("collapse") and scanned,
            "compaction": zone == "movable",
        }
        return ",".join(means for means, keep in kept.items() if keep) or "none"


Rules = list[tuple[bool, str]]  # whether one is broken, and the reason why it is one
CHOICES: Final = tuple(
    field.name for field in fields(Policy) if field.name not in ("name", "status", "origin", "summary", "memory")
)


def _in_order(repair: str) -> str:
    """The means of `repair` in the order in which they are written, where they are known ones, each once."""
    known = ("merge", "collapse", "compaction")
    means = repair.replace("+", ",").split(",")
    if len(set(means)) == len(means) and set(means) <= set(known):
        return ",".join(sorted(means, key=known.index))
    return repair


def _impossible(policy: Policy) -> Rules:
    """Combinations of choices that cannot work, each with its reason."""
    return _with_sizes(policy) + _with_sources(policy) + _with_repairs(policy)


def _with_sizes(policy: Policy) -> Rules:
    """Sizes, punches, splits, and what is for guest_memfd only."""
    huge_only = policy.unit >= PAGE << ORDER_2M
    confidential = policy.memory == "guest_memfd"
    pooled = policy.source == "pool"
    giga = policy.sizes == (PAGE << ORDER_1G,)
    return [
        (
            pooled and not (huge_only and len(policy.sizes) == 1),
            "a pool holds pages of one huge size: set sizes=2M or sizes=1G",
        ),
        (
            PAGE < policy.unit < PAGE << ORDER_2M and policy.memory != "host",
            "where there is no larger page Linux takes one of 4K: sizes below 2M end with 4K",
        ),
        (
            bool(policy.fallocate_sizes) and policy.fallocate_sizes[-1] != policy.unit,
            "fallocate_sizes end with the same size as sizes: what faults fall back to, fallocate does, too",
        ),
        (policy.memory == "anon" and 2 * PAGE in policy.sizes, "anonymous memory has no folios of 8K (THP_ORDERS_ALL_ANON)"),
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
        (
            policy.truncation == "zeroes" and not confidential,
            "truncation is a choice for guest_memfd: other memory is always zeroed (L14)",
        ),
        (
            policy.accept_mark == "none" and not confidential,
            "accept_mark is a choice for guest_memfd: nobody accepts other memory",
        ),
    ]


def _with_sources(policy: Policy) -> Rules:
    """Pools, merging, conversion, and what each kind of memory is like."""
    pooled = policy.source == "pool"
    giga = policy.sizes == (PAGE << ORDER_1G,)
    return [
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
        (policy.pool_at != "run" and not pooled, "there is no pool that could be taken at boot (set source=pool)"),
        (
            policy.merge == "eager" and PAGE << ORDER_2M not in policy.sizes and not giga,
            "there is nothing to merge to below 2M",
        ),
        (policy.memory == "hugetlb" and not pooled, "hugetlb memory comes from a pool"),
        (
            policy.memory == "cache" and (policy.sizes != (PAGE,) or policy.zone != "movable"),
            "page cache is movable memory in 4K pages here (large folios of file systems are not modelled)",
        ),
        (
            policy.effort == "atomic" and (policy.memory != "host" or policy.zone == "movable"),
            "effort=atomic is GFP_ATOMIC, which is for the kernel's own memory: no page of a guest's is allocated with it",
        ),
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


def _with_repairs(policy: Policy) -> Rules:
    """What mends memory: `repair` and `zero_scan`."""
    collapse = policy.is_repaired_by("collapse")
    compaction = policy.is_repaired_by("compaction")
    merges = policy.is_repaired_by("merge")
    huge = PAGE << ORDER_2M
    pooled = policy.source == "pool"
    scan = policy.zero_scan == "on"
    return [
        (
            merges and policy.merge == "never",
            "repair=merge is what merge does, and nothing merges: set merge=eager or merge=lazy",
        ),
        (
            not merges and policy.merge != "never",
            f"merge={policy.merge} mends what was split: repair=merge goes with it (or set merge=never)",
        ),
        (collapse and pooled, "khugepaged makes no hugetlb pages: what a pool's pages are split to merges (repair=merge)"),
        (
            collapse and policy.copies_private_memory is False and policy.memory == "guest_memfd",
            "khugepaged copies pages, and guest_memfd is unmovable: only zone=movable allows it, as an upper bound (K16)",
        ),
        (
            collapse and huge not in policy.sizes and not pooled,
            "khugepaged collapses only memory that may have 2M pages: there are none in sizes",
        ),
        (
            collapse and policy.unit >= huge and not pooled,
            "memory in 2M pages only has no holes that khugepaged could fill: what is split there merges (repair=merge)",
        ),
        (collapse and policy.memory in ("host", "cache"), "the host's own memory is no process's that khugepaged could scan"),
        (
            compaction and pooled,
            "compaction leaves a pool's pages where they are; what the host's kcompactd wins is had when the pool grows",
        ),
        (
            compaction and policy.zone != "movable",
            "this memory is unmovable: set zone=movable (an upper bound, K16); the host's kcompactd works without `repair`",
        ),
        (
            not compaction and policy.zone == "movable",
            "compaction moves what is movable: repair=compaction goes with zone=movable",
        ),
        (scan and policy.memory == "anon", "the shrinker looks for zeros in anonymous memory as it is (L17)"),
        (
            scan and policy.memory in ("guest_memfd", "host", "cache"),
            "zero_scan is for shmem: the host cannot read private memory, and its own has base pages",
        ),
        (scan and policy.memory == "hugetlb", "a part of a hugetlb page is never freed, zeros or not (L18)"),
        (
            scan and policy.memory == "shmem" and (huge not in policy.sizes or policy.unit >= huge),
            "zero_scan splits 2M pages to 4K: both must be in sizes",
        ),
    ]
