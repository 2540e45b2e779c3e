"""How the sub-commands write: tables to a terminal, or JSON."""

import json
import sys

from rich.console import Console


def console() -> Console:
    """Return a console for standard output that prints text as it is (no markup, no guessed colours)."""
    return Console(markup=False, highlight=False, emoji=False)


def print_json(data: object) -> None:
    """Write ``data`` to standard output as indented JSON with a line end. Keys keep their order."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
