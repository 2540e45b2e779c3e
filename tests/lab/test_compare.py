"""Comparisons on a small host, with the real core."""

from pathlib import Path

import numpy as np
import pytest

from gmemlab.capture import capture
from gmemlab.errors import UsageError
from gmemlab.lab import compare as module
from gmemlab.lab.compare import Comparison, Row, Setting, compare, spread
from gmemlab.lab.figures import FIGURES
from gmemlab.lab.null_model import NULL_FIGURES
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.report.as_json import comparison_as_json
from gmemlab.workload.scenario import load
from gmemlab.workload.schema import Scenario
from hosts import LAZY
from lab_world import make_row, write_scenario

NAMES = ("4k", "thp", "thp-strict-zero", "hugetlb-2m")


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return load(write_scenario(tmp_path))


def make_host(seed: int) -> Host:
    return Host("1G", seed=seed)


def run(scenario: Scenario, *names: str, seeds: tuple[int, ...] = (0,)) -> Comparison:
    return compare(make_host, scenario, [find(name) for name in names], seeds)


def test_every_policy_has_a_row_with_every_figure(scenario: Scenario) -> None:
    rows: list[Row] = []
    settings: list[Setting] = []
    shown: list[tuple[str, float]] = []
    comparison = compare(
        make_host,
        scenario,
        [find(name) for name in NAMES],
        (0, 1),
        on_row=rows.append,
        progress=lambda name, share: shown.append((name, share)),
        on_setting=settings.append,
    )
    assert tuple(rows) == comparison.rows
    assert settings == [comparison.setting]
    assert comparison.setting.seeds == (0, 1)
    assert [row.policy.name for row in rows] == list(NAMES)
    for row in rows:
        assert row.figures.keys() == FIGURES.keys()
        assert row.null.keys() == set(NULL_FIGURES)
        assert [outcome.run.seed for outcome in row.outcomes] == [0, 1]
        values = [figure for key in FIGURES if (figure := row.figures[key]) is not None]
        assert all(figure.least <= figure.median <= figure.most for figure in values)
    assert {name for name, _ in shown} >= set(NAMES)
    assert all(0 <= share <= 1 for _, share in shown)


def test_huge_pages_are_mapped_where_they_are_had(scenario: Scenario) -> None:
    four, thp, strict, pool = run(scenario, *NAMES).rows
    assert four.outcomes[0].figures["mapped_2m_mean"] == 0.0
    for row in (thp, strict, pool):
        found = row.outcomes[0].figures
        assert 0.5 < (found["mapped_2m_ready"] or 0) <= 1.0
        assert (found["shattered_by_conversion"] or 0) > 0
        assert found["launches"] == 2
        assert found["launches_failed"] == 0
    assert pool.outcomes[0].run.pool_bytes == 256 << 20
    assert pool.outcomes[0].figures["pool_idle_after"] == 256 << 20
    assert pool.outcomes[0].figures["pool_missing"] == 0


def test_all_rows_start_with_the_same_host(scenario: Scenario) -> None:
    """Pools too: their rows start before the pool is filled."""
    four, _, _, pool = run(scenario, *NAMES).rows
    for key in ("free_2m_start", "free_2m_unmovable_start", "free_1g_start", "clean_2m_start"):
        assert pool.figures[key] == four.figures[key]
    assert pool.null["free_2m_start"] == four.null["free_2m_start"]
    assert pool.outcomes[0].run.filled.free_2m == pool.outcomes[0].run.start.free_2m - 128
    splits = pool.outcomes[0].figures["peak_structs"] or 0
    assert splits > 0  # what HVO gave back when the pool was filled is no negative cost


def test_pool_that_boot_took_is_complete_on_a_fragmented_host(scenario: Scenario) -> None:
    """K21: at run time no 1G page is left; the figures of the start are of the host without a pool, as in all rows."""
    policies = [find("hugetlb-1g").with_choices({"pool_at": at, "pool": "2G"}) for at in ("run", "boot")]
    comparison = compare(lambda seed: Host("8G", 0.4, seed), scenario, policies, (0,))
    late, early = (row.outcomes[0] for row in comparison.rows)
    assert (late.run.pool_bytes, early.run.pool_bytes) == (0, 2 << 30)
    assert (late.run.pool_wanted_bytes, early.run.pool_wanted_bytes) == (2 << 30, 2 << 30)
    assert (late.figures["launches_failed"], early.figures["launches_failed"]) == (late.figures["launches"], 0)
    assert early.figures["free_2m_start"] == late.figures["free_2m_start"]
    assert early.null["free_2m_start"] == late.null["free_2m_start"]
    taken = "hugetlb-1g[pool_at=boot,pool=2G]: its pool was taken at boot, before anything else (hugepages=)"
    assert any(note.startswith(taken) for note in comparison.notes)
    assert [row["policy"]["pool_at"] for row in comparison_as_json(comparison, ())["policies"]] == ["run", "boot"]


def test_machine_that_runs_has_no_pool_from_boot_on(scenario: Scenario) -> None:
    machine = Host.from_snapshot(capture(LAZY))
    with pytest.raises(UsageError, match=r"^host: no pool can be taken at the boot"):
        compare(lambda seed: machine.copy(), scenario, [find("hugetlb-1g").with_choices({"pool_at": "boot"})], (0,))


def test_rows_whose_guests_went_without_memory() -> None:
    assert not make_row("thp").starved
    assert make_row("thp", launches_failed=(0.0, 0.0, 1.0)).starved
    assert make_row("thp", runtime_failures=3.0).starved


def test_all_policies_of_one_seed_meet_the_same_events(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = run(scenario, "thp", "thp-inplace", seeds=(3, 4))
    monkeypatch.setattr(module, "KEPT_TRACES", 0)  # generated anew for each policy
    again = run(scenario, "thp", "thp-inplace", seeds=(3, 4))
    for row, other in zip(comparison.rows, again.rows, strict=True):
        for outcome, repeated in zip(row.outcomes, other.outcomes, strict=True):
            assert outcome.figures == repeated.figures
            assert outcome.null == repeated.null
            assert np.array_equal(outcome.run.samples, repeated.run.samples)
    thp, inplace = (row.outcomes for row in comparison.rows)
    assert [outcome.figures["launches"] for outcome in thp] == [outcome.figures["launches"] for outcome in inplace]
    assert thp[0].null["mapped_2m_end"] == inplace[0].null["mapped_2m_end"]
    assert thp[0].figures != thp[1].figures


def test_hosts_are_made_once_and_copied(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the originals fit into memory; and copies give what fresh hosts give."""
    made: list[int] = []

    def factory(seed: int) -> Host:
        made.append(seed)
        return Host("1G", 0.4, seed)

    policies = [find(name) for name in ("thp", "4k", "hugetlb-2m")]
    copied = compare(factory, scenario, policies, (3, 4))
    assert made == [3, 4]
    monkeypatch.setattr(module, "KEPT_HOSTS", 0)
    fresh = compare(factory, scenario, policies, (3, 4))
    assert made == [3, 4, 3, 4, 3, 4, 3, 4]
    for row, other in zip(copied.rows, fresh.rows, strict=True):
        assert row.figures == other.figures


def test_fragmentation_of_the_host_is_not_counted_as_the_guests(scenario: Scenario) -> None:
    empty = compare(lambda seed: Host("1G", seed=seed), scenario, [find("4k")], (0,)).rows[0]
    broken = compare(lambda seed: Host("1G", 0.4, seed), scenario, [find("4k")], (0,)).rows[0]
    for key in ("launches", "conversions", "entries_4k", "entries_2m"):
        assert broken.figures[key] == empty.figures[key]
    assert broken.figures["huge_backed_end"] == empty.figures["huge_backed_end"]


@pytest.mark.parametrize(
    ("names", "seeds", "message"),
    [
        ((), (0,), "nothing to compare"),
        (("thp",), (), "nothing to compare"),
        (("thp", "shmem-thp"), (0,), "a policy for ordinary memory"),
    ],
)
def test_refusals(scenario: Scenario, names: tuple[str, ...], seeds: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(scenario, *names, seeds=seeds)


def test_scenario_larger_than_the_host(tmp_path: Path) -> None:
    scenario = load(write_scenario(tmp_path, fixed='["2G"]'))
    with pytest.raises(UsageError, match="larger than the host"):
        run(scenario, "thp")


def test_spread() -> None:
    found = spread([3.0, None, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.least, found.most) == (2.0, 1.0, 3.0)
    assert spread([None, None]) is None


def test_notes_come_once(scenario: Scenario) -> None:
    policy = find("hugetlb-2m").with_choices({"pool": "4G"})
    comparison = compare(make_host, scenario, [policy], (0, 1))
    assert len([note for note in comparison.notes if "the pool was to have 4G" in note]) == 1
