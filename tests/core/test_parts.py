"""The parts of the core: what is on the list, and what is not."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gmemlab.core
from gmemlab.core import parts

CORE = Path(gmemlab.core.__file__).parent


def decorated() -> set[str]:
    """Every function of the core that is marked as a part."""
    found = set()
    for path in CORE.rglob("*.py"):
        module = ".".join(path.relative_to(CORE).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(getattr(mark, "id", "") == "part" for mark in node.decorator_list):
                found.add(f"{module}.{node.name}")
    return found


def test_the_list_has_each_part_once() -> None:
    assert set(parts.NAMES) == decorated()
    assert len(set(parts.NAMES)) == len(parts.NAMES)


def test_a_part_that_is_not_on_the_list_is_refused() -> None:
    code = "from gmemlab.core.parts import part\n@part\ndef stranger(state: int) -> int:\n    return 0\n"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NUMBA_DISABLE_JIT": "0"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "__main__.stranger" in run.stderr


@pytest.mark.skipif(os.environ.get("NUMBA_BOUNDSCHECK") != "1", reason="only with bounds checks")
def test_an_index_error_passes_through_a_part() -> None:
    from gmemlab.core import execute, layout
    from gmemlab.model.host import Host

    host = Host("64M")
    with pytest.raises(IndexError):
        execute.execute(host.state, layout.OP_ALLOCATE, 1 << 40, 0, 1, 0)
