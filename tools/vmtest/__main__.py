"""Command line: ``python -m tools.vmtest KERNEL [options] [-- COMMAND ...]``.

Exit codes: the command's, or conform's: 0, 1 (a mismatch, or a machine that failed), 2 (usage), 3 (something is lacking,
which is named).
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from gmemlab.kernel.suites.table import find as find_suite
from gmemlab.units import GIB, parse_size
from tools.vmtest.build import build_kernel
from tools.vmtest.debian import Kernel, fetch_kernel
from tools.vmtest.host import REPOSITORY, cache, need, say
from tools.vmtest.machine import Machine, Outcome, run
from tools.vmtest.python import fetch_python

_SW_PROTECTED: Final = "-sw-protected"
# Suites, and how many random operations in each; a kernel that lacks something skips a suite. `mix` takes memory for each.
_SUITES: Final = {"guest-memfd": 500, "thp": 500, "anon": 500, "hugetlb": 500, "attributes": 500, "mix": 1000}
_RECORDER: Final = ("python3", "-m", "gmemlab.kernel.record")


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        own, command = split_command(arguments)
        options = parse(own)
        commands = [command] if command else recordings(options.suites, options.ops, options.seed)
        need("qemu-system-x86_64")
        kernel = find(options.kernel)
        python = fetch_python(kernel.debian)
        machine = Machine(options.memory, options.cpus, options.timeout)
        folder = options.output or cache() / "results" / kernel.name
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{kernel.name}: starting")
        outcome = run(kernel, python, commands, machine, folder)
    except GmemlabError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    say(f"{kernel.name}: {summary(outcome)}")
    return outcome.status if command else judge(outcome)


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after ``--``."""
    own = list(arguments)
    if "--" not in own:
        return own, []
    place = own.index("--")
    return own[:place], own[place + 1 :]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options; ends the program if they are wrong, as argparse does."""
    parser = argparse.ArgumentParser("vmtest", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("kernel", help="a version such as 7.3 or 6.12.95, or 7.3-sw-protected")
    parser.add_argument("--suites", default=tuple(_SUITES), type=lambda text: text.split(","), help="to record")
    parser.add_argument("--ops", type=int, help="random operations in each suite")
    parser.add_argument("--seed", type=int, default=0, help="of the operations")
    parser.add_argument("--memory", type=_size, default=2 * GIB, help="of the machine")
    parser.add_argument("--cpus", type=int, default=2, help="of the machine")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds until the machine is stopped")
    parser.add_argument("--output", type=Path, help="where the files go")
    return parser.parse_args(arguments)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def find(name: str) -> Kernel:
    """Return the kernel that the user named, ready to boot.

    Raises:
        UsageError: there is none.
        UnsupportedError: this machine lacks something.
        GmemlabError: it cannot be loaded or built.
    """
    return build_kernel(name.removesuffix(_SW_PROTECTED)) if name.endswith(_SW_PROTECTED) else fetch_kernel(name)


def recordings(suites: Sequence[str], operations: int | None, seed: int) -> list[list[str]]:
    """Return the commands that record suites, one for each, so that one that fails does not keep the others back.

    Args:
        suites: their names.
        operations: how many in each; by default what such a machine does in a minute or two.
        seed: of the operations.

    Raises:
        UsageError: an unknown suite.
    """
    found = [find_suite(suite) for suite in suites]
    counts = [operations or _SUITES.get(suite.name, suite.operations) for suite in found]
    return [
        [*_RECORDER, suite.name, "--ops", str(count), "--seed", str(seed)] for suite, count in zip(found, counts, strict=True)
    ]


def summary(outcome: Outcome) -> str:
    """Return one line about a run."""
    times = f"booted in {outcome.boot:.1f} s, ran for {outcome.command:.1f} s, {outcome.total:.1f} s in all"
    return f"{times}; status {outcome.status}; files: {', '.join(map(str, outcome.files)) or 'none'}"


def judge(outcome: Outcome) -> int:
    """Compare the recordings with the model, and return the worst exit code; a skipped suite counts only if all are."""
    codes = []
    for file in outcome.files:
        command = [sys.executable, "-m", "gmemlab.cli.main", "conform", "--check", str(file)]
        codes.append(subprocess.run(command, cwd=REPOSITORY, check=False).returncode)
    skipped = UnsupportedError.exit_code
    return max(outcome.status, max((code for code in codes if code != skipped), default=skipped))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that QEMU does not outlive this process
    sys.exit(main(sys.argv[1:]))
