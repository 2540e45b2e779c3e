"""What the tests of settings share: a directory that looks like /, and other processes that change settings."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gmemlab.kernel.journal import state_directory

SHMEM = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
SWAPPINESS = "proc/sys/vm/swappiness"
HARMLESS = "sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan"  # nothing in gmemlab depends on it
LIVE = Path("/")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root")
needs_thp = pytest.mark.skipif(not (LIVE / HARMLESS).exists(), reason="transparent huge pages")


def make_tree(root: Path) -> Path:
    """Make a directory look like / with two settings, a choice and a number."""
    for path, text in ((SHMEM, "always within_size advise [never] deny force\n"), (SWAPPINESS, "60\n")):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    return root


def value(root: Path, path: str) -> str:
    return (root / path).read_text().strip()


def journals(root: Path) -> list[Path]:
    return sorted(state_directory(root).glob("*.jsonl"))


class Process:
    """Another Python that runs ``body`` inside ``with Settings()``, up to its line ``ready()``, and waits to be ended."""

    def __init__(self, root: Path, body: str) -> None:
        script = "\n".join(
            (
                "import os, signal, sys, time",
                "from pathlib import Path",
                "from gmemlab.kernel.settings import Settings",
                "def ready():",
                "    print('ready', flush=True)",
                "    sys.stdin.readline()",
                "with Settings(Path(sys.argv[1])) as settings:",
                textwrap.indent(textwrap.dedent(body), "    "),
                "print('after', flush=True)",
            )
        )
        command = [sys.executable, "-c", script, str(root)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != "ready\n":
            self.process.kill()
            pytest.fail(f"not ready: {line!r} {self.process.communicate()}")

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Send a signal, or let the process go on; return exit code, output, errors."""
        if number is not None:
            self.process.send_signal(number)
        output, errors = self.process.communicate("\n" if number is None else None, timeout=60)
        return self.process.returncode, output, errors


def spoil(path: Path) -> None:
    """Put a file in a setting's place that can be read but not written, also by root."""
    path.unlink()
    path.symlink_to("/proc/version")
