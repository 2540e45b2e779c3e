"""The sentences under a comparison follow from its figures."""

import pytest

from gmemlab.lab.findings import findings
from lab_world import make_row

MIB = 1 << 20
Given = dict[str, float | tuple[float, float, float]]
SAME: Given = {"peak_host_per_guest": 1.0, "peak_guest": 100.0, "free_2m_start": 100.0, "free_2m_after": 90.0, "launches": 10.0}
NULL = {"free_2m_start": 110.0, "free_2m_after": 100.0, "mapped_2m_mean": 0.75, "launches_failed": 0.0}


def test_no_difference() -> None:
    rows = [make_row(name, NULL, mapped_2m_mean=0.8, **SAME) for name in ("4k", "thp")]
    assert findings(rows) == (
        "All policies keep the same share of mapped private memory at 2M, over time: 80.0%; simple arithmetic says 75.0%.",
        "In host memory, in what fails and in what they leave behind the policies hardly differ.",
    )


def test_leaders_are_named_together_and_held_against_4k() -> None:
    rows = [
        make_row("4k", NULL, mapped_2m_mean=0.0, **SAME),
        make_row("thp", NULL, mapped_2m_mean=0.904, **SAME),
        make_row("ladder", NULL, mapped_2m_mean=0.5, **SAME),
        make_row("thp-inplace", NULL, mapped_2m_mean=0.903, **SAME),
    ]
    assert findings(rows)[0] == (
        "thp and thp-inplace keep the most at 2M: 90.4% of the private memory that guests map, over time,"
        " 90.4 points more than 4k; simple arithmetic says 75.0%."
    )


def test_without_4k_the_worst_is_the_reference() -> None:
    rows = [make_row("thp", mapped_2m_mean=0.9, **SAME), make_row("ladder", mapped_2m_mean=0.5, **SAME)]
    assert "40.0 points more than ladder" in findings(rows)[0]


def test_a_difference_inside_the_spread_is_none() -> None:
    rows = [
        make_row("thp", mapped_2m_mean=(0.9, 0.7, 0.95), **SAME),
        make_row("ladder", mapped_2m_mean=(0.8, 0.75, 0.85), **SAME),
    ]
    assert findings(rows)[0].startswith("All policies keep the same share")


def test_a_policy_that_fails_launches_is_no_leader_but_named() -> None:
    rows = [
        make_row("thp", NULL, mapped_2m_mean=0.8, **SAME),
        make_row("4k", NULL, mapped_2m_mean=0.0, **SAME),
        make_row("thp-strict-zero", NULL, mapped_2m_mean=0.852, **{**SAME, "launches": 33.0, "launches_failed": 5.0}),
        make_row("hugetlb-1g", NULL, mapped_2m_mean=0.99, **{**SAME, "launches_failed": (0.0, 0.0, 2.0)}),
    ]
    failures, coverage = findings(rows)[:2]
    assert (
        failures
        == "Launches that fail: thp-strict-zero 5 of 33 (simple arithmetic expects 0), hugetlb-1g up to 2 with some seeds (0)."
    )
    assert coverage == (
        "Of the policies that started all guests, thp keeps the most at 2M: 80.0% of the private memory that guests map, over"
        " time, 80.0 points more than 4k; simple arithmetic says 75.0%. Left out: thp-strict-zero (85.2%, but 5 of 33 launches"
        " failed) and hugetlb-1g (99.0%, but up to 2 launches failed with some seeds)."
    )


def test_equal_policies_beside_one_that_fails_launches() -> None:
    nothing = make_row("hugetlb-1g", **{**SAME, "launches_failed": 10.0})
    nothing = type(nothing)(nothing.policy, (), {**nothing.figures, "mapped_2m_mean": None}, nothing.null)
    rows = [make_row("thp", mapped_2m_mean=0.8, **SAME), make_row("ladder", mapped_2m_mean=0.8, **SAME), nothing]
    assert findings(rows)[1] == (
        "Of the policies that started all guests, thp and ladder keep the same share of mapped private memory at 2M, over time:"
        " 80.0%. Left out: hugetlb-1g (nothing mapped, but 10 of 10 launches failed)."
    )


@pytest.mark.parametrize("whole", [("4k",), ("4k", "4k-inplace")])
def test_if_nothing_is_left_to_compare_all_are_and_failures_are_named(whole: tuple[str, ...]) -> None:
    """One policy alone, or several without a single 2M mapping, would be no ranking."""
    rows = [make_row(name, mapped_2m_mean=0.0, **SAME) for name in whole]
    rows.append(make_row("thp-strict-zero", mapped_2m_mean=0.852, **{**SAME, "launches_failed": 5.0}))
    assert findings(rows)[1] == (
        "thp-strict-zero keeps the most at 2M: 85.2% of the private memory that guests map, over time, 85.2 points more than"
        " 4k. Shares of fewer guests: thp-strict-zero (5 of 10 launches failed)."
    )


def test_running_guests_without_memory_come_first() -> None:
    starving: Given = {"runtime_failures": 12.0, "conversions": 1e9, **SAME}
    rows = [
        make_row("4k", mapped_2m_mean=0.0, **SAME),
        make_row("thp-strict-zero", mapped_2m_mean=0.9, **starving),
        make_row("hugetlb-2m", mapped_2m_mean=0.9, **{**starving, "runtime_failures": (0.0, 0.0, 1.0)}),
    ]
    sentences = findings(rows)
    assert sentences[0] == (
        "Operations of running guests that find no memory: thp-strict-zero 12, hugetlb-2m up to 1 with some seeds."
    )
    assert sentences[1].startswith("thp-strict-zero and hugetlb-2m keep the most")
    assert len(sentences) == 2


def test_all_that_guests_lacked_is_told_and_one_other_thing() -> None:
    short: Given = {
        **SAME,
        "launches_failed": 1.0,
        "runtime_failures": 1.0,
        "pool_wanted": 4.0 * MIB,
        "pool_missing": 1.0 * MIB,
    }
    rows = [
        make_row("4k", **{**SAME, "peak_host_per_guest": 0.5}, stale=4096.0),
        make_row("thp", **SAME),
        make_row("hugetlb-2m", mapped_2m_mean=0.9, **short),
        make_row("hugetlb-1g", **{**SAME, "pool_wanted": 4.0 * MIB, "pool_missing": (0.0, 0.0, 2.0 * MIB)}),
    ]
    sentences = findings(rows)
    assert sentences[:3] == (
        "Free memory does not fill the pools: that of hugetlb-2m lacks 1M of 4M, that of hugetlb-1g up to 2M with some seeds.",
        "Launches that fail: hugetlb-2m 1 of 10.",
        "Operations of running guests that find no memory: hugetlb-2m 1.",
    )
    assert sentences[3].startswith("hugetlb-2m keeps the most at 2M: 90.0%")
    assert len(sentences) == 5
    assert "costs the host the most" in sentences[4] or "cost the host the most" in sentences[4]


def test_host_memory_names_what_makes_the_difference() -> None:
    rows = [
        make_row("4k", **{**SAME, "peak_host_per_guest": 0.8}, peak_mapped=80.0),
        make_row("hugetlb-1g", **{**SAME, "peak_host_per_guest": 1.3}, peak_mapped=70.0, peak_pool_idle=60.0),
    ]
    assert (
        "hugetlb-1g costs the host the most: 1.30 bytes per byte of guests at the peak, against 0.80 with 4k;"
        " most of the difference is memory idle in its pool (0.60)."
    ) in findings(rows)


def test_host_memory_names_all_that_cost_alike_and_no_more_than_it_knows() -> None:
    rows = [
        make_row("4k", **{**SAME, "peak_host_per_guest": 1.0}, peak_mapped=100.0),
        make_row("thp", **{**SAME, "peak_host_per_guest": 1.001}, peak_mapped=100.0),
        make_row("thp-inplace", **{**SAME, "peak_host_per_guest": 1.3}, peak_mapped=110.0, peak_unmapped=8.0, peak_tables=12.0),
        make_row("hugetlb-2m", **{**SAME, "peak_host_per_guest": 1.299}, peak_mapped=110.0, peak_pool_idle=19.0),
    ]
    assert (
        "thp-inplace and hugetlb-2m cost the host the most: 1.30 bytes per byte of guests at the peak, against 1.00 with 4k and"
        " thp; the largest part of the difference is page tables (0.12)."
    ) in findings(rows)


def test_starved_guests_are_not_cheap() -> None:
    """Nor dear: rows with failures are left out, whichever way they deviate."""
    rows = [
        make_row("4k", **{**SAME, "peak_host_per_guest": 1.0}, peak_mapped=100.0),
        make_row("thp", **{**SAME, "peak_host_per_guest": 1.1}, peak_mapped=110.0),
        make_row("thp-strict-zero", **{**SAME, "peak_host_per_guest": 0.5}, launches_failed=1.0),
        make_row("hugetlb-2m", **{**SAME, "peak_host_per_guest": 1.9}, runtime_failures=1.0),
    ]
    assert (
        "Where no guest went without memory, thp costs the host the most: 1.10 bytes per byte of guests at the peak, against"
        " 1.00 with 4k; most of the difference is memory that guests map as private (0.10)."
    ) in findings(rows)
    assert not any("the host the most" in text for text in findings(rows[1:]))
    assert not any("it costs the host" in text for text in findings(rows[3:]))


def test_what_is_left_is_held_against_what_the_host_had_before_any_pool() -> None:
    pool = {**SAME, "free_2m_after": 40.0, "pool_idle_after": 10.0 * MIB}
    rows = [
        make_row("hugetlb-2m", NULL, **pool),
        make_row("thp", NULL, **SAME),
        make_row("4k", NULL, **SAME),
        make_row("thp-inplace", NULL, **{**SAME, "free_2m_after": 80.0}),
    ]
    assert (
        "At first 100 pages of 2M are to be had; after all guests have left 40 under hugetlb-2m (10M more in its pool),"
        " 90 under thp and 4k."
    ) in findings(rows)


def test_who_started_no_guests_does_not_leave_the_most() -> None:
    rows = [
        make_row("4k", **{**SAME, "free_2m_after": 50.0}),
        make_row("thp", **{**SAME, "free_2m_after": 70.0}),
        make_row("thp-strict-zero", **{**SAME, "free_2m_after": 100.0, "launches_failed": 10.0}),
    ]
    assert ("At first 100 pages of 2M are to be had; after all guests have left 50 under 4k, 70 under thp.") in findings(rows)
    rows[0] = make_row("hugetlb-1g", **{**SAME, "free_2m_after": 5.0, "launches_failed": 1.0})
    assert any("5 under hugetlb-1g, 70 under thp." in text for text in findings(rows))


def test_what_one_policy_leaves() -> None:
    assert findings([make_row("4k", **{**SAME, "free_2m_after": 50.0})])[1] == (
        "At first 100 pages of 2M are to be had; after all guests have left 50 under 4k."
    )


def test_what_is_left_inside_the_spread_is_no_difference() -> None:
    rows = [
        make_row("4k", **{**SAME, "free_2m_after": (50.0, 30.0, 71.0)}),
        make_row("thp", **{**SAME, "free_2m_after": (90.0, 70.0, 91.0)}),
    ]
    assert not any("At first" in text for text in findings(rows))


def test_1g_pages_count_if_there_were_some() -> None:
    few, many = {"free_1g_start": 3.0, "free_1g_after": 0.0}, {"free_1g_start": 30.0, "free_1g_after": 6.0}
    kept = {"free_1g_start": 3.0, "free_1g_after": 3.0}
    assert not any("1G" in text for text in findings([make_row("4k", **SAME, **few), make_row("thp", **SAME, **kept)]))
    texts = findings([make_row("4k", **SAME, **many), make_row("thp", **SAME, **{**many, "free_1g_after": 30.0})])
    assert "At first 30 pages of 1G are to be had; after all guests have left 6 under 4k, 30 under thp." in texts


def test_small_effects_fill_what_is_left() -> None:
    rows = [
        make_row("4k", mapped_2m_mean=0.0, **SAME),
        make_row(
            "thp-inplace", mapped_2m_mean=0.9, entries_2m=1000.0, shattered=100.0, shattered_by_conversion=90.0,
            mappings_healed=3.0, conversions=1000.0, conversions_refused=20.0, **SAME,
        ),
    ]  # fmt: skip
    assert findings(rows)[1:] == (
        "Under thp-inplace 100 of 1,000 mappings of 2M fall to 4K, 90 of them by conversion, and 3 come back.",
        "thp-inplace refuses 20 of 1,000 conversions with EAGAIN (pins, references).",
    )


def test_one_policy_alone() -> None:
    row = make_row("thp", {**NULL, "peak_host_per_guest": 1.0}, mapped_2m_mean=0.8, **{**SAME, "peak_host_per_guest": 1.5})
    assert findings([row]) == (
        "thp keeps 80.0% of the private memory that guests map at 2M, over time; simple arithmetic says 75.0%.",
        "At the peak it costs the host 1.50 bytes per byte of guests; simple arithmetic says 1.00.",
        "At first 100 pages of 2M are to be had; after all guests have left 90 under thp.",
    )


def test_nothing_was_mapped() -> None:
    row = make_row("hugetlb-1g", launches=1.0, launches_failed=1.0)
    empty = type(row)(row.policy, (), {**row.figures, "mapped_2m_mean": None, "peak_host_per_guest": None}, row.null)
    assert findings([empty]) == ("Launches that fail: hugetlb-1g 1 of 1.", "No guest mapped any private memory.")
