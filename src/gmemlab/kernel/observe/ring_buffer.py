"""The pages of the kernel's trace ring buffer, decoded: what ``trace_pipe_raw`` yields.

The layout is that of include/linux/ring_buffer.h (``struct ring_buffer_event``) and of a 64-bit kernel's
``events/header_page``: 8 bytes of time, 8 bytes of length and flags, then events, each with a time relative to the one before.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_PAGE_HEADER: Final = struct.Struct("<QQ")
_EVENT_HEADER: Final = struct.Struct("<I")
_LENGTH: Final = (1 << 27) - 1  # of the second word of a page; the bits above say that events before it are missing
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31  # enum ring_buffer_type
_TIME_SHIFT: Final = 27
_FIELD: Final = re.compile(r"\tfield:(.+?) ?(\w+)(\[\w*\])?;\toffset:(\d+);\tsize:(\d+);\tsigned:(\d);")
_INTEGERS: Final[Mapping[int, str]] = {1: "b", 2: "h", 4: "i", 8: "q"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How an event of one kind is laid out.

    Attributes:
        names: its fields that are integers, without the ``common_`` ones but for ``common_pid``.
        form: the struct that unpacks them.
    """

    names: tuple[str, ...]
    form: struct.Struct

    def decode(self, data: bytes) -> dict[str, int]:
        """Return the fields of an event.

        Args:
            data: the event, from its ``common_type`` on.
        """
        return dict(zip(self.names, self.form.unpack_from(data), strict=True))


def parse_format(text: str) -> Layout:
    """Return the layout that an event's ``format`` file describes; arrays and strings are left out."""
    names = []
    form = "<"
    end = 0
    for kind, name, brackets, offset, size, signed in _FIELD.findall(text):
        start, width = int(offset), int(size)
        if brackets or width not in _INTEGERS or kind.startswith("__data_loc") or start < end:
            continue
        if name.startswith("common_") and name != "common_pid":
            continue
        code = _INTEGERS[width]
        form += f"{start - end}x" + (code if signed == "1" else code.upper())
        end = start + width
        names.append(name)
    return Layout(tuple(names), struct.Struct(form))


def page_events(page: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the time (of the trace clock, in nanoseconds) and the data of each event of one page.

    Args:
        page: as read in one go from ``trace_pipe_raw``.
    """
    time, word = _PAGE_HEADER.unpack_from(page)
    position = _PAGE_HEADER.size
    end = position + (word & _LENGTH)
    while position < end:
        (header,) = _EVENT_HEADER.unpack_from(page, position)
        kind, delta = header & 31, header >> 5
        body = position + 4
        if kind == _PADDING and delta == 0:
            return
        extra = _EVENT_HEADER.unpack_from(page, body)[0] if kind in (0, _PADDING, _TIME_EXTEND, _TIME_STAMP) else 0
        if kind == _TIME_STAMP:
            # The stamp has 59 bits; the ones above are those of the time so far (since 5.18).
            time = time >> 59 << 59 | delta | extra << _TIME_SHIFT
            position = body + 4
        elif kind == _TIME_EXTEND:
            time += delta | extra << _TIME_SHIFT
            position = body + 4
        elif kind == _PADDING:
            time += delta
            position = body + extra
        else:
            time += delta
            position = body + (extra if kind == 0 else kind * 4)
            yield time, page[body + 4 if kind == 0 else body : position]


def lost_events(stats: Sequence[str]) -> int:
    """Return how many events did not fit, as the lines of ``per_cpu/cpuN/stats`` count them."""
    names = ("overrun", "commit overrun", "dropped events")
    return sum(int(value) for name, _, value in (line.partition(":") for line in stats) if name in names)
