"""``gmemlab explain``."""

import json
from pathlib import Path

import pytest

from gmemlab.capture import capture
from gmemlab.cli import main as cli
from hosts import TWO_NODES, changed
from lab_world import write_scenario


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    return str(write_scenario(tmp_path))


def words(scenario: str, *more: str) -> list[str]:
    return ["explain", scenario, "--policy", "thp", "--host", "1G", *more]


@pytest.mark.parametrize("width", [80, 120])
def test_answer_and_history(
    width: int, scenario: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(words(scenario, "--gfn", "0x10")) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert max(map(len, output.splitlines())) <= width
    assert output.startswith("Guest frame 0x10 of guest-0-128M (page 0x10 of its file), under thp\n")
    for label in ("at the end", "limited by", "lifted by", "What limited the page: ", "P9 (assumption)"):
        assert label in output


def test_json(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(scenario, "--gfn", "16", "--vm", "1", "--json")) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["guest"], data["vm"], data["gfn"], data["page"], data["policy"]) == ("guest-1-128M", 1, 16, 16, "thp")
    assert data["term"] == "none" or data["cause"]["term"] == data["term"]
    steps = len(data["first"]) + len(data["last"]) + sum(repeat["count"] for repeat in data["repeats"])
    assert steps == data["changes"] > 0
    assert data["assumptions"][-1].startswith("assumption: the host has Linux's watermarks")
    assert cli.main(words(scenario, "--gfn", "16", "--no-watermarks", "--cma", "2M", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["assumptions"][-1].startswith("assumption: the host has no watermarks")


def test_guests_of_other_hardware(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(scenario, "--gfn", "16", "--guests", "snp", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["present"]
    assert cli.main(words(scenario, "--gfn", "16", "--guests", "sev")) == 2
    assert capsys.readouterr().err.startswith("gmemlab: --guests: no such guests (value 'sev'; allowed: generic, plain,")


def test_single_choices_can_be_set(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words(scenario, "--gfn", "0"), "--set", "sizes=4K", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["policy"], data["term"], data["folio_order"]) == ("thp[sizes=4K]", "folio", 0)
    assert data["broken"] is None


@pytest.mark.parametrize(
    ("more", "messages"),
    [
        (["--gfn", "frame"], ["--gfn", "'frame'", "0x7d9d7"]),
        (["--gfn", "-1"], ["--gfn", "'-1'"]),
        (["--gfn", "0x8000"], ["the guest has no memory there", "0x0-0x7fff"]),
        (["--gfn", "0", "--vm", "2"], ["no such guest", "0 to 1"]),
        (["--gfn", "0", "--policy", "huge"], ["'huge'", "4k-inplace"]),
        (["--gfn", "0", "--policy", "anon-thp"], ["ordinary memory", "'anon-thp'", "allowed: 4k, 4k-inplace"]),
        (["--gfn", "0", "--host", "64M"], ["small.toml:7: guests: the scenario is larger than the host"]),
        (["--gfn", "0", "--set", "repair=collapse"], ["repair", "only zone=movable allows it"]),
        ([], ["--gfn"]),
    ],
)
def test_bad_words(more: list[str], messages: list[str], scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(scenario, *more)) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert all(message in errors for message in messages), errors


def test_unreadable_proc(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = changed(TWO_NODES, tmp_path / "host", buddyinfo=None)
    monkeypatch.setattr("gmemlab.capture.capture", lambda: capture(root))
    assert cli.main(["explain", scenario, "--policy", "thp", "--gfn", "0"]) == 3
    assert capsys.readouterr() == ("", "gmemlab: /proc/buddyinfo: cannot be read: No such file or directory\n")
