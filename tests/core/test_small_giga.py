"""1 GiB pages against the oracle, fifty times each outcome: on a copy of the package whose largest page is 16 MiB.

A real 1 GiB page has a quarter of a million frames, which the oracle walks one by one; `test_against_oracle.py` therefore
takes fewer steps with it. Geometry is the only thing that differs here: 8 blocks to the largest page instead of 512.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numba
import pytest

import gmemlab

ROOT: Final = Path(__file__).parents[2]
GEOMETRY: Final = {
    "core/layout.py": [
        ("GIGA_ORDER: Final = 18", "GIGA_ORDER: Final = 12"),
        ("GIGA_BLOCKS: Final = 512", "GIGA_BLOCKS: Final = 8"),
    ],
    "presets.py": [('"1G", "1G pages', '"16M", "1G pages')],
    "policy_sizes.py": [("ORDER_1G: Final = 18", "ORDER_1G: Final = 12")],
}

ON_SMALL_PAGES: Final = (
    *("tests/core/test_against_oracle.py", "tests/test_oracle_contig.py", "tests/test_oracle_contig_at_random.py"),
    *("-k", "1g_pages or contig"),
)

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK, reason="one pass is enough")


def small_copy(folder: Path) -> None:
    """A copy of the package with the smaller geometry."""
    shutil.copytree(Path(gmemlab.__file__).parent, folder / "gmemlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in GEOMETRY.items():
        path = folder / "gmemlab" / name
        text = path.read_text()
        for old, new in changes:
            assert old in text, f"{name} no longer says: {old}"
            text = text.replace(old, new)
        path.write_text(text)


def test_core_agrees_with_the_oracle_on_small_giga_pages(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    small_copy(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ON_SMALL_PAGES],
        cwd=ROOT,
        # Compiled for this once: less optimised is faster on the whole.
        env={**os.environ, "PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "NUMBA_OPT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    counts = [line for line in done.stdout.splitlines() if line.startswith("hugetlb-1g") and ": create" in line]
    assert len(counts) == 2
    for line in counts:
        record_property("outcomes", f"{line} (pages of 16M in place of 1G)")
