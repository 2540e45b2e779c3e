"""The command line of vmtest."""

import subprocess
from pathlib import Path

import pytest

from gmemlab.kernel.suites.table import find as find_suite
from tools.vmtest import __main__ as command_line
from tools.vmtest import machine


def test_command_is_what_follows_the_dashes() -> None:
    assert command_line.split_command(["7.3", "--", "ls", "--", "-l"]) == (["7.3"], ["ls", "--", "-l"])
    assert command_line.split_command(["7.3", "--ops", "5"]) == (["7.3", "--ops", "5"], [])


def test_recordings_are_one_file_for_each_suite() -> None:
    options = command_line.parse(["7.3", "--suites", "thp,guest-memfd", "--ops", "5", "--seed", "7", "--memory", "1G"])
    assert options.memory == 1 << 30
    commands = command_line.recordings(options.suites, options.ops, options.seed)
    assert [" ".join(command) for command in commands] == [
        "python3 -m gmemlab.kernel.record thp --ops 5 --seed 7",
        "python3 -m gmemlab.kernel.record guest-memfd --ops 5 --seed 7",
    ]


def test_mix_takes_as_many_operations_as_a_small_machine_has_memory_for() -> None:
    options = command_line.parse(["7.3"])
    [mix] = [command for command in command_line.recordings(options.suites, options.ops, 0) if "mix" in command]
    count = int(mix[mix.index("--ops") + 1])
    assert find_suite("mix").needs(count) <= options.memory // 3


def test_unknown_suite_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["7.3", "--suites", "thp,tph"]) == 2
    assert "'tph'; allowed: guest-memfd, thp," in capsys.readouterr().err


def test_what_is_missing_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_line.main(["7.3"]) == 3
    assert capsys.readouterr().err == "vmtest: qemu-system-x86_64: not found; on Debian: apt-get install qemu-system-x86\n"


@pytest.mark.parametrize(
    ("codes", "status", "expected"), [([0, 0], 0, 0), ([1, 0], 0, 1), ([0, 0], 1, 1), ([3, 0], 0, 0), ([3, 3], 0, 3)]
)
def test_judgement_is_the_worst_of_all(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], status: int, expected: int
) -> None:  # fmt: skip
    judged = []

    def judge(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        judged.append(command[1:])
        return subprocess.CompletedProcess(command, codes[len(judged) - 1])

    monkeypatch.setattr(subprocess, "run", judge)
    outcome = machine.Outcome(status, (Path("/a"), Path("/b")), 1.0, 1.0, 2.0)
    assert command_line.judge(outcome) == expected
    assert judged == [["-m", "gmemlab.cli.main", "conform", "--check", name] for name in ("/a", "/b")]
