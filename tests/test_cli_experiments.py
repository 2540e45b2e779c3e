"""``gmemlab experiments``: catalogue, verdicts, exit codes."""

import json

import pytest

from gmemlab.cli import main as cli
from gmemlab.lab.experiments import tdx_boot
from gmemlab.lab.experiments.catalogue import MISS, Check, Outcome, experiments


@pytest.mark.parametrize("width", [80, 120])
def test_catalogue(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["experiments"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= width
    for experiment in experiments().values():
        assert f"{experiment.name}: {experiment.title}\n" in output
        assert experiment.statement in " ".join(output.split())


def test_catalogue_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiments", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in data["experiments"]] == list(experiments())
    assert set(data["experiments"][0]) == {"name", "title", "statement", "source", "procedure", "limits"}


@pytest.mark.parametrize("width", [80, 120])
def test_run(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["experiments", "run", "tdx-boot"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    lines = output.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == f"tdx-boot: {tdx_boot.EXPERIMENT.title}: agrees"
    assert ["small", "accepts", "at", "0x7d9d7", "974", "974", "agrees"] in [line.split() for line in lines]
    assert "Limit: the source's guest has no legacy hole" in " ".join(output.split())


def test_a_miss_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missed = Outcome((Check("a figure", "2", "1", MISS, "why", {"model": 2}),), ("It does not come out.",))
    monkeypatch.setattr(
        tdx_boot, "EXPERIMENT", tdx_boot.EXPERIMENT.__class__(**{**vars(tdx_boot.EXPERIMENT), "run": lambda _: missed})
    )
    assert cli.main(["experiments", "run", "tdx-boot"]) == 1
    assert ": miss\n" in capsys.readouterr().out
    assert cli.main(["experiments", "run", "tdx-boot", "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)["experiments"]
    assert (entry["verdict"], entry["sentences"]) == ("miss", ["It does not come out."])
    assert entry["checks"] == [
        {"what": "a figure", "model": "2", "published": "1", "verdict": "miss", "remark": "why", "figures": {"model": 2}}
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["walk"], "gmemlab: not something to do with experiments (value 'walk'; allowed: nothing, or run and names)\n"),
        (["run", "boot"], "gmemlab: no such experiment (value 'boot'; allowed: boot-slope, tdx-boot)\n"),
    ],
)
def test_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiments", *words]) == 2
    assert capsys.readouterr() == ("", message)
