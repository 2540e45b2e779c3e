"""``gmemlab conform``: the model against the running kernel, or against what was recorded on another one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gmemlab.cli.options import Ticker
from gmemlab.cli.output import console, print_json
from gmemlab.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gmemlab.lab.conform.run import Result

OPS_HELP: Final = "Random operations in each suite; by default what takes about two minutes in all."


def run(
    suites: Annotated[list[str] | None, typer.Argument(help="Which suites; by default all.")] = None,
    ops: Annotated[int | None, typer.Option(min=1, help=OPS_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Where the operations are drawn from.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Memory to use at most; by default half of what is available.")] = None,
    record: Annotated[Path | None, typer.Option(help="Drive the kernel only, and write one suite to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Judge a recorded file only; needs no kernel.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Take random operations in both worlds, compare after each, and print the shortest sequence that shows a mismatch.

    Args:
        suites: names.
        ops: how many operations.
        seed: of the operations.
        memory: a size.
        record: the recording to write.
        check: the recording to judge.
        json: whether to print JSON.

    Raises:
        UsageError: an unknown suite, a damaged recording, or options that do not go together.
        UnsupportedError: no suite can run here.
    """
    from gmemlab.kernel.budget import Budget
    from gmemlab.kernel.suites.recording import read, record_suite
    from gmemlab.kernel.suites.table import SUITES, find

    if check is not None and suites:
        raise UsageError("a recording says itself which suite it is of", key="--check", value=str(check))
    if record is not None and (check is not None or len(suites or ()) != 1):
        raise UsageError(
            "one suite is recorded into one file", key="--record", value=str(record), allowed="one suite, no --check"
        )
    chosen = [find(name) for name in dict.fromkeys(suites or SUITES)]
    with Ticker(unwind=True) as ticker:
        if record is not None:
            count = record_suite(record, chosen[0], ops or chosen[0].operations, seed, Budget(memory))
            if skipped := read(record).skipped:
                raise UnsupportedError(f"suite {chosen[0].name}", skipped)
            print(f"{count} operations of {chosen[0].name} recorded in {record}")
            return 0
        from gmemlab.lab.conform.run import check_recording, conform_suite
        from gmemlab.report.conform import conformance_as_json, print_conformance

        if check is not None:
            results = [check_recording(read(check), ticker.show)]
        else:
            results = [conform_suite(suite, ops or suite.operations, seed, Budget(memory), ticker.show) for suite in chosen]
        ticker.clear()
    if json:
        print_json(conformance_as_json(results))
    else:
        print_conformance(console(), results)
    return exit_code(results)


def exit_code(results: "Sequence[Result]") -> int:
    """0 if all that ran agrees, 1 if something differs; where nothing could run, UnsupportedError says why."""
    from gmemlab.lab.conform.run import DIFFERS

    if any(result.status == DIFFERS for result in results):
        return 1
    if all(result.reason for result in results):
        raise UnsupportedError(f"suites {', '.join(result.suite.name for result in results)}", results[0].reason)
    return 0
