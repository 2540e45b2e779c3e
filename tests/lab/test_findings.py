"""The sentences under a comparison follow from its figures."""

from gmemlab.lab.findings import MOST_SENTENCES, findings
from lab_world import make_row

MIB = 1 << 20
SAME = {"peak_host_per_guest": 1.0, "peak_guest": 100.0, "free_2m_start": 100.0, "free_2m_after": 90.0, "launches": 10.0}
NULL = {"free_2m_start": 110.0, "free_2m_after": 100.0, "mapped_2m_mean": 0.75, "launches_failed": 0.0}


def test_no_difference() -> None:
    rows = [make_row(name, NULL, mapped_2m_mean=0.8, **SAME) for name in ("4k", "thp")]
    assert findings(rows) == (
        "All policies keep the same share of mapped private memory at 2M, over time: 80.0%; simple arithmetic says 75.0%.",
        "In host memory, failures and what they leave behind the policies make no difference.",
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


def test_a_policy_that_fails_launches_is_no_leader() -> None:
    failing = {**SAME, "launches_failed": 5.0}
    rows = [
        make_row("thp", NULL, mapped_2m_mean=0.8, **SAME),
        make_row("4k", NULL, mapped_2m_mean=0.0, **SAME),
        make_row("hugetlb-1g", NULL, mapped_2m_mean=0.99, **failing),
    ]
    sentences = findings(rows)
    assert sentences[0].startswith("thp keeps the most at 2M: 80.0%")
    assert sentences[1] == "hugetlb-1g fails 5 of 10 launches; simple arithmetic expects 0."


def test_a_policy_that_starves_its_guests_is_told_once() -> None:
    starving = {"runtime_failures": 12.0, "conversions": 100.0, **SAME}
    worse = make_row("thp-strict-zero", mapped_2m_mean=0.9, **starving)
    leading = findings([make_row("4k", mapped_2m_mean=0.0, **SAME), worse])
    assert leading[0].endswith("; but under thp-strict-zero 12 operations of running guests find no memory.")
    assert "find no memory" not in leading[1]
    behind = findings([make_row("thp", mapped_2m_mean=1.0, **SAME), worse])
    assert behind[1] == "Under thp-strict-zero 12 operations of running guests find no memory."


def test_host_memory_names_what_makes_the_difference() -> None:
    rows = [
        make_row("4k", **{**SAME, "peak_host_per_guest": 0.8}, peak_mapped=80.0),
        make_row("hugetlb-1g", **{**SAME, "peak_host_per_guest": 1.3}, peak_mapped=70.0, peak_pool_idle=60.0),
    ]
    assert (
        "hugetlb-1g costs the host the most: 1.30 bytes per byte of guests at the peak, against 0.80 with 4k;"
        " most of the difference is memory idle in its pool (0.60)."
    ) in findings(rows)


def test_what_is_left_is_held_against_what_could_be_left() -> None:
    pool = {**SAME, "free_2m_start": 50.0, "free_2m_after": 40.0, "pool_idle_after": 10.0 * MIB}
    rows = [make_row("hugetlb-2m", NULL, **pool), make_row("thp", NULL, **{**SAME, "free_2m_after": 45.0})]
    assert (
        "After all guests have left, thp leaves 45 of 90 possible 2M pages to be had, hugetlb-2m 40 of 40"
        " (the pool of hugetlb-2m holds 10M more)."
    ) in findings(rows)


def test_1g_pages_count_if_there_were_some() -> None:
    few, many = {"free_1g_start": 3.0, "free_1g_after": 0.0}, {"free_1g_start": 30.0, "free_1g_after": 6.0}
    assert not any("1G" in text for text in findings([make_row("4k", **SAME, **few), make_row("thp", **SAME)]))
    kept = {"free_1g_start": 30.0, "free_1g_after": 30.0}
    texts = findings([make_row("4k", **SAME, **many), make_row("thp", **SAME, **kept)])
    assert "After all guests have left, 4k leaves 6 of 30 possible 1G pages to be had, thp 30 of 30." in texts


def test_lost_contents_come_before_everything_else() -> None:
    rows = [
        make_row("4k", **SAME),
        make_row("thp", **{**SAME, "peak_host_per_guest": 1.9}, lost=4096.0, stale=8192.0, launches_failed=9.0),
    ]
    sentences = findings(rows)
    assert len(sentences) == MOST_SENTENCES
    assert sentences[1] == "Failed splits under thp drop 4K of live guest memory and leave 8K of stale contents (K2)."


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
    )


def test_nothing_was_mapped() -> None:
    row = make_row("hugetlb-1g", launches=1.0, launches_failed=1.0)
    empty = type(row)(row.policy, (), {**row.figures, "mapped_2m_mean": None, "peak_host_per_guest": None}, row.null)
    assert findings([empty]) == ("No guest mapped any private memory.", "hugetlb-1g fails 1 of 1 launches.")
