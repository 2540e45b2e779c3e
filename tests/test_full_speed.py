"""What the benchmarks print on a processor that a neighbour shares part of the time."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

import full_speed
from full_speed import ENOUGH, PASSES, SLACK, Figure, Stretches, until_enough

PROBE = 1e-4
NEIGHBOUR = 1.7  # times as long while the processor is shared


@pytest.fixture(autouse=True)
def quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stretches, "quickest", PROBE)


def add(times: Stretches, seconds: float, shared: bool) -> None:
    factor = NEIGHBOUR if shared else 1.0
    times.add(seconds * factor, PROBE * factor)


def test_a_figure_is_of_the_stretches_at_full_speed() -> None:
    times = Stretches()
    for number in range(10 * ENOUGH):
        add(times, 20e-9, shared=number % 10 != 0)
    figure = times.figure()
    assert figure.value == pytest.approx(20e-9) and figure.enough
    assert figure.ran == pytest.approx(20e-9 * (0.1 + 0.9 * NEIGHBOUR))
    assert figure.share == pytest.approx(0.1)


def test_slow_stretches_at_full_speed_count_also_where_they_are_few() -> None:
    times = Stretches()
    for number in range(ENOUGH):
        add(times, 70e-9 if number % 5 == 0 else 20e-9, shared=False)
    assert times.figure().value == pytest.approx(30e-9)


def test_with_too_few_stretches_at_full_speed_a_figure_is_as_it_ran() -> None:
    times = Stretches()
    for number in range(2 * ENOUGH):
        add(times, 20e-9, shared=number >= ENOUGH - 1)
    for figure in (times.figure(), times.figure_of_runs(2)):
        assert figure.value == figure.ran and not figure.enough
    add(times, 20e-9, shared=False)
    assert times.figure().value == pytest.approx(20e-9) and times.figure().enough


@pytest.mark.parametrize(("before", "after", "full"), [(1, 1, True), (1.7, 1, False), (1, 1.7, False), (1.09, 1.09, True)])
def test_both_probes_decide(monkeypatch: pytest.MonkeyPatch, before: float, after: float, full: bool) -> None:
    assert 1.09 < SLACK < 1.11
    probes = iter([before * PROBE, after * PROBE])
    monkeypatch.setattr(full_speed, "probe", lambda: next(probes))
    clock: Iterator[float] = iter([3.0, 7.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    times = Stretches()
    times.time(8, lambda: None)
    assert times.seconds == [0.5]
    assert times.at_full_speed() == [full]


def test_a_run_is_put_together_from_its_stretches() -> None:
    random = np.random.default_rng(0)
    costs = random.exponential(1e-3, 2000)  # of one run's stretches, very different ones; long ones are seldom at full speed
    times = Stretches()
    for _ in range(3):
        for cost in costs:
            add(times, cost, shared=random.random() < (0.6 if cost < 1e-3 else 0.95))
    figure = times.figure_of_runs(3)
    assert figure.value == pytest.approx(costs.sum(), rel=1e-9)
    assert figure.ran == pytest.approx(sum(times.seconds) / 3, rel=1e-9)


def test_noise_at_full_speed_does_not_make_a_run_shorter() -> None:
    random = np.random.default_rng(1)
    times = Stretches()
    for _ in range(3 * 2000):
        add(times, 1e-3 * (0.8 + 0.4 * random.random()), shared=random.random() < 0.3)
    assert times.figure_of_runs(3).value == pytest.approx(2.0, rel=0.01)


def test_where_nobody_shares_all_figures_are_as_they_ran() -> None:
    times = Stretches()
    for number in range(3 * ENOUGH):
        add(times, (number % ENOUGH) * 1e-3, shared=False)
    assert times.figure().value == times.figure().ran
    run = times.figure_of_runs(3)
    assert run.value == pytest.approx(run.ran) == pytest.approx(sum(range(ENOUGH)) * 1e-3)


def test_passes_go_on_until_there_is_enough_and_the_first_one_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Stretches()
    passes = 0

    def one_pass() -> None:
        nonlocal passes
        add(times, 1.0 if passes == 0 else 2.0, shared=passes % 2 == 1)
        passes += 1

    assert until_enough(one_pass, times) == passes - 1 == 2 * ENOUGH
    assert set(times.seconds) == {2.0, 2.0 * NEIGHBOUR}
    monkeypatch.setattr(full_speed, "PATIENCE", 0.0)
    assert until_enough(one_pass, times) == PASSES


def test_a_figure_of_one_of_many() -> None:
    assert Figure(8.0, 12.0, 0.25, enough=True).per(4) == Figure(2.0, 3.0, 0.25, enough=True)


def test_what_was_never_at_full_speed_counts_as_it_ran_where_nothing_was_seen_at_both_speeds() -> None:
    times = Stretches()
    for number in range(2 * 2 * ENOUGH):
        add(times, 1e-3, shared=number % 2 == 1)
    assert times.figure_of_runs(2).value == pytest.approx(ENOUGH * 1e-3 * (1 + NEIGHBOUR), rel=1e-9)
