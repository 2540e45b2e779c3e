"""Recordings: what a suite saw on a kernel, as lines of JSON, to be judged elsewhere.

The first line says which suite, seed and kernel; each further one is a step with what came of it; the last one says how many
there are, so that a file that ends too early is noticed.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from gmemlab.errors import GmemlabError, UnsupportedError, UsageError
from gmemlab.kernel.budget import Budget
from gmemlab.kernel.features import read_release
from gmemlab.kernel.quiet import quiet
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.steps import Seen, Step, decode, drive, encode
from gmemlab.kernel.suites.table import Suite, find

FORMAT: Final = 1


@dataclass(frozen=True)
class Recording:
    """The recording of one suite in a file.

    Attributes:
        path: the file.
        suite: which suite.
        seed: of its plan.
        operations: how many it was to have.
        release: of the kernel.
        facts: what a judge must know of that kernel.
        skipped: why the suite could not run there; "" if it ran.
    """

    path: Path
    suite: Suite
    seed: int
    operations: int
    release: str
    facts: dict[str, Any]
    skipped: str

    def steps(self) -> Iterator[tuple[Step, Seen]]:
        """The steps, read while they are used.

        Raises:
            UsageError: a line is no step, or the file ends too early; with file and line.
        """
        number = 0
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for line, text in enumerate(file, start=2):
                data = _parsed(self.path, line, text)
                if isinstance(data, dict):
                    if data.get("steps") != number:
                        raise UsageError("steps are missing", file=self.path, line=line, value=data, allowed=f"{number} steps")
                    return
                try:
                    yield decode(data)
                except UsageError as error:
                    raise error.at(file=self.path, line=line) from None
                number += 1
        raise UsageError("ends too early: the last line says how many steps there are", file=self.path, line=number + 1)


def record_suite(path: Path, suite: Suite, operations: int, seed: int, budget: Budget, patience: float = 0.0) -> int:
    """Drive the running kernel and write what it showed; the file appears when it is complete.

    Args:
        path: the file.
        suite: which suite.
        operations: how many random ones.
        seed: where they are drawn from.
        budget: of memory.
        patience: seconds to wait for another process that has changed the same settings.

    Returns:
        The number of steps; 0 if this kernel lacks what the suite needs, which the recording then says.

    Raises:
        UsageError: the file cannot be written.
        GmemlabError: settings of the machine could not be put back.
    """
    head = {
        "format": FORMAT, "suite": suite.name, "seed": seed, "operations": operations, "release": read_release(),
        "facts": {}, "skipped": "",
    }  # fmt: skip
    try:
        budget.check(suite.needs(operations), f"suite {suite.name}")
        with Settings(patience=patience) as settings:
            if suite.quiet:
                quiet(settings)
            world, head["facts"] = suite.load().live(settings)
            try:
                return _write(path, head, drive(world, suite.load().plan(Random(f"{suite.name} {seed}"), operations)))
            finally:
                world.close()
    except UnsupportedError as error:
        return _write(path, {**head, "skipped": str(error)}, ())


def _write(path: Path, head: dict[str, Any], steps: Iterable[tuple[Step, Seen]]) -> int:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head) + "\n")
            for step, seen in steps:
                file.write(json.dumps(encode(step, seen), separators=(",", ":")) + "\n")
                count += 1
            file.write(json.dumps({"steps": count}) + "\n")
        draft.replace(path)
    except OSError as error:
        if isinstance(error, GmemlabError):
            raise
        raise UsageError(f"cannot be written: {error.strerror}", file=path) from error
    finally:
        draft.unlink(missing_ok=True)
    return count


def read(path: Path) -> Recording:
    """Read the head of a recording.

    Args:
        path: the file.

    Raises:
        UsageError: it is none, or of another version; with the place.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.readline()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", file=path) from error
    data = _parsed(path, 1, text)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UsageError("not a recording of `gmemlab conform --record`", file=path, line=1, allowed=f"format {FORMAT}")
    try:
        numbers = int(data["seed"]), int(data["operations"])
        return Recording(path, find(data["suite"]), *numbers, str(data["release"]), dict(data["facts"]), str(data["skipped"]))
    except UsageError as error:
        raise error.at(file=path, line=1) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"incomplete: {error}", file=path, line=1) from error


def _parsed(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}", file=path, line=line, value=text) from error
