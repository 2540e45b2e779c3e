"""The ``gmemlab`` command: runs the sub-command, and turns whatever goes wrong into one line and an exit code.

Exit codes: 0, 1 (a finding or a mismatch), 2 (usage), 3 (this machine lacks something, such as room for the output), 130
(interrupted), 141 (the reader of the output went away).
"""

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Final

import typer

import gmemlab
from gmemlab.cli.entry import INTERRUPTED
from gmemlab.errors import GmemlabError, UnsupportedError

# Sub-command: the module whose function `run` it is, and its line in --help. Modules are imported when called for.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "calibrate": ("gmemlab.cli.calibrate", "Measure what operations on guest memory cost on this kernel."),
    "compare": ("gmemlab.cli.compare", "Compare policies on a host and a workload."),
    "conform": ("gmemlab.cli.conform", "Compare the model with the running kernel, operation by operation."),
    "explain": (
        "gmemlab.cli.explain",
        "Say what keeps a guest page from being mapped at 2M, and which event made it so.",
    ),
    "experiments": (
        "gmemlab.cli.experiments",
        "List the experiments, or run some: a published figure beside the model's, and a verdict.",
    ),
    "host": ("gmemlab.cli.host", "What this kernel offers, and how fragmented this machine's memory is."),
    "policies": (
        "gmemlab.cli.policies",
        "List the policies, their origin and status, and the choices they are made of.",
    ),
}

BROKEN_PIPE: Final = 141
CANNOT_WRITE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after the program's name; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run(build(words), words)


def run(application: typer.Typer, words: Sequence[str]) -> int:
    """Run what `build` returned for these words, and return the exit code."""
    try:
        _put_back()
        code: int | None = application(args=list(words) or ["--help"], prog_name="gmemlab", standalone_mode=False)
        sys.stdout.flush()
    except GmemlabError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        return _fail(f"{' '.join(error.format_message().split())} (see gmemlab --help)", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _fail(_system_error(error), UnsupportedError.exit_code)
    except SystemExit as stop:
        # The libraries turn a broken pipe into SystemExit(1), which would look like a finding.
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    return code or 0


def _put_back() -> None:
    """Put back settings of the machine that a killed gmemlab left changed, and say so."""
    from gmemlab.kernel.settings import recover

    for restored in recover():
        print(f"gmemlab: {restored}", file=sys.stderr)


def build(words: Sequence[str]) -> typer.Typer:
    """Return the application; only the modules of sub-commands that the words name are imported."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback(help="How should confidential VMs' memory be backed by huge pages? Answers with numbers.")(_options)
    for name, (module, text) in COMMANDS.items():
        command: Callable[..., object] = import_module(module).run if name in words else _not_called
        app.command(name, help=text)(command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gmemlab {gmemlab.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options that stand before the sub-command; each does its work in its own callback."""


def _not_called() -> None:
    """Stand in for a sub-command that the command line does not name."""


def _fail(message: str, code: int) -> int:
    print(f"gmemlab: {message}", file=sys.stderr)
    return code


def _reader_gone() -> int:
    _drop_output()
    return BROKEN_PIPE


def _system_error(error: OSError) -> str:
    """Say what failed; and if the output cannot be written, try no more."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    if error.errno not in CANNOT_WRITE:
        return reason
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    return f"the output cannot be written: {reason}"


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
