"""Figures of the running kernel beside those of the model and of a null model, on little memory; and wrong models."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gmemlab.capture import capture
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.observe.free_memory import free_by_order, unmovable_blocks
from gmemlab.kernel.quiet import on_one_cpu
from gmemlab.kernel.suites import recording
from gmemlab.kernel.suites.recording import Recording, record_suite
from gmemlab.kernel.suites.table import SUITES, find
from gmemlab.lab.conform import daemons, fragmentation, mix, order
from gmemlab.lab.conform.measured import Comparison
from gmemlab.lab.conform.run import AGREES, DIFFERS, SKIPPED, check_recording, conform_suite
from gmemlab.model.host import Host
from hosts import LAZY, TWO_NODES

FEW = {"fragmentation": 1 << 16, "mix": 1000, "daemons": 8, "order": 24}  # half a GiB at most, but for `daemons`: 2 GiB
PATIENCE = 300.0  # seconds: other tests may hold the same settings
NEAR = 0.001  # of free memory


def recorded(name: str, folder: Path) -> Recording:
    path = folder / f"{name}.jsonl"
    record_suite(path, find(name), FEW[name], 5, Budget(leave=6 << 30), PATIENCE)
    found = recording.read(path)
    if found.skipped:
        pytest.skip(found.skipped)
    return found


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recording]:
    """What the kernel showed in each suite, recorded once."""
    folder, known = tmp_path_factory.mktemp("measured"), dict[str, Recording]()

    def of(name: str) -> Recording:
        if name not in known:
            known[name] = recorded(name, folder)
        return known[name]

    return of


def test_every_suite_is_tested() -> None:
    assert {name for name, suite in SUITES.items() if suite.measured} == FEW.keys()


def test_fragmentation_is_the_models(recordings: Callable[[str], Recording], tmp_path: Path) -> None:
    """What the kernel showed, once more if another process was in the way."""
    result = check_recording(recordings("fragmentation"))
    if result.status == DIFFERS:
        result = check_recording(recorded("fragmentation", tmp_path))
    assert result.status == AGREES, [one for one in result.comparisons if not one.holds]
    assert result.operations == 2 * FEW["fragmentation"]
    assert {one.name.split(":")[0] for one in result.comparisons} == {"guest_memfd", "shmem", "all of these"}
    assert result.comparisons[-1].distance < result.comparisons[-1].null_distance


def test_mix_is_the_models(recordings: Callable[[str], Recording], tmp_path: Path) -> None:
    """Nearer than the null model, and within twice the kernel's own distance or a thousandth of free memory.

    In so short a run the kernel's runs can lie nearer together than anything that a snapshot tells: of ten recordings of 1,000
    operations on 24 GiB (6.18.44, November 2026), other tests running or not, six kept the suite's rule; in the other four the
    runs lay 0.002 to 0.007 % apart, half a MiB to 1.6 MiB, and the model 0.006 to 0.061 % off. With 10,000
    operations, which take 6 GiB and up to a minute, the rule alone held in six of seven tries, not in every one. Once more if
    another process was in the way.
    """
    result = check_recording(recordings("mix"))
    if not all(map(is_near, result.comparisons[:-1])):
        result = check_recording(recorded("mix", tmp_path))
    *moments, overall = result.comparisons
    assert overall.holds, moments
    assert all(map(is_near, moments)), moments
    assert (result.operations, result.failed) == (5 * FEW["mix"], 0)


def is_near(one: Comparison) -> bool:
    """Whether the model lies within twice the kernel's own distance, or within `NEAR`."""
    assert one.spread is not None
    return one.distance <= max(mix.FACTOR * one.spread, NEAR)


def test_daemons_work_as_the_models(recordings: Callable[[str], Recording], tmp_path: Path) -> None:
    """To the page, once more if another process was in the way; kcompactd works at 100 and not at 1."""
    result = check_recording(recordings("daemons"))
    if result.status == DIFFERS:
        result = check_recording(recorded("daemons", tmp_path))
    assert result.status == AGREES, [one for one in result.comparisons if not one.holds]
    works = {one.name: one.kernel[0] for one in result.comparisons if "kcompactd works" in one.name}
    assert sorted(size > 0 for size in works.values()) == [False, True]
    assert any(one.name.startswith("anonymous") and one.kernel[0] for one in result.comparisons)


def test_freed_pages_come_back_in_the_models_order(recordings: Callable[[str], Recording], tmp_path: Path) -> None:
    """All of them in reverse, in the model; once more if another process was in the way."""
    result = check_recording(recordings("order"))
    if result.status == DIFFERS:
        result = check_recording(recorded("order", tmp_path))
    *kinds, overall = result.comparisons
    assert result.status == AGREES, kinds
    assert len(kinds) == len(order.TITLES)
    assert overall.distance < overall.null_distance / 4


def test_model_without_lists_of_cpus_is_told(recordings: Callable[[str], Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "Host", lambda size, cpus=0: Host(size))
    result = check_recording(recordings("order"))
    assert result.status == DIFFERS
    assert "came back in reverse: all pages of a range" in [one.name for one in result.comparisons if not one.holds]


def test_suite_that_does_not_fit_is_skipped() -> None:
    result = conform_suite(find("fragmentation"), 1 << 40, 0, Budget())
    assert result.status == SKIPPED
    assert "of memory for suite fragmentation" in result.reason


def test_model_without_khugepaged_is_told(recordings: Callable[[str], Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons.ModelMachine, "repair", lambda machine, memory, most: None)
    result = check_recording(recordings("daemons"))
    assert result.status == DIFFERS
    assert any("in 2M folios" in one.name for one in result.comparisons if not one.holds)


def none_merged(host: Host) -> tuple[int, ...]:
    """Whatever is free is in single pages."""
    return host.free_bytes, *(0,) * 10


@pytest.mark.parametrize(
    ("suite", "module", "amiss"), [("fragmentation", fragmentation, "shmem: free by order"), ("mix", mix, "all of these")]
)
def test_wrong_model_is_told(
    suite: str, module: ModuleType, amiss: str, recordings: Callable[[str], Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More faults, for which no kernel is needed: tests/lab/test_measured.py."""
    found = recordings(suite)
    monkeypatch.setattr(module, "free_by_order", none_merged)
    result = check_recording(found)
    assert result.status == DIFFERS
    assert amiss in [one.name for one in result.comparisons if not one.holds], result.comparisons


def test_free_memory_by_order_is_the_snapshots() -> None:
    """Memory that is not handed out yet lies in the largest chunks."""
    zones = [zone for zone in capture(LAZY).zones if zone.kind != "DMA"]
    found = free_by_order(LAZY)
    pages = sum(zone.free_pages + zone.pcp_pages + zone.deferred_pages for zone in zones)
    assert sum(found) == pytest.approx(pages * 4096, rel=1e-4)
    assert found[10] >= sum(zone.deferred_pages for zone in zones) * 4096
    assert unmovable_blocks(LAZY) == sum(zone.blocks.get("Unmovable", 0) for zone in zones)


def test_free_memory_of_several_nodes() -> None:
    """Orders 9 and 10 of four zones, without zone DMA and without anything that is not on a list."""
    found = free_by_order(TWO_NODES)
    assert found[9:] == ((53 + 1) << 21, (700 + 1016 + 2000 + 512) << 22)


def test_one_cpu_for_a_while() -> None:
    before = os.sched_getaffinity(0)
    with on_one_cpu():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
