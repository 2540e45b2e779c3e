"""``gmemlab policies``."""

import json

import pytest

from gmemlab.cli import main as cli
from gmemlab.cli.policies import FORMS, MEANINGS
from gmemlab.policy import ALLOWED, CHOICES
from gmemlab.presets import PRESETS


@pytest.mark.parametrize("width", [80, 120])
def test_every_preset_with_origin_and_status(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["policies"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert max(map(len, output.splitlines())) <= width
    plain = " ".join(output.split())
    for policy in PRESETS.values():
        assert policy.name in output
        assert policy.status in output
        assert f"({policy.origin})" in plain
        assert policy.summary in plain
    assert ("merge" in output.splitlines()[1]) == (width == 120)


def test_all_choices_of_one_policy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["policies", "hugetlb-1g"]) == 0
    output = capsys.readouterr().out
    assert "posted; origin: G64 to G74; memory: guest_memfd" in output
    for choice in CHOICES:
        (line,) = (line for line in output.splitlines() if line.startswith(f"{choice} "))
        assert all(word in line for value in ALLOWED.get(choice, ()) for word in value.split(","))
    assert "no-op" in output


def test_every_choice_is_described() -> None:
    assert set(MEANINGS) == set(CHOICES)
    assert set(FORMS) == set(CHOICES) - set(ALLOWED) | {"repair"}


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policies", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [policy["name"] for policy in data["policies"]] == list(PRESETS)
    thp = next(policy for policy in data["policies"] if policy["name"] == "thp")
    assert (thp["sizes"], thp["status"], thp["extrapolation"]) == ([2 << 20, 4096], "posted", False)
    assert set(data["choices"]) == set(CHOICES)
    assert cli.main(["policies", "ladder", "--json"]) == 0
    assert [policy["name"] for policy in json.loads(capsys.readouterr().out)["policies"]] == ["ladder"]


def test_unknown_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policies", "huge"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert "'huge'" in errors
    assert all(name in errors for name in PRESETS)
