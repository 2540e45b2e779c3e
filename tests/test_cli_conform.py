"""`gmemlab conform` on the command line: what it refuses, prints and returns; the suites themselves are in tests/kernel."""

import json
from pathlib import Path

import pytest

from gmemlab.cli import main as cli
from gmemlab.kernel.suites import recording
from gmemlab.kernel.suites.steps import Step
from gmemlab.kernel.suites.table import Suite, find
from gmemlab.lab.conform import run as module
from gmemlab.lab.conform.judge import Mismatch
from gmemlab.lab.conform.run import AGREES, DIFFERS, SKIPPED, Result
from gmemlab.lab.conform.script import script

MISMATCH = Mismatch(1, Step("punch", 0, 4096, 4096), ("file 0, pages present: kernel none, model 1",))


def agreeing(suite: Suite, *arguments: object) -> Result:
    return Result(suite, AGREES, 200, 7, 0.5, disturbed=1)


def differing(suite: Suite, *arguments: object) -> Result:
    steps = [Step("create", 0, 0, 8192, 3), MISMATCH.step]
    return Result(suite, DIFFERS, 90, 3, 1.0, "", MISMATCH, script(suite, steps, MISMATCH))


def skipping(suite: Suite, *arguments: object) -> Result:
    return Result(suite, SKIPPED, reason="KVM_CAP_GUEST_MEMFD: this kernel lacks it")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nix"], "suite: no such suite (value 'nix'; allowed: guest-memfd, thp, "),
        (["--record", "x"], "--record: one suite is recorded into one file"),
        (["thp", "anon", "--record", "x"], "--record: one suite is recorded into one file"),
        (["thp", "--check", "x"], "--check: a recording says itself which suite it is of"),
        (["--check", "/nowhere"], "/nowhere: cannot be read: No such file or directory"),
        (["thp", "--memory", "1X"], "not a size"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["conform", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_agreement(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "conform_suite", agreeing)
    assert cli.main(["conform", "thp", "hugetlb"]) == 0
    output = capsys.readouterr().out
    assert output.count("agrees") == 2
    assert "thp: once, a mismatch did not show again" in output


def test_mismatch_comes_with_its_reproduction(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "conform_suite", differing)
    assert cli.main(["conform", "guest-memfd"]) == 1
    output = capsys.readouterr().out
    assert "guest-memfd: after step 2, punch of file 0" in output
    assert "pages present: kernel none, model 1" in output
    assert "Step('punch', offset=0x1000, size=0x1000)," in output
    assert cli.main(["conform", "guest-memfd", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["suites"]
    assert found["mismatch"]["operation"] == {"op": "punch", "file": 0, "offset": 4096, "size": 4096, "arg": 0}
    compile(found["mismatch"]["script"], "script", "exec")


def test_nothing_can_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "conform_suite", skipping)
    assert cli.main(["conform", "guest-memfd"]) == 3
    assert "KVM_CAP_GUEST_MEMFD: this kernel lacks it" in capsys.readouterr().err


def test_recording_of_a_suite_that_could_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says why, and judging it is no success."""
    path = tmp_path / "attributes.jsonl"
    head = {"format": 1, "suite": "attributes", "seed": 0, "operations": 5, "release": "6.18", "facts": {}, "skipped": "no VM"}
    path.write_text(f"{json.dumps(head)}\n{json.dumps({'steps': 0})}\n")
    assert recording.read(path).suite == find("attributes")
    assert cli.main(["conform", "--check", str(path)]) == 3
    assert "attributes skipped: no VM" in capsys.readouterr().out
