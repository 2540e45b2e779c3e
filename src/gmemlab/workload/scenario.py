"""Reads scenario files; whatever is wrong with one becomes a single line with its place and what is allowed."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gmemlab.errors import UsageError
from gmemlab.workload.schema import NOT_MODELLED, Guests, Scenario
from gmemlab.workload.toml_lines import nearest_line, toml_lines

_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_SOURCE_TREE: Final = Path(__file__).resolve().parents[3] / "scenarios"
_TYPES: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "an array",
    "model_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS: Final[Mapping[str, str]] = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def shipped() -> dict[str, Path]:
    """Return the scenarios that come with gmemlab, by name: from the installed package, or from the source tree."""
    packaged = Path(str(files("gmemlab"))) / "scenarios"
    found = {path.stem: path for place in (_SOURCE_TREE, packaged) for path in place.glob("*.toml")}
    return dict(sorted(found.items()))


def find(name_or_path: str | Path) -> Path:
    """Return the file of a scenario, given as a path or as the name of a shipped one (``boot``, ``day``).

    Raises:
        UsageError: there is neither, or the path cannot be followed.
    """
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise UsageError(f"cannot read the scenario: {error.strerror}", file=path) from error
    known = shipped()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    raise UsageError("no such scenario", value=str(name_or_path), allowed=f"{', '.join(known)}, or a TOML file")


def with_hardware(scenario: Scenario, hardware: str | None) -> Scenario:
    """Return the scenario with guests of other hardware; as it is for None. UsageError for hardware that does not exist."""
    if hardware is None:
        return scenario
    allowed = get_args(Guests.model_fields["hardware"].annotation)
    if hardware not in allowed:
        raise UsageError("no such guests", key="--guests", value=hardware, allowed=", ".join(allowed))
    guests = scenario.guests.model_copy(update={"hardware": hardware})
    return scenario.model_copy(update={"guests": guests})


def load(name_or_path: str | Path) -> Scenario:
    """Return the scenario that a file (or the name of a shipped one) describes.

    Raises:
        UsageError: not found, unreadable, not TOML, or not a scenario; with file, line, key, value and what is allowed.
    """
    path = find(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"cannot read the scenario: {reason}", file=path) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from error
    except RecursionError as error:
        raise UsageError("not valid TOML: nested too deeply", file=path) from error
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        raise _usage_error(path, text, _first(error.errors())) from error
    scenario.guests.read_from(str(path), nearest_line(toml_lines(text), ("guests",)))
    return scenario


def _first(details: list[ErrorDetails]) -> ErrorDetails:
    """Return the error to report: for a missing key rather the unknown one beside it, which may be meant for it."""
    first = details[0]
    if first["type"] != "missing":
        return first
    beside = (detail for detail in details if detail["type"] == "extra_forbidden" and detail["loc"][:-1] == first["loc"][:-1])
    return next(beside, first)


def _syntax_error(path: Path, text: str, message: str) -> UsageError:
    """Return the error of a text that is not TOML; the parser names the line at the end of its message."""
    match = _TOML_PLACE.search(message)
    last = text.count("\n") + 1
    line = int(match[1]) if match and match[1] else last
    return UsageError(f"not valid TOML: {_TOML_PLACE.sub('', message)}", file=path, line=line)


def _usage_error(path: Path, text: str, detail: ErrorDetails) -> UsageError:
    """Return the one line for what Pydantic found first."""
    place = detail["loc"]
    kind = detail["type"]
    key = ".".join(str(part) for part in place) or None
    line = nearest_line(toml_lines(text), place)
    if kind == "missing":
        return UsageError("required key is missing", file=path, line=line, key=key)
    if key and key in NOT_MODELLED:
        return UsageError(f"not modelled: {NOT_MODELLED[key]}", file=path, line=line, key=key)
    if kind == "extra_forbidden":
        return UsageError("unknown key", file=path, line=line, key=key, allowed=", ".join(_keys(place[:-1])))
    value: Any = None if isinstance(detail["input"], dict | BaseModel) else detail["input"]
    message, allowed = _refusal(detail)
    return UsageError(message, file=path, line=line, key=key, value=value, allowed=allowed)


def _refusal(detail: ErrorDetails) -> tuple[str, str | None]:
    """Return what is wrong with a value, and what would be right."""
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "scenario":
        return str(context["message"]), str(context["allowed"])
    if kind == "literal_error":
        return "not one of the choices", str(context["expected"]).replace("'", "").replace(" or ", ", ")
    if kind in _TYPES:
        return "wrong type", _TYPES[kind]
    for name, sign in _BOUNDS.items():
        if name in context:
            return "out of range", f"{sign} {context[name]:g}"
    return str(detail["msg"]), None


def _keys(place: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the table at a place of the schema."""
    model: type[BaseModel] = Scenario
    for part in place:
        inside = model.model_fields[str(part)].annotation
        candidates = (inside, *getattr(inside, "__args__", ()))
        model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    return sorted(model.model_fields)
