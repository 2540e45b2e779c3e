"""``gmemlab calibrate``: what operations on guest memory cost on this kernel, as a profile for `compare --costs`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from gmemlab.cli.options import Ticker
from gmemlab.cli.output import console, print_json
from gmemlab.errors import UnsupportedError, UsageError

ROUNDS: Final = 9
MEMORY_HELP: Final = "Memory to use at most; by default 512M, or half of what is available if that is less."
PATIENCE: Final = 60.0  # seconds for another gmemlab on this machine to put its settings back


def run(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a cost profile to this TOML file.")] = None,
    memory: Annotated[str | None, typer.Option(help=MEMORY_HELP)] = None,
    repetitions: Annotated[int, typer.Option(min=ROUNDS, max=10_000, help="How often each operation is timed.")] = ROUNDS,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Time every operation that this kernel has, in turn, and print the costs beside the shipped ones.

    Args:
        output: the profile's file.
        memory: a size.
        repetitions: how often each operation is timed.
        json: whether to print JSON.

    Raises:
        UsageError: the file cannot be written, too little memory is allowed, or another process has changed a setting.
        UnsupportedError: not root, or too little memory.
    """
    if os.geteuid() != 0:
        raise UnsupportedError("root", "calibrate switches huge pages on and off and grows a hugetlb pool meanwhile")
    if output is not None and (output.is_dir() or not os.access(output.parent, os.W_OK)):
        raise UsageError("cannot be written", file=output, allowed="a file in a folder that exists")
    with Ticker(unwind=True) as ticker:
        from gmemlab.costs import DEFAULT, Profile
        from gmemlab.lab.calibrate import calibrate
        from gmemlab.report.calibrate import calibration_as_json, print_calibration

        name = output.stem if output is not None else "this host"
        calibration = calibrate(name, repetitions, memory, ticker.show, PATIENCE)
    if output is not None:
        calibration.profile.save(output)
    default = Profile.load(DEFAULT)
    if json:
        print_json(calibration_as_json(calibration, default))
    else:
        print_calibration(console(), calibration, default)
    if calibration.useless:
        print(f"gmemlab: spread too wide to be of use: {', '.join(calibration.useless)}", file=sys.stderr)
    if output is not None:
        print(f"Cost profile written to {output}", file=sys.stderr)
    return 0
