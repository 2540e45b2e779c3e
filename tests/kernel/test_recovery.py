"""What a killed process left changed is found and put back by the next one; a live process is left alone."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel.journal import Owner, state_directory
from gmemlab.kernel.settings import Settings, recover
from settings_world import HARMLESS, LIVE, SHMEM, SWAPPINESS, Process, journals, make_tree, needs_root, needs_thp, spoil, value

CHANGE = json.dumps({"path": SWAPPINESS, "before": "60", "after": "10", "time": 1})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def test_a_killed_process_is_recovered(tree: Path) -> None:
    process = Process(tree, f'settings.set("{SHMEM}", "force")\nsettings.set("{SWAPPINESS}", 10)\nready()')
    process.process.kill()
    _wait_for_zombie(process.process.pid)
    assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("force", "10")
    restored = recover(tree)  # not reaped yet
    assert [(entry.path, entry.found, entry.value, entry.problem) for entry in restored] == [
        (f"/{SWAPPINESS}", "10", "60", ""),
        (f"/{SHMEM}", "force", "never", ""),
    ]
    assert restored[0].owner.pid == process.process.pid
    assert str(restored[0]).startswith("/proc/sys/vm/swappiness: put back from '10' to '60' (left by process ")
    assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("never", "60")
    assert recover(tree) == []
    assert journals(tree) == []
    process.end(signal.SIGKILL)


def test_a_killed_process_is_recovered_before_the_next_change(tree: Path) -> None:
    Process(tree, f'settings.set("{SWAPPINESS}", 10)\nready()').end(signal.SIGKILL)
    said: list[str] = []
    with Settings(tree, say=said.append) as settings:
        settings.set(SWAPPINESS, 30)
    assert value(tree, SWAPPINESS) == "60"
    assert ["put back from '10' to '60'" in line for line in said] == [True]


def test_a_live_process_is_left_alone(tree: Path) -> None:
    process = Process(tree, f'settings.set("{SWAPPINESS}", 10)\nready()')
    assert recover(tree) == []
    assert value(tree, SWAPPINESS) == "10"
    with Settings(tree) as settings:
        settings.set(SHMEM, "force")
        with pytest.raises(UsageError, match=f"changed by process {process.process.pid}, which still runs"):
            settings.set(SWAPPINESS, 20)
        assert value(tree, SWAPPINESS) == "10"
    assert value(tree, SWAPPINESS) == "10"
    assert process.end()[:2] == (0, "after\n")
    assert value(tree, SWAPPINESS) == "60"


def test_patience_waits_for_the_other_process(tree: Path) -> None:
    process = Process(tree, f'settings.set("{SWAPPINESS}", 10)\nprint("ready", flush=True)\ntime.sleep(0.5)')
    with Settings(tree, patience=30) as settings:
        settings.set(SWAPPINESS, 20)
        assert process.end()[0] == 0
        assert value(tree, SWAPPINESS) == "20"
    assert value(tree, SWAPPINESS) == "60"


def _left(tree: Path, owner: Owner, *lines: str) -> Path:
    """Write the journal of a process, and change the setting as it would have."""
    state = state_directory(tree)
    state.mkdir(parents=True, mode=0o700)
    head = json.dumps({"boot": owner.boot, "pid": owner.pid, "start": owner.start, "command": owner.command})
    (state / "7-7.jsonl").write_text("\n".join((head, *lines)))
    (tree / SWAPPINESS).write_text("10")
    return state / "7-7.jsonl"


def test_a_reused_number_is_not_the_process(tree: Path) -> None:
    me = Owner.current()
    _left(tree, Owner(me.boot, me.pid, me.start - 1, "earlier"), CHANGE)
    assert [entry.owner.command for entry in recover(tree)] == ["earlier"]
    assert value(tree, SWAPPINESS) == "60"


def test_another_boot_is_forgotten(tree: Path) -> None:
    me = Owner.current()
    file = _left(tree, Owner("another", me.pid, me.start, "before the reboot"), CHANGE)
    assert recover(tree) == []
    assert value(tree, SWAPPINESS) == "10"
    assert not file.exists()


def test_a_line_that_was_cut_off_is_no_change(tree: Path) -> None:
    me = Owner.current()
    _left(tree, Owner(me.boot, me.pid, me.start - 1, ""), CHANGE, '{"path": "proc/sys/vm/other", "bef')
    assert [entry.path for entry in recover(tree)] == [f"/{SWAPPINESS}"]
    assert journals(tree) == []


def test_a_journal_cannot_name_other_files(tree: Path) -> None:
    me = Owner.current()
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text("root")
    forged = json.dumps({"path": "sys/../etc/passwd", "before": "", "after": "", "time": 2})
    _left(tree, Owner(me.boot, me.pid, me.start - 1, ""), CHANGE, forged)
    assert [entry.problem for entry in recover(tree)] == ["not a setting", ""]
    assert value(tree, "etc/passwd") == "root"


def test_recovery_reports_what_it_cannot_do_and_tries_again(tree: Path) -> None:
    me = Owner.current()
    file = _left(tree, Owner(me.boot, me.pid, me.start - 1, ""), CHANGE)
    spoil(tree / SWAPPINESS)
    (restored,) = recover(tree)
    assert restored.problem
    assert f"could not be put back from {restored.found!r} to '60': {restored.problem}" in str(restored)
    assert file.exists()
    (tree / SWAPPINESS).unlink()
    assert "No such file" in recover(tree)[0].problem  # gone for good
    assert not file.exists()


@needs_root
def test_another_users_journals_are_refused(tree: Path) -> None:
    me = Owner.current()
    file = _left(tree, Owner(me.boot, me.pid, me.start - 1, ""), CHANGE)
    os.chown(file.parent, 1, 1)
    with pytest.raises(UnsupportedError, match="belongs to another user"):
        recover(tree)
    assert value(tree, SWAPPINESS) == "10"


@needs_root
@needs_thp
def test_a_killed_process_is_recovered_on_the_live_kernel() -> None:
    before = value(LIVE, HARMLESS)
    process = Process(LIVE, f'settings.set("{HARMLESS}", {int(before) + 1})\nready()')
    assert value(LIVE, HARMLESS) == str(int(before) + 1)
    process.end(signal.SIGKILL)
    recover()  # unless another test's process was faster
    assert value(LIVE, HARMLESS) == before


def _wait_for_zombie(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
