"""``gmemlab compare``: output, JSON, bad input, interruption."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gmemlab.capture import capture
from gmemlab.cli import main as cli
from gmemlab.cli import options
from gmemlab.lab.figures import FIGURES
from gmemlab.model.guests import OPERATIONS
from gmemlab.presets import find
from gmemlab.workload.scenario import load
from hosts import LAZY, TWO_NODES, changed
from lab_world import write_scenario

COMMAND = [sys.executable, "-m", "gmemlab.cli.entry"]


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    return str(write_scenario(tmp_path))


@pytest.mark.parametrize("width", [80, 120])
def test_table_sentences_and_assumptions(
    width: int, scenario: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["compare", scenario, "--host", "1G"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    lines = output.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == "Two small guests"
    assert lines[1].startswith("1h on 1G, empty: ")
    rows = [line for line in lines if re.match(r"(4k|thp) +\d", line)]
    assert [row.split()[0] for row in rows[:2]] == ["4k", "thp"]
    assert any(line.startswith("thp keeps the most at 2M: ") for line in lines)
    assert "P9 (assumption): shared pages are scattered" in output
    assert "assumptions P1 P4 P5 P8 P9 below" in " ".join(output.split())


def test_json(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", scenario, "--host", "1G", "--policies", "thp,hugetlb-2m", "--seeds", "2", "--seed", "5", "--json"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    data = json.loads(text)
    assert list(data) == [
        "format", "scenario", "guests", "host", "seeds", "figures", "policies", "findings", "assumptions", "notes",
        "hazards", "costs",
    ]  # fmt: skip
    assert data["seeds"] == [5, 6]
    assert data["scenario"]["duration_ns"] == 3600 * 10**9
    assert set(data["figures"]) == set(FIGURES)
    assert 2 <= len(data["findings"]) <= 3
    thp, pool = data["policies"]
    assert (thp["policy"]["name"], pool["policy"]["name"]) == ("thp", "hugetlb-2m")
    assert list(thp["figures"]) == list(FIGURES)
    assert set(thp["figures"]["mapped_2m_mean"]) == {"median", "min", "max"}
    assert [run["seed"] for run in thp["runs"]] == [5, 6]
    series = thp["runs"][0]["series"]
    assert series["time_ns"] == [600 * 10**9 * (step + 1) for step in range(6)]
    assert {len(values) for values in series.values()} == {6}
    assert series["guest_pages_bytes"][-1] == 256 << 20
    assert series["guests"][-1] == 2
    ready = thp["runs"][0]["ready"]
    assert set(series) - set(ready) == {"time_ns", "free_bytes", "free_2m", "free_2m_movable_zone", "free_1g", "clean_2m"}
    assert pool["runs"][0]["pool_bytes"] == 256 << 20
    assert cli.main(words) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("hardware", ["snp", "tdx"])
def test_page_states_with_their_time_and_hazards(
    hardware: str, scenario: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped profile of the hardware is the default; times of the host come with a profile that has them."""
    monkeypatch.setenv("COLUMNS", "80")
    words = ["compare", scenario, "--host", "1G", "--guests", hardware, "--policies", "4k,thp", "--set", "truncation=zeroes"]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert f"Time of page states and private faults, costs from {hardware}\n" in output
    assert "\nThe host's tables of page states" in output and (" anew\n" in output) == (hardware == "snp")
    assert "Host time" not in output
    assert ("\nHazards: what must not happen, and did\n" in output) == (hardware == "snp")
    assert f"costs {hardware}: no instruction of the hardware was measured" in " ".join(output.split())
    assert cli.main([*words, "--seeds", "2", "--json", "--costs", "live-6.18,plain"]) == 2
    assert "--guests plain" in capsys.readouterr().err
    assert cli.main([*words, "--seeds", "2", "--json", "--costs", f"live-6.18,{hardware}"]) == 0
    data = json.loads(capsys.readouterr().out)
    small, thp = data["policies"]
    assert data["guests"] == hardware
    assert small["operations"].keys() == thp["runs"][1]["operations"].keys() == OPERATIONS.keys()
    assert small["operations"]["fault-4k"]["boot"]["min"] > thp["operations"]["fault-4k"]["boot"]["max"]
    assert thp["operations"]["fault-4k"]["running"]["median"] > 0
    counts = [run["operations"]["fault-2m"]["boot"] for run in thp["runs"]]
    assert thp["operations"]["fault-2m"]["boot"] == {"median": sum(counts) / 2, "min": min(counts), "max": max(counts)}
    times = data["page_state_time"]["policies"][thp["policy"]["name"]]
    assert list(times) == ["boot", "running", "tear-down"]
    assert times["boot"]["no_test"]
    assert times["boot"]["parts_ns"]["fault-2m"]["low"] == min(counts) * data["costs"]["fault-2m"]["low"]
    assert data["costs"]["fault-2m"]["profile"] == hardware
    assert data["host_time"]["profile"] == f"live-6.18, {hardware}"
    writes = [hazard for hazard in data["hazards"] if hazard["hazard"] == "host-write"]
    assert [hazard["policy"].partition("[")[0] for hazard in writes] == ["thp"] * (hardware == "snp")
    assert all(hazard["amount"]["min"] > 0 and not hazard["harmless"] for hazard in writes)
    for hazard in writes:  # of a two-source guest: its VMM punches what it converts (K12)
        assert hazard["led_by"] == {"conversion to shared": hazard["amount"]}
        assert hazard["cause"] == "truncation=zeroes"


def test_choices_are_set_for_all_policies(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", scenario, "--host", "1G", "--json", "--set", "shared=thp", "--set", "vmm_punch=none"]
    assert cli.main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert [entry["policy"]["name"] for entry in data["policies"]] == [
        "4k[shared=thp,vmm_punch=none]",
        "thp[shared=thp,vmm_punch=none]",
    ]
    assert all(entry["policy"]["extrapolation"] for entry in data["policies"])
    assert data["policies"][0]["figures"]["peak_backed_twice"]["median"] > 0


def test_hosts(scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    monkeypatch.setattr("gmemlab.capture.capture", lambda: capture(LAZY))
    for words, description in (
        (["--host", str(path)], "host.json, Linux 6.18.2, 2 NUMA nodes"),
        (["--host", "1G", "--fragmentation", "0.3"], "1G, fragmented to 0.3"),
        (["--host", "1G", "--cpus", "2"], "1G, empty, 2 CPUs with lists"),
        (["--host", "1G", "--nodes", "2", "--cpus", "2"], "1G, empty, 2 NUMA nodes, 2 CPUs with lists"),
        (["--host", "live"], f"this machine, Linux {capture(LAZY).release}"),
        ([], f"this machine, Linux {capture(LAZY).release}"),
    ):
        assert cli.main(["compare", scenario, "--policies", "thp", "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)["host"]["description"] == description


def test_shipped_scenarios_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--host", "4G", "--policies", "thp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"]["title"] == load("demo").title


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--policies", "thp,huge"], ["'huge'", "allowed: 4k, 4k-inplace, thp"]),
        (["--policies", ","], ["--policies", "allowed: 4k"]),
        (["--policies", "anon-thp"], ["ordinary memory", "'anon-thp'"]),
        (["--host", "16Q"], ["--host", "'16Q'", "64G"]),
        (["--host", "-1G"], ["--host", "'-1G'"]),
        (["--host", "3M"], ["'3M'", "multiples of 2M"]),
        (["--host", "128M"], ["the scenario is larger than the host", "allowed: up to"]),
        (["--host", "1G", "--fragmentation", "2"], ["fragmentation", "0 to 0.95"]),
        (["--cpus", "513"], ["--cpus", "512"]),
        (["--cma", "3M"], ["cma", "'3M'", "multiples of 2M up to half of a node"]),
        (["--cma", "much"], ["'much'"]),
        (["--fragmentation", "0.4"], ["--fragmentation", "only a host that is given by its size"]),
        (["--host", "128M"], ["small.toml:7: guests: "]),
        (["--policies", "4k,anon-thp"], ["ordinary memory", "'anon-thp'", "allowed: 4k, 4k-inplace"]),
        (["--set", "punch"], ["--set", "choice=value"]),
        (["--set", "=x"], ["--set: ", "'=x'", "choice=value"]),
        (["--set", "sizes="], ["--set: ", "'sizes='", "choice=value"]),
        (["--set", "punch=zero", "--set", "punch = zero"], ["--set punch: set more than once"]),
        (["--set", "shared=thp", "--policies", "thp-inplace"], ["thp-inplace[shared=thp]: ", "there is none"]),
        (["--set", "pool=1G"], ["4k[pool=1G]: ", "no pool"]),
        (["--set", "pool=1K", "--policies", "hugetlb-2m"], ["pool: ", "'1K'", "2M to 64T"]),
        (["--set", "punsh=zero"], ["punsh", "allowed: sizes, fallocate_sizes, source"]),
        (["--set", "punch=zeros"], ["punch", "'zeros'", "split, zero, refuse"]),
        (["--set", "sizes=3M"], ["sizes"]),
        (["--set", "pool=x%"], ["pool", "80%"]),
        (["--set", "source=pool"], ["policy 4k[source=pool]: a pool holds pages of one huge size"]),
        (["--seeds", "0"], ["--seeds"]),
        (["--seed", "-1"], ["--seed"]),
    ],
)
def test_bad_words(words: list[str], messages: list[str], scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    host = [] if "--host" in words or "--fragmentation" in words else ["--host", "1G"]
    assert cli.main(["compare", scenario, *host, *words]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("gmemlab: ")
    assert all(message in errors for message in messages), errors


def test_bad_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "duration": ('"1 fortnight"', "small.toml:3: duration: not a duration (value '1 fortnight'; allowed: "),
        "policies": ('["4k", "huge"]', "small.toml:5: policies.1: no such policy (value 'huge'; allowed: 4k, "),
        "title": ('"\\u001b[2J"', "small.toml:2: title: not a line of text"),
        "count": ("-2", "small.toml:11: guests.count: out of range (value -2; allowed: >= 1)"),
    }
    for key, (value, message) in cases.items():
        path = write_scenario(tmp_path, **{key: value})
        assert cli.main(["compare", str(path), "--host", "1G"]) == 2
        output, errors = capsys.readouterr()
        assert (output, errors.count("\n")) == ("", 1)
        assert message in errors
    assert cli.main(["compare", "nights", "--host", "1G"]) == 2
    assert "allowed: boot, day, day-reporting, demo, or a TOML file" in capsys.readouterr().err


def test_unreadable_proc(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = changed(TWO_NODES, tmp_path / "host", zoneinfo=None)
    monkeypatch.setattr("gmemlab.capture.capture", lambda: capture(root))
    assert cli.main(["compare", scenario]) == 3
    assert capsys.readouterr() == ("", "gmemlab: /proc/zoneinfo: cannot be read: No such file or directory\n")


def test_truncated_snapshot(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    path.write_text(path.read_text()[:1000])
    assert cli.main(["compare", scenario, "--host", str(path)]) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert f"{path}:" in errors
    assert "gmemlab host --save" in errors


def test_nodes_of_a_host_that_has_its_own(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    assert cli.main(["compare", scenario, "--host", str(path), "--nodes", "2"]) == 2
    assert "--nodes: only a host that is given by its size can be given nodes" in capsys.readouterr().err


def test_watermarks_and_cma(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A size has watermarks unless it is told not to, and no CMA unless told; what it has is said. Others have their own."""
    cache = "\n[background]\nunmovable = 0\nmovable = 0\nchurn_per_hour = 0\nchunk = '64K'\nhold = '1s'\ncache = 0.1\n"
    cached = tmp_path / "cached.toml"
    cached.write_text(Path(scenario).read_text() + cache)
    lacking, normal = "the host has no watermarks: no kswapd", "Normal zones only: no DMA32, no ALLOC_NOFRAGMENT"
    for file, words, watermarks, cma, line in (
        (scenario, [], True, 0, normal),
        (scenario, ["--watermarks", "--cma", "128M"], True, 128 << 20, normal),
        (scenario, ["--no-watermarks"], False, 0, lacking),
        (str(cached), ["--no-watermarks"], True, 0, normal),
    ):
        assert cli.main(["compare", file, "--host", "1G", "--policies", "4k", "--json", *words]) == 0
        data = json.loads(capsys.readouterr().out)
        assert (data["host"]["watermarks"], data["host"]["cma_bytes"]) == (watermarks, cma)
        assert [either for either in (lacking, normal) if any(either in one for one in data["assumptions"])] == [line]
    path = tmp_path / "host.json"
    capture(TWO_NODES).save(path)
    for words in (["--no-watermarks"], ["--watermarks"], ["--cma", "1G"]):
        assert cli.main(["compare", scenario, "--host", str(path), *words]) == 2
        assert "only a host that is given by its size can be told its" in capsys.readouterr().err
    assert cli.main(["compare", scenario, "--host", str(path), "--policies", "4k", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["host"]["watermarks"] is True
    assert not any(either in one for either in (lacking, normal) for one in data["assumptions"])


def test_policies_are_named_once() -> None:
    assert options.listed(" thp, 4k ,,thp") == ["thp", "4k", "thp"]
    assert options.chosen_policies(["thp", "4k", "thp"], []) == [find("thp"), find("4k")]


def test_no_bar_where_nobody_watches(scenario: str) -> None:
    result = subprocess.run(
        [*COMMAND, "compare", scenario, "--host", "1G", "--policies", "thp"], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    assert "\x1b" not in result.stdout


# The command line, which writes "!" once Ctrl-C is its own: until then the interpreter starts, as long as the machine needs.
ANNOUNCED = """
import os, signal, sys
from gmemlab.cli import entry

install = signal.signal


def announce(number, handler):
    previous = install(number, handler)
    signal.signal = install
    os.write(1, b"!")
    return previous


signal.signal = announce
sys.exit(entry.main())
"""


@pytest.mark.parametrize("delay", [0, 0.3, 0.8, 2.5])
def test_interrupt_is_quick_and_quiet(delay: float) -> None:
    """At any time from its start on, also with a progress bar shown: exit code 130, no traceback, the cursor is back."""
    terminal, inside = pty.openpty()
    words = ["compare", "day", "--host", "512G", "--policies", "4k,4k-inplace,thp", "--seeds", "9"]
    process = subprocess.Popen([sys.executable, "-c", ANNOUNCED, *words], stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    output = os.read(terminal, 1)
    assert output == b"!"
    due = time.monotonic() + delay
    while (left := due - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            output += os.read(terminal, 65_536)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - sent < 0.5
    while select.select([terminal], [], [], 0)[0]:
        try:
            output += os.read(terminal, 65_536)
        except OSError:  # the other side is closed
            break
    os.close(terminal)
    assert b"Traceback" not in output
    assert output.count(b"\x1b[?25l") == output.count(b"\x1b[?25h")


def test_progress_is_shown_on_terminals_and_taken_away() -> None:
    terminal, inside = pty.openpty()
    code = (
        "import time; from gmemlab.cli import options; options.QUIET_SECONDS = 0.1;"
        "ticker = options.Ticker(); ticker.__enter__(); ticker.show('thp', 0.25); time.sleep(0.5);"
        "ticker.show('thp', 0.5); ticker.clear(); print('row', flush=True); ticker.show('4k', 0.1);"
        "ticker.__exit__(None, None, None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=inside, stderr=inside)
    assert process.wait(20) == 0
    os.close(inside)
    output = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert "thp" in output
    assert "4k" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 2
    assert output.index("thp") < output.index("row") < output.index("4k")


def test_scenario_is_checked_also_when_policies_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_scenario(tmp_path, policies='["nix"]')
    assert cli.main(["compare", str(path), "--host", "1G", "--policies", "4k"]) == 2
    assert "small.toml:5: policies.0: no such policy (value 'nix'; " in capsys.readouterr().err


def test_interrupt_is_served_inside_of_one_long_call() -> None:
    """The main thread is in a library that neither returns nor holds the interpreter."""
    code = (
        "import ctypes; from gmemlab.cli import options\n"
        "with options.Ticker():\n"
        "    print('begun', flush=True)\n"
        "    libc = ctypes.CDLL(None); left = 5\n"
        "    while left: left = libc.sleep(left)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - sent < 0.5
    process.stdout.close()


def test_ticker_leaves_nothing_behind() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    handler = signal.getsignal(signal.SIGINT)
    for _ in range(3):
        with options.Ticker():
            assert signal.getsignal(signal.SIGINT) != handler
    time.sleep(0.2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert signal.getsignal(signal.SIGINT) == handler
    assert signal.set_wakeup_fd(-1) == -1
