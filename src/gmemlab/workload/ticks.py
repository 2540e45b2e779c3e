"""The time of the daemons in the event stream: how often khugepaged and kcompactd are told that time passed."""

from typing import Final

import numpy as np

from gmemlab.core.daemons.record import KCOMPACTD_INTERVAL
from gmemlab.core.layout import OP_KCOMPACTD, OP_KHUGEPAGED
from gmemlab.units import MILLISECOND
from gmemlab.workload.schema import Daemons
from gmemlab.workload.stream import NO_VM, Events, join, rows

MOST_TICKS: Final = 200_000  # of one daemon in one stream: a day of kcompactd's has 172,800


def ticks(settings: Daemons, duration: int) -> Events:
    """Return the ticks of both daemons, as often as each of them wakes; in long runs of several such times at once.

    Of several at once, each is done as if nothing happened between them.
    """
    intervals = ((OP_KHUGEPAGED, settings.scan_sleep), (OP_KCOMPACTD, KCOMPACTD_INTERVAL * MILLISECOND))
    return join([_ticks_of(op, interval, duration) for op, interval in intervals])


def _ticks_of(op: int, interval: int, duration: int) -> Events:
    step = interval * max(1, -(-duration // interval // MOST_TICKS))
    times = step * np.arange(1, duration // step + 1, dtype=np.int64)
    return rows(NO_VM, op, times, count=step // MILLISECOND) if len(times) else join([])
