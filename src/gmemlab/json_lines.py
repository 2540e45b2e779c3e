"""Where in a JSON text a key stands, for the messages about files that are JSON but say something impossible."""

import json
import re
from typing import Final

_PART: Final = re.compile(r"\[(\d+)\]|([^.\[]+)")
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def json_line(text: str, key: str) -> int:
    """Return the line (from 1) of a key such as ``zones[2].free.Movable``, or of the nearest one around it.

    Args:
        text: valid JSON.
        key: names with dots between, and indices of arrays in brackets.
    """
    place = _skip(text, 0)
    for match in _PART.finditer(key):
        inside = _find(text, place, int(match[1]) if match[1] else match[2])
        if inside is None:
            break
        place = inside
    return text.count("\n", 0, place) + 1


def _find(text: str, start: int, part: int | str) -> int | None:
    """Return where the value of one name or index begins, inside the object or array at ``start``."""
    closing = {"{": "}", "[": "]"}.get(text[start])
    if closing is None or (closing == "]") is not isinstance(part, int):
        return None
    decoder = json.JSONDecoder()
    place = _skip(text, start + 1)
    index = 0
    while text[place] != closing:
        name: object = index
        if closing == "}":
            name, place = decoder.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)
        if name == part:
            return place
        place = _skip(text, decoder.raw_decode(text, place)[1])
        if text[place] == ",":
            place = _skip(text, place + 1)
        index += 1
    return None


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
