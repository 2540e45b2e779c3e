"""Where the process starts: Ctrl-C is quiet from here on, also while the rest is being imported."""

import os
import signal
import sys
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130


def main() -> int:
    """Run the command line and return its exit code; 130, without a traceback, when interrupted at any time."""
    try:
        signal.signal(signal.SIGINT, _leave)
        from gmemlab.cli.main import build, run

        application = build(sys.argv[1:])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(application, sys.argv[1:])
        signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave at once: an exception would be printed, or lost, inside of an import or at the interpreter's end."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
