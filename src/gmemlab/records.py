"""Plain data, as JSON has it, back into frozen dataclasses; whatever does not fit is named by its key."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from gmemlab.errors import UsageError
from gmemlab.units import LARGEST

_Record = TypeVar("_Record")
_SCALARS: Final[Mapping[type, str]] = {int: "a whole number, 0 to 2^63 - 1", str: "a string"}


def decode(kind: type[_Record], data: object, key: str = "") -> _Record:
    """Return the dataclass ``kind`` that ``data`` describes.

    Fields may be whole numbers (not negative), strings, dataclasses, ``X | None``, ``tuple[X, ...]`` and ``Mapping[str,
    X]``.

    Args:
        kind: the dataclass.
        data: what ``json.loads`` returned.
        key: the place of ``data`` in the whole, for messages.

    Raises:
        UsageError: a field is missing, unknown or of another type; without the file.
    """
    if not is_dataclass(kind):
        raise TypeError(f"{kind} is not a dataclass")
    table = _table(data, key)
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    for name in table:
        if name not in known:
            raise UsageError("unknown key", key=_join(key, name), allowed=", ".join(known))
    values: dict[str, object] = {}
    for name, item in known.items():
        if name in table:
            values[name] = _decode(hints[name], table[name], _join(key, name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise UsageError("missing", key=_join(key, name))
    return cast(_Record, kind(**values))


def _decode(hint: Any, data: object, key: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if data is None else _decode(inner, data, key)
    if origin is tuple:
        if not isinstance(data, list):
            raise UsageError("wrong type", key=key, value=data, allowed="a list")
        return tuple(_decode(arguments[0], item, f"{key}[{index}]") for index, item in enumerate(data))
    if origin is Mapping:
        return {name: _decode(arguments[1], item, _join(key, name)) for name, item in _table(data, key).items()}
    if hint in _SCALARS:
        good = type(data) is hint and (not isinstance(data, int) or 0 <= data <= LARGEST)
        if not good:
            raise UsageError("wrong type or value", key=key, value=data, allowed=_SCALARS[hint])
        return data
    return decode(hint, data, key)


def _table(data: object, key: str) -> dict[str, object]:
    if not isinstance(data, dict):
        raise UsageError("wrong type", key=key or None, value=data, allowed="an object with named fields")
    return data


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
