"""``gmemlab host``, and what the command line does with everything that can go wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gmemlab.capture import capture
from gmemlab.cli import host as host_command
from gmemlab.cli import main as cli
from gmemlab.errors import operation_error
from gmemlab.snapshot import Snapshot
from hosts import LAZY, TWO_NODES, changed

COMMAND = [sys.executable, "-m", "gmemlab.cli.entry"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function that makes the command look at a copy of a machine's files, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def choose(root: Path) -> None:
        monkeypatch.setattr(host_command, "capture", lambda: capture(root))

    return choose


def test_tables(machine: Callable[[Path], None], capsys: pytest.CaptureFixture[str]) -> None:
    machine(TWO_NODES)
    assert cli.main(["host"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert max(map(len, output.splitlines())) <= 80
    assert "Linux 6.18.2 · AMD EPYC 9575F 64-Core Processor · 44G, 2 NUMA nodes" in output
    assert "Node 0, zone Normal: at least 7.66G on the free lists" in output
    assert "Unmovable   2,000 >100k    30    20    10     5     4     3     2     1     ·" in output
    assert "hugetlb 2M" in output
    assert "128 pages, 100 free, 28 reserved" in output
    assert "lower bounds" in " ".join(output.split())
    assert "2M pages later" not in output


def test_tables_of_deferred_memory(machine: Callable[[Path], None], capsys: pytest.CaptureFixture[str]) -> None:
    machine(LAZY)
    assert cli.main(["host"]) == 0
    output = capsys.readouterr().out
    assert "14.3G not handed out yet" in output
    assert "2M pages later" in output
    assert "THP             2M; enabled madvise, defrag madvise, shmem never" in output


def test_json(machine: Callable[[Path], None], capsys: pytest.CaptureFixture[str]) -> None:
    machine(TWO_NODES)
    assert cli.main(["host", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert list(data) == ["snapshot", "kvm", "facilities", "summary", "nodes"]
    assert [node["free_list_bytes"] for node in data["nodes"]] == [
        sum(zone.free_pages for zone in capture(TWO_NODES).zones if zone.node == node) * 4096 for node in range(2)
    ]
    assert data["nodes"][0]["distances"] == []
    assert data["snapshot"]["zones"][2]["free"]["Movable"]["at_least"] == [1]
    snapshot = capture(TWO_NODES)
    assert data["summary"] == {
        "free_list_bytes": snapshot.free_pages * 4096,
        "deferred_bytes": 0,
        "reclaimable_bytes": 0,
        "per_cpu_bytes": 319 * 4096,
        "unusable_index_2m": snapshot.unusable_index(),
        "movable_2m": snapshot.chunks_of(movable=True),
        "unmovable_2m": snapshot.chunks_of(movable=False),
        "at_most_1g": snapshot.giga_at_most(),
    }


def test_saved_snapshot(machine: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine(TWO_NODES)
    path = tmp_path / "host.json"
    assert cli.main(["host", "--save", str(path)]) == 0
    assert f"Snapshot written to {path}" in capsys.readouterr().out
    assert Snapshot.load(path).zones == capture(TWO_NODES).zones


def test_snapshot_that_cannot_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["host", "--save", str(tmp_path / "absent" / "host.json")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("gmemlab: ")
    assert errors.endswith("host.json: cannot be written: No such file or directory\n")


def test_unreadable_proc(machine: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine(changed(TWO_NODES, tmp_path / "host", zoneinfo=None))
    assert cli.main(["host"]) == 3
    assert capsys.readouterr().err == "gmemlab: /proc/zoneinfo: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("buddyinfo", "", "/proc/buddyinfo: empty (allowed: one line for each zone)\n"),
        ("zoneinfo", "", "/proc/zoneinfo: empty (allowed: a section for each zone)\n"),
        ("pagetypeinfo", "", "/proc/pagetypeinfo: incomplete (allowed: the page block order, "),
        ("buddyinfo", "Node 0\n", "/proc/buddyinfo:1: "),
    ],
)
def test_proc_that_says_nothing(
    name: str, text: str, line: str, machine: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = changed(TWO_NODES, tmp_path / "host")
    (root / "proc" / name).write_text(text)
    machine(root)
    assert cli.main(["host"]) == 3
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith(f"gmemlab: {line}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["host", "--no-such"], "No such option: --no-such"),
        (["hots"], "No such command 'hots'"),
        (["host", "--save"], "Option '--save' requires an argument"),
        (["host", "surplus"], "Got unexpected extra argument"),
    ],
)
def test_wrong_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            operation_error(12, 3, "allocate"),
            1,
            "gmemlab: allocate: Cannot allocate memory (ENOMEM); 3 pages done before\n",
        ),
        (OSError(28, "No space left on device"), 3, "gmemlab: the output cannot be written: No space left on device\n"),
        (OSError(12, "Cannot allocate memory"), 3, "gmemlab: Cannot allocate memory\n"),
        (OSError(24, "Too many open files", "/dev/kvm"), 3, "gmemlab: /dev/kvm: Too many open files\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(host_command, "capture", fail)
    assert cli.main(["host"]) == code
    assert capsys.readouterr().err == line


def test_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(host_command, "capture", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["host"])


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gmemlab ")


def test_help_loads_no_heavy_module() -> None:
    code = (
        "import sys; from gmemlab.cli.main import main; main(['--help']);"
        "heavy = {'numpy', 'numba', 'pydantic', 'gmemlab.core', 'gmemlab.cli.host'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"


def test_reader_that_goes_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([*COMMAND, "host", "--json"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.parametrize("words", [["host", "--json"], ["policies"], ["--help"]])
def test_output_that_cannot_be_written(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (3, b"gmemlab: the output cannot be written: No space left on device\n")


def test_interrupt_while_modules_are_imported() -> None:
    """At every moment after the first line of our own: what comes before it is the interpreter's."""
    code = (
        "import os, signal, sys, threading, time; from gmemlab.cli import entry;"
        "kill = lambda: (time.sleep(float(sys.argv.pop())), os.kill(os.getpid(), signal.SIGINT));"
        "signal.signal(signal.SIGINT, entry._leave);"
        "threading.Thread(target=kill, daemon=True).start();"
        "sys.exit(entry.main())"
    )
    for delay in range(0, 300, 30):
        words = [sys.executable, "-c", code, "policies", str(delay / 1000)]
        result = subprocess.run(words, capture_output=True, check=False)
        assert result.stderr == b""
        assert result.returncode in (0, 130)


def test_start_of_the_process_imports_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import gmemlab.cli.entry; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in result.stdout.split() if name.startswith("gmemlab")] == [
        "gmemlab",
        "gmemlab.cli",
        "gmemlab.cli.entry",
    ]
    assert "typer" not in result.stdout


def test_interrupt_is_quiet() -> None:
    code = (
        "import signal, sys; from gmemlab.cli import host, main;"
        "host.capture = lambda: signal.raise_signal(signal.SIGINT);"
        "sys.exit(main.main(['host']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (128 + signal.SIGINT, b"")
