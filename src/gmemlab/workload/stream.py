"""Event records in bulk."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gmemlab.core.layout import ACCEPT_2M, ACCEPT_4K, ACCEPT_LAUNCH, EVENT, PRIVATE, SHARED, TOUCH

Events = npt.NDArray[np.void]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# arg of OP_ACCESS: access kind + 4 * accept size
ARG_TOUCH = PRIVATE + 4 * TOUCH
ARG_LAUNCH = PRIVATE + 4 * ACCEPT_LAUNCH
ARG_ACCEPT_4K = PRIVATE + 4 * ACCEPT_4K
ARG_ACCEPT_2M = PRIVATE + 4 * ACCEPT_2M
ARG_SHARED = SHARED
# arg of OP_SAMPLE
SAMPLE_PERIODIC = 0
SAMPLE_READY = 1
NO_VM = -3  # vm of a periodic sample, and of a daemon's time: they belong to no guest


def rows(vm: int, op: int, time: Ints | int, first: Ints | int = 0, count: Ints | int = 0, arg: Ints | int = 0) -> Events:
    """Return events of one vm and one operation; times are ns, first and count are pages, arrays are paired up."""
    shape = np.broadcast_shapes(np.shape(time), np.shape(first), np.shape(count), np.shape(arg), (1,))
    events = np.zeros(shape, EVENT)
    events["time"] = time
    events["vm"] = vm
    events["op"] = op
    events["arg"] = arg
    events["first"] = first
    events["count"] = count
    return events


def join(parts: Sequence[Events]) -> Events:
    """Return the parts one after the other."""
    return np.concatenate([np.zeros(0, EVENT), *parts])


def weave(steps: Sequence[tuple[Events, Bools | bool]]) -> Events:
    """Return the steps of many like procedures, in order of time.

    Args:
        steps: for each step, one event per procedure, and which procedures take the step. Of events at the same time
            those of earlier procedures come first, and within a procedure those of earlier steps.
    """
    events = np.stack([step for step, _ in steps], axis=1)
    taken = np.empty(events.shape, np.bool_)
    for index, (_, mask) in enumerate(steps):
        taken[:, index] = mask
    return in_order(events[taken])


def in_order(events: Events) -> Events:
    """Return the events by time; events at the same time keep their order."""
    return events[np.argsort(events["time"], kind="stable")]
