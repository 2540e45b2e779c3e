"""Machine code on disk belongs to exactly the sources that it was made from: an edit of core/ changes the next run."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

import gmemlab
from gmemlab.core import jit, layout

# Asks which term of K8 limits one base page: an entry point whose few callees reach decisions.py, and that needs no parts.
PROGRAM = """
from gmemlab.core import decisions, jit, layout, measure, parts
from gmemlab.core.state import reserve_state

parts.addresses = lambda state_type: []
state = reserve_state(4, 1)
state.files[1].pages = state.slots[layout.MAX_SLOTS].count = layout.BLOCK_PAGES
state.files[1].first_block = 1
state.file_blocks[1].nr_present = layout.BLOCK_PAGES
state.file_blocks[1].block = 2
state.blocks[2].kind = layout.UNIFORM
print(measure.limit(state, 1, 7), jit.source_key(), decisions.__file__)
"""
KEY_PROGRAM = "from gmemlab.core import jit; print(0, jit.source_key(), jit.__file__)"
RULE = "return layout.TERM_FOLIO\n"
Run = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK, reason="about compiled code on disk")


@pytest.fixture(name="core")
def core_fixture(tmp_path: Path) -> Path:
    """`core/` of a copy of the package."""
    source = Path(gmemlab.__file__).parent
    shutil.copytree(source, tmp_path / "src" / "gmemlab", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "src" / "gmemlab" / "core"


@pytest.fixture(name="run")
def run_fixture(core: Path, tmp_path: Path) -> Run:
    """A function that runs a program with the copy and a cache of its own: (its number, the key of its sources)."""

    def run(program: str, **settings: str) -> tuple[int, str]:
        own = {"PYTHONPATH": str(core.parent.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **own, **settings}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        number, key, path = done.stdout.split()
        assert Path(path).parent == core
        return int(number), key

    return run


def builds(tmp_path: Path) -> dict[str, list[tuple[str, int]]]:
    """Files of machine code, with the time of their last change, by key of the sources."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path in sorted((tmp_path / "cache" / "gmemlab" / "core").rglob("*.nb*")):
        key = path.relative_to(tmp_path / "cache" / "gmemlab" / "core").parts[0]
        found.setdefault(key, []).append((path.name, path.stat().st_mtime_ns))
    return found


def test_edit_of_decisions_changes_the_next_run(core: Path, run: Run, tmp_path: Path) -> None:
    decisions = core / "decisions.py"
    original = decisions.read_text()
    first, old = run(PROGRAM)
    made = builds(tmp_path)
    assert (first, list(made)) == (layout.TERM_FOLIO, [old])

    assert run(PROGRAM) == (first, old)
    assert builds(tmp_path) == made, "unchanged sources are compiled once"

    assert original.count(RULE) == 1
    decisions.write_text(original.replace(RULE, "return layout.TERM_INHIBIT\n"))
    second, new = run(PROGRAM)
    assert second == layout.TERM_INHIBIT
    assert set(builds(tmp_path)) == {old, new}

    decisions.write_text(original)
    assert run(PROGRAM) == (first, old)
    assert builds(tmp_path)[old] == made[old], "the code of the first sources is still there"


def test_every_file_and_the_bounds_check_make_another_key(core: Path, run: Run) -> None:
    keys = {run(KEY_PROGRAM)[1], run(KEY_PROGRAM, NUMBA_BOUNDSCHECK="1")[1]}
    for name in ("layout.py", "operations/punch.py"):
        path = core / name
        path.write_text(path.read_text() + "\n")
        keys.add(run(KEY_PROGRAM)[1])
    assert len(keys) == 4


def test_only_builds_that_nobody_used_for_days_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [0, 1, 2, 2.9, 2.95, 2.99, 4, 5, 60]
    for day in days:
        build = tmp_path / f"day-{day}"
        build.mkdir()
        os.utime(build, (used := time.time() - day * 86_400, used))
    monkeypatch.setattr(jit, "cache_directory", lambda: tmp_path / "day-0")
    jit.prune_cache()
    assert {path.name for path in tmp_path.iterdir()} == {f"day-{day}" for day in days if day < 3}
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    jit.prune_cache()
    assert len(list(tmp_path.iterdir())) == jit.KEPT_BUILDS


def test_build_that_is_used_again_counts_as_new(run: Run, tmp_path: Path) -> None:
    _, key = run(PROGRAM)
    build = tmp_path / "cache" / "gmemlab" / "core" / key
    os.utime(build, (0, 0))
    run(KEY_PROGRAM)
    assert time.time() - build.stat().st_mtime < 60


def test_compiling_is_announced_once(core: Path, tmp_path: Path) -> None:
    program = "import gmemlab.model.host;" + PROGRAM
    own = {"PYTHONPATH": str(core.parent.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    told = [
        subprocess.run(
            [sys.executable, "-c", text], env={**os.environ, **own}, capture_output=True, text=True, check=True
        ).stderr
        for text in (program, program, PROGRAM)
    ]
    assert told == [f"{jit.COMPILING}\n", "", ""]
