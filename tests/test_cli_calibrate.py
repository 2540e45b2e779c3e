"""``gmemlab calibrate``: table, JSON, profile, refusals, interruption; and `compare` with such a profile."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gmemlab.cli import main as cli
from gmemlab.costs import DEFAULT, Profile
from gmemlab.kernel.timed_memory import GROUPS, Progress, Timings
from gmemlab.lab import calibrate as lab
from lab_world import write_scenario
from settings_world import LIVE, needs_root, needs_thp

COMMAND = [sys.executable, "-m", "gmemlab.cli.main"]
SHMEM_ENABLED = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
KHUGEPAGED = "sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"
LACKING = "KVM_CAP_MEMORY_ATTRIBUTES: absent"


def fake_measure(_settings: object, _size: int, rounds: int, progress: Progress) -> Timings:
    progress("warming up", 0.0)
    names = [name for group in GROUPS for name in group.operations if name != "convert-page"]
    samples = {name: [1000.0 + 10 * place for place in range(rounds)] for name in names}
    samples["unpin"] = [10.0, 20.0, 30.0] * (rounds // 3)
    samples["unpin"][0] = samples["unpin"][3] = 1.0
    return Timings(samples, {"convert-page": LACKING}, 400.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "measure", fake_measure)
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("fake")
def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["calibrate"]) == 0
    output, errors = capsys.readouterr()
    assert errors == "gmemlab: spread too wide to be of use: unpin\n"
    lines = output.splitlines()
    assert max(map(len, lines)) <= 100
    (row,) = (line.split() for line in lines if line.startswith("guest-memfd-fallocate "))
    assert row == ["guest-memfd-fallocate", "4K", "page", "1.04us", "1us–1.08us", "742ns", "1.40"]
    assert "Linux 6.18, AMD EPYC (Turin), 2 virtual processors; from L section 6, L23, C31, C33, C32." in " ".join(
        output.split()
    )
    (row,) = (line.split() for line in lines if line.startswith("unpin "))
    assert "!" in row
    assert row[-2:] == ["-", "-"]
    text = " ".join(output.split())
    assert "Not measured: convert-page (KVM_CAP_MEMORY_ATTRIBUTES: absent)." in text
    assert "! the 95% quantile is more than 3 times the 5% one, so the figure is of no use: unpin." in text


@pytest.mark.usefixtures("fake")
def test_profile_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "thishost.toml"
    assert cli.main(["calibrate", "-o", str(path), "--json", "--repetitions", "12"]) == 0
    output, errors = capsys.readouterr()
    assert errors.splitlines()[-1] == f"Cost profile written to {path}"
    data = json.loads(output)
    profile = Profile.load(path)
    assert (profile.name, len(profile.costs)) == ("thishost", len(data["costs"]))
    assert "# spread" in path.read_text()
    entry = data["costs"]["guest-memfd-fallocate"]
    assert (entry["value"], entry["low"], entry["high"], entry["count"]) == (1055, 1006, 1104, 12)
    assert entry["default"]["value"] == Profile.load(DEFAULT).costs["guest-memfd-fallocate"].value
    assert data["costs"]["pin"]["default"] is None
    assert [name for name, cost in data["costs"].items() if cost["useless"]] == ["unpin"]
    assert data["skipped"] == {"convert-page": LACKING}
    assert (data["call_ns"], data["rounds"], data["default"]) == (400.0, 12, DEFAULT)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for words, message in (
        (["--repetitions", "8"], "--repetitions"),
        (["--memory", "1M"], "calibrate needs 32M of memory, more than the limit (value '1M')"),
        (["-o", str(tmp_path)], "cannot be written"),
        (["-o", str(tmp_path / "absent" / "x.toml")], "cannot be written"),
    ):
        assert cli.main(["calibrate", *words]) == 2
        output, errors = capsys.readouterr()
        assert (output, errors.count("\n")) == ("", 1)
        assert message in errors
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["calibrate"]) == 3
    assert capsys.readouterr().err.startswith("gmemlab: root: calibrate switches huge pages on and off")


@needs_root
@needs_thp
def test_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "thishost.toml"
    words = [*COMMAND, "calibrate", "--memory", "32M", "-o", str(path), "--json"]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    data = json.loads(result.stdout)
    costs = Profile.load(path).costs
    assert data["costs"].keys() == costs.keys()
    assert {"shmem-fallocate", "shmem-punch-page", "anon-write-fault", "anon-2m-write-fault"} <= costs.keys()
    assert all(1 <= cost.count <= 9 and 0 <= cost.low <= cost.value <= cost.high for cost in costs.values())
    assert costs.keys() | data["skipped"].keys() == {name for group in GROUPS for name in group.operations}


@needs_root
@needs_thp
def test_interruption_puts_everything_back() -> None:
    from gmemlab.kernel.settings import Settings

    with Settings(patience=120.0) as settings:  # wait until nobody else has changed it
        before = settings.get(KHUGEPAGED)
        settings.set(KHUGEPAGED, before)
    pool = (LIVE / POOL).read_text()
    process = subprocess.Popen([*COMMAND, "calibrate", "--memory", "64M"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while (LIVE / KHUGEPAGED).read_text().strip() != "3600000" and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, b"", b"")
    assert (LIVE / KHUGEPAGED).read_text().strip() == before
    assert (LIVE / POOL).read_text() == pool


def test_compare_with_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    scenario = str(write_scenario(tmp_path, placement='"scattered"'))
    words = ["compare", scenario, "--host", "1G", "--policies", "4k,thp", "--costs", DEFAULT]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert f"Host time of operations, costs from {DEFAULT}\n" in output
    assert "Not counted: zeroing, but for hugetlb pages" in " ".join(output.split())
    assert cli.main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    (thp,) = (entry for entry in data["policies"] if entry["policy"]["name"] == "thp")
    splits = thp["figures"]["split_by_punch"]["median"]
    assert splits > 0
    cost = Profile.load(DEFAULT).costs["shmem-2m-punch-page"]
    times = data["host_time"]["policies"]["thp"]
    expected = {"low": splits * cost.low, "value": splits * cost.value, "high": splits * cost.high}
    assert times["parts_ns"]["split_by_punch"] == expected
    assert times["total_ns"] == {end: sum(part[end] for part in times["parts_ns"].values()) for end in expected}
    assert data["host_time"]["entries"]["thp"]["allocated_2m"] == "shmem-2m-fallocate"
    small = data["host_time"]["policies"]["4k"]["parts_ns"]
    assert {"allocated_4k", "released_4k"} <= small.keys()
    assert "split_by_punch" not in small
    assert cli.main([*words[:-1], str(tmp_path / "absent.toml")]) == 2
    assert "no such cost profile" in capsys.readouterr().err
