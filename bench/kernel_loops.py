"""Compiled loops of single operations on the model, the counterpart of one system call each."""

from gmemlab.core.jit import entry
from gmemlab.core.operations.populate import allocate
from gmemlab.core.operations.punch import punch
from gmemlab.core.state import State


@entry
def allocate_each(state: State, file: int, end: int, count: int) -> int:
    """Allocate pages [0, end) of a file, `count` with each operation. Returns the errno of the first that fails."""
    for first in range(0, end, count):
        error, _ = allocate(state, file, first, count)
        if error:
            return error
    return 0


@entry
def punch_each(state: State, file: int, end: int, count: int, step: int) -> int:
    """Punch `count` pages at every multiple of `step` below `end`. Returns the errno of the first that fails."""
    for first in range(0, end, step):
        error, _ = punch(state, file, first, count)
        if error:
            return error
    return 0
