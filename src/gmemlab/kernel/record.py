"""Drive suites on the running kernel and write what it showed: `python3 -m gmemlab.kernel.record SUITE ... -o FOLDER`.

What `gmemlab conform --record` does, for machines with nothing but Python's standard library.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gmemlab.errors import GmemlabError
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.settings import recover
from gmemlab.kernel.suites.recording import read, record_suite
from gmemlab.kernel.suites.table import SUITES, find


def main(arguments: Sequence[str] | None = None) -> int:
    """Record suites, each into a file FOLDER/SUITE.jsonl, and return the exit code.

    Args:
        arguments: the words after the program's name; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python3 -m gmemlab.kernel.record", description=__doc__.split(":")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"by default all of {', '.join(SUITES)}")
    parser.add_argument("--ops", type=int, help="random operations in each suite")
    parser.add_argument("--seed", type=int, default=0, help="where they are drawn from")
    parser.add_argument("--memory", help="memory to use at most; by default half of what is available")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="where the recordings go")
    options = parser.parse_args(arguments)
    try:
        for restored in recover():
            print(restored, file=sys.stderr)
        for suite in [find(name) for name in options.suites or SUITES]:
            path = options.output / f"{suite.name}.jsonl"
            count = record_suite(path, suite, options.ops or suite.operations, options.seed, Budget(options.memory, leave=0))
            print(f"{suite.name}: {read(path).skipped or f'{count} operations'}", flush=True)
    except GmemlabError as error:
        print(f"gmemlab: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
