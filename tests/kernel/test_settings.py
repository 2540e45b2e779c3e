"""Settings are put back whatever ends a run."""

import json
import mmap
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from gmemlab.kernel import settings as guard
from gmemlab.kernel.journal import state_directory
from gmemlab.kernel.quiet import free_on_each_cpu, hidden_pages, longest_list, quiet
from gmemlab.kernel.settings import Settings, recover
from gmemlab.units import MIB
from hosts import TWO_NODES, changed
from settings_world import HARMLESS, LIVE, SHMEM, SWAPPINESS, Process, journals, make_tree, needs_root, needs_thp, spoil, value

POOL = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
FOLIO = "sys/kernel/mm/transparent_hugepage/hugepages-1024kB/shmem_enabled"  # no other test uses this size
LISTS = "proc/sys/vm/percpu_pagelist_high_fraction"
PATIENCE = 120.0

needs_pool = pytest.mark.skipif(not (LIVE / POOL).exists(), reason="hugetlb pool of 2 MiB")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path)


def test_a_chosen_word_is_put_back(tree: Path) -> None:
    with Settings(tree) as settings:
        assert settings.set(SHMEM, "within_size") == "within_size"
        assert settings.set(SWAPPINESS, 10) == "10"
        assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("within_size", "10")
    assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("never", "60")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_puts_back(tree: Path, kind: type[BaseException]) -> None:
    def run() -> None:
        with Settings(tree) as settings:
            settings.set(SWAPPINESS, 10)
            raise kind

    with pytest.raises(kind):
        run()
    assert value(tree, SWAPPINESS) == "60"
    assert journals(tree) == []


def test_the_last_change_is_put_back_first(tree: Path) -> None:
    other = "proc/sys/vm/the_same"
    (tree / other).symlink_to("swappiness")
    with Settings(tree) as settings:
        settings.set(SWAPPINESS, 10)
        settings.set(other, 20)
    assert value(tree, SWAPPINESS) == "60"


def test_a_second_change_keeps_the_first_value(tree: Path) -> None:
    with Settings(tree) as settings:
        for number in range(3):
            settings.set(SWAPPINESS, number)
        assert len(journals(tree)[0].read_text().splitlines()) == 2  # the owner, one change
    assert value(tree, SWAPPINESS) == "60"


def test_contexts_nest(tree: Path) -> None:
    with Settings(tree) as outer:
        outer.set(SWAPPINESS, 10)
        with Settings(tree) as inner:
            inner.set(SWAPPINESS, 20)
            inner.set(SHMEM, "force")
        assert (value(tree, SWAPPINESS), value(tree, SHMEM)) == ("10", "never")
    assert value(tree, SWAPPINESS) == "60"


def test_the_journal_is_there_before_the_change_and_private(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []

    def write(root: Path, path: str, text: str) -> None:
        (journal,) = journals(root)
        assert journal.stat().st_mode & 0o777 == 0o600
        assert journal.parent.stat().st_mode & 0o777 == 0o700
        seen.extend(json.loads(line) for line in journal.read_text().splitlines()[1:])
        (root / path).write_text(text)

    monkeypatch.setattr(guard, "_write", write)
    with Settings(tree) as settings:
        settings.set(SHMEM, "force")
        assert [(row["path"], row["before"], row["after"]) for row in seen] == [(SHMEM, "never", "force")]
    assert journals(tree) == []


def test_nothing_is_written_where_nothing_is_changed(tree: Path) -> None:
    with Settings(tree) as settings:
        assert settings.get(SHMEM) == "never"
    assert recover(tree) == []
    assert not state_directory(tree).exists()


@pytest.mark.parametrize("path", ["etc/passwd", "/proc/sys/vm/swappiness", "sys/../etc/passwd", "proc/self/oom_score_adj"])
def test_only_settings_are_changed(tree: Path, path: str) -> None:
    with Settings(tree) as settings, pytest.raises(UsageError, match="not a setting"):
        settings.set(path, 1)


def test_an_absent_setting_is_named(tree: Path) -> None:
    with Settings(tree) as settings, pytest.raises(UnsupportedError, match=r"^/proc/sys/vm/absent: cannot be read"):
        settings.set("proc/sys/vm/absent", 1)
    assert not (tree / "proc/sys/vm/absent").exists()


def test_users_without_rights_are_told_before_anything_is_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with Settings(tree) as settings, pytest.raises(UnsupportedError, match=r"^/proc/sys/vm/swappiness: .* needs root$"):
        settings.set(SWAPPINESS, 10)
    assert not state_directory(tree).exists()


def test_settings_are_changed_inside_the_context_only(tree: Path) -> None:
    with pytest.raises(RuntimeError):
        Settings(tree).set(SWAPPINESS, 1)


def test_what_cannot_be_put_back_is_said_and_the_rest_put_back(tree: Path) -> None:
    said: list[str] = []

    def run() -> None:
        with Settings(tree, say=said.append) as settings:
            settings.set(SHMEM, "force")
            settings.set(SWAPPINESS, 10)
            spoil(tree / SWAPPINESS)

    with pytest.raises(GmemlabError, match="/proc/sys/vm/swappiness"):
        run()
    assert len(said) == 1
    assert said[0].startswith("/proc/sys/vm/swappiness: could not be put back from ")
    assert "to '60'" in said[0]
    assert value(tree, SHMEM) == "never"
    assert len(journals(tree)) == 1  # for the next process


def test_a_failure_to_put_back_does_not_hide_the_exception(tree: Path) -> None:
    said: list[str] = []

    def run() -> None:
        with Settings(tree, say=said.append) as settings:
            settings.set(SWAPPINESS, 10)
            (tree / SWAPPINESS).unlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert "No such file" in said[0]


@pytest.fixture
def hearing() -> Iterator[None]:
    """Signals are heard, also where the tests run in the background or under nohup, which ignore some."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_all_is_put_back(tree: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write = guard._write

    def interrupted(root: Path, path: str, text: str) -> None:
        signal.raise_signal(number)
        write(root, path, text)

    def run() -> None:
        with Settings(tree) as settings:
            settings.set(SHMEM, "force")
            settings.set(SWAPPINESS, 10)
            monkeypatch.setattr(guard, "_write", interrupted)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run()
    assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("never", "60")
    assert journals(tree) == []


def test_handlers_are_put_back(tree: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Settings(tree):
            assert signal.getsignal(signal.SIGTERM) != before
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGHUP, hangup)


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_ends_the_process_cleanly(tree: Path, number: int, code: int) -> None:
    body = f"""
        settings.set("{SHMEM}", "force")
        settings.set("{SWAPPINESS}", 10)
        try:
            ready()
        finally:
            print("cleaned up", flush=True)
    """
    process = Process(tree, body)
    assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("force", "10")
    result, output, _ = process.end(number)
    assert (result, output) == (code, "cleaned up\n")
    assert (value(tree, SHMEM), value(tree, SWAPPINESS)) == ("never", "60")
    assert journals(tree) == []


def test_a_forked_child_puts_nothing_back(tree: Path) -> None:
    body = f"""
        settings.set("{SWAPPINESS}", 10)
        child = os.fork()
        if child == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        ready()
    """
    process = Process(tree, body)
    assert value(tree, SWAPPINESS) == "10"
    assert process.end()[0] == 0
    assert value(tree, SWAPPINESS) == "60"


# -- the live kernel ---------------------------------------------------------------------------------------------------


@pytest.fixture
def live() -> Iterator[Settings]:
    """Yield settings of this machine; tests in other processes may want the same ones."""
    with Settings(patience=PATIENCE) as settings:
        yield settings


@needs_root
@needs_thp
def test_live_values_are_put_back() -> None:
    before = {path: (LIVE / path).read_text() for path in (HARMLESS, FOLIO)}
    with Settings(patience=PATIENCE) as settings:
        assert settings.set(HARMLESS, 8192) == "8192"
        assert settings.set(FOLIO, "advise") == "advise"
        assert "[advise]" in (LIVE / FOLIO).read_text()
    assert {path: (LIVE / path).read_text() for path in before} == before


@needs_root
@needs_thp
def test_a_live_kernel_refuses_a_value(live: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        live.set(FOLIO, "sometimes")
    text = str(caught.value)
    assert text.startswith(f"/{FOLIO}: cannot be set to 'sometimes': Invalid argument")
    assert "never" in text
    assert "[" not in text


@needs_root
def test_a_live_file_that_cannot_be_written_is_named(live: Settings) -> None:
    with pytest.raises(UnsupportedError, match=r"^/proc/sys/kernel/ostype: cannot be set to 'Minix': "):
        live.set("proc/sys/kernel/ostype", "Minix")


@needs_root
@needs_pool
def test_a_live_pool_gets_its_count_back(live: Settings) -> None:
    before = value(LIVE, POOL)
    with Settings(patience=PATIENCE) as settings:
        assert settings.set(POOL, int(before) + 4) == str(int(before) + 4)
    assert value(LIVE, POOL) == before


@needs_root
def test_quiet_is_undone() -> None:
    before = {name: value(LIVE, name) for name in (LISTS, *_helpers())}
    with Settings(patience=PATIENCE) as settings:
        quiet(settings)
        assert value(LIVE, LISTS) == "1000000"
        assert {path: value(LIVE, path) for path in _helpers()} == _helpers()
    assert {name: value(LIVE, name) for name in before} == before


@needs_root
def test_quiet_empties_the_lists() -> None:
    with mmap.mmap(-1, 512 * MIB) as memory:  # a shared mapping: pages of 4 KiB, unless shmem has huge ones
        for page in range(0, len(memory), 4096):
            memory[page] = 1
    hidden = hidden_pages()
    with Settings(patience=PATIENCE) as settings:
        assert quiet(settings) < hidden


@needs_root
def test_quiet_empties_the_lists_of_idle_cpus() -> None:
    """What this test frees comes to the zone from which it was allocated, which `quiet` reaches."""
    free_on_each_cpu(1 << 16)
    if longest_list() <= 2 * 252:
        pytest.skip("per-CPU lists of more than 504 pages")
    with Settings(patience=PATIENCE) as settings:
        quiet(settings)
        assert longest_list() <= 2 * 252


def test_quiet_waits_two_seconds_at_most(tmp_path: Path) -> None:
    waited = []
    for name, count in (("full", 100_000), ("drained", 50)):
        root = changed(TWO_NODES, tmp_path / name, zoneinfo=("count:    200", f"count: {count}"))
        (root / LISTS).parent.mkdir(parents=True)
        (root / LISTS).write_text("0\n")
        with Settings(root) as settings:
            start = time.monotonic()
            assert quiet(settings, root) == 319 - 200 + count
            waited.append(time.monotonic() - start)
    assert 1.9 < waited[0] < 4
    assert waited[1] < 1


def _helpers() -> dict[str, str]:
    """Return what quiet makes of the settings of huge pages that this kernel has."""
    folder = "sys/kernel/mm/transparent_hugepage"
    names = {"shrink_underused": "0", "khugepaged/max_ptes_none": "0", "khugepaged/scan_sleep_millisecs": "3600000"}
    return {f"{folder}/{name}": text for name, text in names.items() if (LIVE / folder / name).exists()}
