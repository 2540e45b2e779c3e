"""The model against the running kernel: every suite that is judged step by step, with few operations."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gmemlab.errors import UsageError
from gmemlab.kernel import record
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.suites import recording
from gmemlab.kernel.suites.table import Suite, find
from gmemlab.lab.conform.run import AGREES, DIFFERS, SKIPPED, Result, check_recording, conform_suite

FEW = {
    "guest-memfd": 4000, "thp": 300, "anon": 200, "hugetlb": 500, "hugetlb-1g": 30, "attributes": 100,
}  # fmt: skip
PATIENCE = 300.0  # seconds: other tests may hold the same settings


def budget() -> Budget:
    return Budget(leave=6 << 30)


def ran(result: Result) -> Result:
    """The result, unless this machine cannot run the suite."""
    if result.status == SKIPPED:
        pytest.skip(result.reason)
    return result


@pytest.mark.parametrize("suite", [find(name) for name in FEW], ids=lambda suite: suite.name)
def test_model_and_kernel_agree(suite: Suite, record_property: Callable[[str, object], None]) -> None:
    result = ran(conform_suite(suite, FEW[suite.name], 5, budget(), patience=PATIENCE))
    assert result.mismatch is None, f"{result.mismatch}\n{result.script}"
    assert result.status == AGREES
    assert result.operations >= FEW[suite.name]
    record_property("operations", result.operations)


def test_recording_is_judged_like_the_kernel_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(["guest-memfd", "--ops", "200", "--seed", "3", "-o", str(tmp_path)]) == 0
    found = recording.read(tmp_path / "guest-memfd.jsonl")
    if found.skipped:
        pytest.skip(found.skipped)
    assert "guest-memfd: 200 operations" in capsys.readouterr().out
    result = check_recording(found)
    assert (result.status, result.operations) == (AGREES, 200)
    assert 0 < result.failed < 200


def forged(tmp_path: Path, change: Callable[[list[str]], None]) -> Path:
    """A recording with some lines changed."""
    path = tmp_path / "forged.jsonl"
    assert record.main(["guest-memfd", "--ops", "60", "-o", str(tmp_path)]) == 0
    lines = (tmp_path / "guest-memfd.jsonl").read_text().splitlines()
    if json.loads(lines[0])["skipped"]:
        pytest.skip(json.loads(lines[0])["skipped"])
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_forged_recording_is_found_out(tmp_path: Path) -> None:
    """One errno changed: the judge names step and difference."""

    def change(lines: list[str]) -> None:
        step = json.loads(lines[40])
        step[1] = 77
        lines[40] = json.dumps(step)

    result = check_recording(recording.read(forged(tmp_path, change)))
    assert result.status == DIFFERS
    assert result.mismatch is not None
    assert result.mismatch.number == 39
    assert result.mismatch.differences[0].startswith("result: kernel EBADFD, model ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.pop(), "ends too early"),
        (lambda lines: lines.pop(-2), "steps are missing"),
        (lambda lines: lines.__setitem__(7, "{"), ":8: not JSON"),
        (lambda lines: lines.__setitem__(7, "[1, 2]"), ":8: not a recorded step"),
        (lambda lines: lines.__setitem__(0, "{}"), ":1: not a recording"),
        (lambda lines: lines.__setitem__(0, lines[0].replace("guest-memfd", "nix")), ":1: suite: no such suite"),
    ],
    ids=["cut", "step-missing", "not-json", "not-a-step", "no-head", "unknown-suite"],
)
def test_damaged_recording_is_refused(tmp_path: Path, change: Callable[[list[str]], None], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_recording(recording.read(forged(tmp_path, change)))
