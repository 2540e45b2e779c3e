"""Policies: presets, single choices, and combinations that are refused with the reason."""

import itertools

import pytest

from gmemlab.errors import UsageError
from gmemlab.policy import ALLOWED, CHOICES, PRESETS, find


def test_presets_are_those_of_the_design() -> None:
    assert list(PRESETS) == [
        "4k", "4k-inplace", "thp", "thp-inplace", "thp-strict-refuse", "thp-strict-zero", "thp-migratable", "hugetlb-2m",
        "hugetlb-1g", "hugetlb-1g-2m", "ladder", "shmem-thp", "anon-thp", "hugetlbfs",
    ]  # fmt: skip
    assert all(policy.origin and policy.summary and policy.status for policy in PRESETS.values())


@pytest.mark.parametrize(
    ("name", "choices", "words"),
    [
        ("thp", {"repair": "collapse"}, "not modelled yet"),
        ("thp", {"punch": "defer"}, "anonymous memory"),
        ("thp", {"sizes": "1G"}, "from a pool only"),
        ("thp", {"sizes": "1G,2M"}, "at most 4M"),
        ("thp", {"sizes": "4K,2M"}, "largest first"),
        ("thp", {"sizes": "3M"}, "powers of two"),
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
    ],
)
def test_refused_with_the_reason(name: str, choices: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        find(name).with_choices(choices)
    assert "\n" not in str(caught.value)


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
    assert worked > 150
    assert all(len(reason) > 20 for reason in refused)


def test_changed_policies_say_what_was_changed() -> None:
    policy = find("thp").with_choices({"punch": "zero", "sizes": "2M+64K+4K"})
    assert policy.name == "thp[punch=zero,sizes=2M+64K+4K]"
    assert (policy.status, policy.orders) == ("custom", (9, 4, 0))
