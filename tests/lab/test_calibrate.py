"""From timings to a profile, and what calibrate refuses."""

import pytest

from gmemlab.costs import Cost
from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel.features import read_cpu_model, read_release
from gmemlab.kernel.timed_memory import GROUPS, Progress, Timings
from gmemlab.lab import calibrate as module
from gmemlab.lab.calibrate import SOURCE, USUAL_FILE, calibrate, cost_of, profile_of
from gmemlab.units import MIB

NINE = (900.0, 100.0, 500.0, 300.0, 200.0, 400.0, 600.0, 700.0, 800.0)
ENTRIES = {name: operation.unit for group in GROUPS for name, operation in group.operations.items()}
TIMINGS = Timings({"pin": NINE, "anon-2m-free": [500.0] * 9}, {"convert-page": "KVM VM type 1: absent"}, 123.4)


def test_quantiles() -> None:
    assert cost_of("ns per call", NINE) == Cost("ns per call", 140, 500, 860, "measured", SOURCE, 9)
    assert cost_of("ns per 2M", [7.4] * 9) == Cost("ns per 2M", 7, 7, 7, "measured", SOURCE, 9)


def test_profile_of_this_machine() -> None:
    profile = profile_of("mine", TIMINGS, 64 * MIB)
    assert (profile.name, profile.kernel, profile.cpu) == ("mine", read_release(), read_cpu_model())
    assert {name: cost.unit for name, cost in profile.costs.items()} == {name: ENTRIES[name] for name in TIMINGS.samples}
    assert profile.notes == (
        "processor time, files of 64M; 123 ns of Python and ctypes taken off each call",
        "convert-page was not measured: KVM VM type 1: absent",
    )


def test_wide_spreads_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def measure(_settings: object, size: int, rounds: int, _progress: Progress | None) -> Timings:
        sizes.append(size)
        assert rounds == 11
        return TIMINGS

    monkeypatch.setattr(module, "measure", measure)
    calibration = calibrate("mine", 11)
    assert calibration.useless == ("pin",)
    assert calibration.skipped == TIMINGS.skipped
    assert calibrate("mine", 11, "100M").file_bytes == 50 * MIB
    assert 16 * MIB <= sizes[0] <= USUAL_FILE
    assert sizes[1] == 50 * MIB


def test_where_nothing_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda *_: Timings({}, {"pin": "io_uring: forbidden", "unpin": "-"}, 1.0))
    with pytest.raises(UnsupportedError, match="all 2 operations: pin: io_uring: forbidden"):
        calibrate("mine", 9)


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--repetitions: too few for quantiles \(value 8; allowed: 9 and more\)"):
        calibrate("mine", 8)
    with pytest.raises(UsageError, match="calibrate needs 32M of memory, more than the limit"):
        calibrate("mine", 9, "31M")
    with pytest.raises(UsageError, match="not a size"):
        calibrate("mine", 9, "much")
