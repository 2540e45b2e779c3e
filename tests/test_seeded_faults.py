"""Faults are seeded into copies of core/, one at a time: for each, a test that passes without it fails with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gmemlab
from fault import Fault
from faults import FAULTS

ROOT = Path(__file__).parent.parent
TESTS_FAILED = 1  # pytest's exit codes
ALL_PASSED = 0


def copy_package(tmp_path: Path) -> Path:
    """A copy of the package. Returns its `core/`."""
    source = Path(gmemlab.__file__).parent
    shutil.copytree(source, tmp_path / "gmemlab", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "gmemlab" / "core"


def run_tests(copy: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run tests by name against a copy of `core/`, without the compiler, until one fails."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(copy.parent.parent), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_without_a_fault_they_pass(tmp_path: Path) -> None:
    """Those that the interpreted pass does not take (`make test-interpreted`)."""
    named = sorted({name for fault in FAULTS for name in fault.caught_by})
    tests = [name for name in named if not name.startswith("tests/test_oracle") or "giga" in name]
    done = run_tests(copy_package(tmp_path), tests)
    assert done.returncode == ALL_PASSED, done.stdout
    assert f"{len(tests)} passed" in done.stdout


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    core = copy_package(tmp_path)
    path = core / fault.file
    path.write_text(fault.seed(path.read_text()))
    done = run_tests(core, list(fault.caught_by))
    assert done.returncode == TESTS_FAILED, f"{done.stdout}{done.stderr}"
