"""Policies: presets, single choices, and combinations that are refused with the reason."""

import itertools
from typing import Any

import pytest

from gmemlab.errors import UsageError
from gmemlab.policy import ALLOWED, CHOICES, Policy
from gmemlab.presets import PRESETS, find, for_guest, for_ordinary_memory, shared_side


def test_presets_are_those_of_the_design() -> None:
    assert list(PRESETS) == [
        "4k", "4k-inplace", "thp", "thp-inplace", "thp-strict-refuse", "thp-strict-zero", "thp-migratable", "hugetlb-2m",
        "hugetlb-1g", "hugetlb-1g-2m", "ladder", "shmem-thp", "anon-thp", "hugetlbfs",
    ]  # fmt: skip
    assert all(policy.origin and policy.summary and policy.status for policy in PRESETS.values())


@pytest.mark.parametrize(
    ("name", "choices", "words"),
    [
        ("thp", {"repair": "collapse"}, "only zone=movable allows it, as an upper bound"),
        ("thp", {"repair": "merge"}, "nothing merges"),
        ("thp", {"repair": "compaction"}, "is unmovable: set zone=movable"),
        ("thp", {"repair": "none", "zone": "movable"}, "goes with zone=movable"),
        ("thp-strict-zero", {"repair": "merge,compaction"}, "works without `repair`"),
        ("thp", {"repair": "always"}, "not one of the choices"),
        ("hugetlb-2m", {"repair": "none"}, "repair=merge goes with it"),
        ("hugetlb-2m", {"repair": "merge,collapse"}, "makes no hugetlb pages"),
        ("hugetlb-2m", {"repair": "merge,compaction"}, "when the pool grows"),
        ("thp-migratable", {"sizes": "64K,4K", "repair": "collapse,compaction"}, "none in sizes"),
        ("thp-strict-zero", {"repair": "merge,collapse,compaction", "zone": "movable"}, "no holes"),
        ("anon-thp", {"zero_scan": "on"}, "as it is"),
        ("thp", {"zero_scan": "on"}, "cannot read private memory"),
        ("hugetlbfs", {"zero_scan": "on"}, "never freed"),
        ("shmem-thp", {"zero_scan": "on", "sizes": "4K", "repair": "compaction"}, "both must be in sizes"),
        ("thp", {"punch": "defer"}, "anonymous memory"),
        ("thp", {"sizes": "1G"}, "from a pool only"),
        ("thp", {"sizes": "1G,2M"}, "at most 4M"),
        ("thp", {"sizes": "4K,2M"}, "largest first"),
        ("thp", {"sizes": "3M"}, "powers of two"),
        ("ladder", {"sizes": "2M,64K"}, "end with 4K"),
        ("shmem-thp", {"sizes": "64K", "repair": "compaction"}, "end with 4K"),
        ("shmem-thp", {"fallocate_sizes": "2M"}, "what faults fall back to"),
        ("anon-thp", {"sizes": "2M,8K,4K"}, "no folios of 8K"),
        ("thp", {"merge": "eager"}, "in-place"),
        ("thp", {"hvo": "on"}, "hugetlb pages only"),
        ("thp-strict-zero", {"punch": "split"}, "cannot fill again"),
        ("hugetlb-2m", {"split": "2m-first"}, "for 1G pages"),
        ("hugetlb-2m", {"sizes": "2M,4K"}, "one huge size"),
        ("shmem-thp", {"punch": "refuse"}, "never refuses"),
        ("shmem-thp", {"conversion": "in-place"}, "for guest_memfd"),
        ("thp-inplace", {"vmm_punch": "both"}, "no second side"),
        ("4k", {"colour": "red"}, "unknown choice"),
        ("4k", {"punch": "maybe"}, "allowed: split, zero, refuse, no-op, defer"),
        ("hugetlb-2m", {"pool": "lots"}, "allowed: auto"),
        ("hugetlb-2m", {"pool": "120%"}, "allowed: auto"),
        ("hugetlb-2m", {"pool": "0"}, "from 2M to 64T"),
        ("hugetlb-2m", {"pool": "1K"}, "from 2M to 64T"),
        ("hugetlb-1g", {"pool": "2M"}, "from 1G to 64T"),
        ("hugetlb-2m", {"pool": "65T"}, "from 2M to 64T"),
        ("hugetlb-2m", {"pool": "²%"}, "allowed: auto"),
        ("thp", {"pool": "80%"}, "no pool whose size"),
        ("thp", {"pool_at": "boot"}, "no pool that could be taken at boot"),
        ("4k", {"pool": "1G"}, "no pool whose size"),
        ("thp-inplace", {"shared": "thp"}, "there is none"),
        ("shmem-thp", {"shared": "thp"}, "there is none"),
        ("shmem-thp", {"vmm_punch": "both"}, "no second side"),
        ("shmem-thp", {"merge": "eager"}, "in-place"),
        ("hugetlb-2m", {"merge": "never"}, "whole pages only: merge is eager or lazy"),
        ("hugetlbfs", {"merge": "never"}, "whole pages only: merge is eager or lazy"),
        ("thp-inplace", {"merge": "lazy"}, "merges in the buddy allocator"),
        ("4k", {"merge": "lazy"}, "merge is eager or never"),
        ("4k", {"sizes": ""}, "^sizes: not a size"),
        ("shmem-thp", {"fallocate_sizes": "3M"}, "^fallocate_sizes: "),
    ],
)
def test_refused_with_the_reason(name: str, choices: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        find(name).with_choices(choices)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"sizes": ("2M",)}, "^sizes: not a tuple of bytes .*2097152, 4096"),
        ({"sizes": None}, "^sizes: not a tuple of bytes"),
        ({"sizes": [4096]}, "^sizes: not a tuple of bytes"),
        ({"sizes": (4096.0,)}, "^sizes: not a tuple of bytes"),
        ({"sizes": ()}, "^sizes: not a ladder"),
        ({"fallocate_sizes": "2M"}, "^fallocate_sizes: not a tuple of bytes"),
        ({"pool": 5}, "^pool: not a size of a pool .value 5; allowed: auto"),
        ({"pool": None}, "^pool: not a size of a pool"),
        ({"punch": 3}, "^punch: not one of the choices"),
        ({"merge": ["lazy"]}, "^merge: not one of the choices"),
    ],
)
def test_arguments_of_another_type(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Policy("own", **choices)


def test_lazy_merging_goes_with_two_sources_from_a_pool() -> None:
    policy = find("hugetlb-2m").with_choices({"conversion": "two-sources", "merge": "lazy", "vmm_punch": "both"})
    assert (policy.merge, policy.pool) == ("lazy", "auto")
    assert find("hugetlbfs").merge == "lazy"


def test_what_mends_a_policys_memory() -> None:
    """`repair` follows what is set, unless it is set; private memory that is moved makes any policy an upper bound (K16)."""
    assert find("thp-migratable").repair == "collapse,compaction"
    merged = find("thp-migratable").with_choices({"merge": "eager"})
    assert (merged.repair, merged.status) == ("merge,collapse,compaction", "upper bound")
    assert merged.with_choices({"merge": "never"}).repair == "collapse,compaction"
    assert find("thp-inplace").with_choices({"merge": "eager"}).repair == "merge"
    assert find("thp-migratable").with_choices({"zone": "unmovable"}).repair == "none"
    assert find("thp").with_choices({"zone": "movable"}).repair == "compaction"
    assert find("anon-thp").with_choices({"sizes": "4K"}).repair == "compaction"
    movable = find("thp").with_choices({"zone": "movable", "repair": "compaction+collapse", "shared": "thp"})
    assert (movable.repair, movable.status) == ("collapse,compaction", "upper bound")
    assert [shared_side(find("thp")).repair, shared_side(movable).repair] == ["compaction", "collapse,compaction"]
    assert find("shmem-thp").with_choices({"zero_scan": "on"}).zero_scan == "on"
    assert Policy("own", zone="movable", repair="compaction", status="merged").status == "upper bound"


def test_how_hard_the_shared_side_tries() -> None:
    """For 2M as `effort` says, but __GFP_RETRY_MAYFAIL is none of `vma_thp_gfp_mask`'s flags; 4K pages need no effort."""
    two = find("hugetlb-2m").with_choices({"conversion": "two-sources", "merge": "lazy", "vmm_punch": "both", "shared": "thp"})
    found = [shared_side(find("thp").with_choices({"shared": "thp", "effort": effort})).effort for effort in ("none", "light")]
    assert [*found, shared_side(two).effort, shared_side(find("thp")).effort] == ["none", "light", "direct-once", "none"]


def test_what_a_policy_is_for() -> None:
    for policy in PRESETS.values():
        right, wrong = for_guest, for_ordinary_memory
        if policy.memory != "guest_memfd":
            right, wrong = wrong, right
        assert right(policy) is policy
        with pytest.raises(UsageError, match=rf"^policy: .*ordinary memory.*'{policy.name}'; allowed: "):
            wrong(policy)
    with pytest.raises(UsageError, match=r"not a policy .value 3; allowed: "):
        for_guest(3)  # type: ignore[arg-type]


def test_every_single_choice_works_or_is_refused() -> None:
    worked = 0
    refused = []
    for name, (choice, values) in itertools.product(PRESETS, ALLOWED.items()):
        for value in values if choice in CHOICES else ():
            try:
                changed = PRESETS[name].with_choices({choice: value})
            except UsageError as refusal:
                refused.append(str(refusal))
            else:
                assert getattr(changed, choice) == value
                worked += 1
    assert worked > 130
    assert all(len(reason) > 20 for reason in refused)


def test_changed_policies_say_what_was_changed() -> None:
    policy = find("thp").with_choices({"punch": "zero", "sizes": "2M+64K+4K"})
    assert policy.name == "thp[punch=zero,sizes=2M+64K+4K]"
    assert (policy.status, policy.orders) == ("custom", (9, 4, 0))
