"""Cost profiles: what operations of the host take, each figure with its range, its unit and where it comes from.

A profile is a TOML file of named entries. `gmemlab calibrate` writes one; one of the machine that the facts were observed on is
shipped, and one for the page states of each hardware. No entry is a constant of some hardware: rules 1 to 4 of costs.md,
section 9, hold here.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final, Self

from gmemlab.errors import UsageError
from gmemlab.records import decode

FORMAT: Final = 1
DEFAULT: Final = "live-6.18"
# A ratio of the ends of a range; what varies more is of no use in a comparison.
USELESS_SPREAD: Final = 3.0
# Guests whose page states a shipped profile prices, and which it is.
SHIPPED_FOR: Final[Mapping[str, str]] = {"plain": "plain", "sw-protected": "plain", "snp": "snp", "tdx": "tdx"}
# Counted, but they take no time of their own, and why.
FREE: Final[Mapping[str, str]] = {
    "unaccepted": "the guest ends there; where it goes on, what that takes is not known",
    "host-write": "the host faults; what it does then is no operation",
}
UNITS: Final = ("ns per 4K page", "ns per 2M", "ns per call")
# The kind words of costs.md.
CONFIDENCES: Final[Mapping[str, str]] = {
    "published": "in the cited source",
    "abstract": "only an abstract or summary was read",
    "derived": "arithmetic on published or measured figures",
    "measured": "measured on the machine that the profile names",
    "assumption": "nobody measured it",
}
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LINE: Final = re.compile(r"\(at (?:line (\d+), column \d+|end of document)\)$")
_FORM: Final = "a file written by `gmemlab calibrate -o`"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one operation takes, in nanoseconds.

    Attributes:
        unit: one of `UNITS`.
        low: the 5% quantile, or a lower bound.
        value: the median, or the best single figure.
        high: the 95% quantile, or an upper bound.
        confidence: of the value, one of `CONFIDENCES`.
        source: row of the facts, or what measured it.
        count: repetitions; 0 where a source does not say.
    """

    unit: str
    low: int
    value: int
    high: int
    confidence: str
    source: str
    count: int = 0

    @property
    def spread(self) -> float:
        """High / low; infinite if low is 0."""
        return self.high / self.low if self.low else float("inf")

    @property
    def useless(self) -> bool:
        """Whether the range is too wide for comparisons."""
        return self.spread > USELESS_SPREAD


@dataclass(frozen=True, slots=True)
class Profile:
    """Costs on one machine.

    Attributes:
        name: what tables call it.
        kernel: release of Linux.
        cpu: model of the processor.
        date: when it was measured, in ISO 8601.
        costs: the entries by name: small letters, digits and hyphens.
        notes: what the reader must know, one sentence each.
        hardware: the guests whose page states it prices: plain, snp or tdx; empty for a profile of the host alone.
        format: of the file.
    """

    name: str
    kernel: str
    cpu: str
    date: str
    costs: Mapping[str, Cost]
    notes: tuple[str, ...] = ()
    hardware: str = ""
    format: int = field(default=FORMAT, kw_only=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile as TOML; the file is either complete or as it was before.

        Raises:
            UsageError: the file cannot be written.
        """
        target = Path(path)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            draft.write_text(_as_toml(self), encoding="utf-8")
            draft.replace(target)
        except OSError as error:
            raise UsageError(f"cannot be written: {error.strerror}", file=target) from error
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Self:
        """Read a profile: a file, or a shipped one by its name.

        Raises:
            UsageError: not found, unreadable, not TOML, or no profile; with file, line, key and what is allowed.
        """
        path = _find(name_or_path)
        try:
            text = path.read_text(encoding="utf-8")
            document = tomllib.loads(text)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", file=path, allowed=_FORM) from error
        except UnicodeDecodeError as error:
            raise UsageError("not UTF-8", file=path, allowed=_FORM) from error
        except tomllib.TOMLDecodeError as error:
            place = _LINE.search(str(error))
            line = int(place[1]) if place and place[1] else text.count("\n") + 1
            raise UsageError(f"not valid TOML: {_LINE.sub('', str(error)).strip()}", file=path, line=line) from error
        try:
            if document.get("format") != FORMAT:
                raise UsageError("unknown format", key="format", value=document.get("format"), allowed=str(FORMAT))
            profile = decode(cls, document)
            _check(profile)
            if path not in shipped().values():
                _check_units(profile)
        except UsageError as error:
            raise error.at(file=path, line=_line_of(text, error.key or "")) from error
        return profile


@dataclass(frozen=True)
class Costs:
    """Several profiles as one: an entry is that of the first profile that has it.

    Attributes:
        named: profiles that the user named, in this order.
        default: the shipped one for the guests' hardware; None for guests whose page states are not priced.
    """

    named: tuple[Profile, ...]
    default: Profile | None

    @classmethod
    def load(cls, names: Sequence[str], hardware: str) -> Self:
        """Read the profiles that are named, and the shipped one for the guests.

        Raises:
            UsageError: as `Profile.load`; or a profile for the page states of other guests.
        """
        wanted = SHIPPED_FOR.get(hardware, "")
        named = tuple(Profile.load(name) for name in names)
        for name, profile in zip(names, named, strict=True):
            if profile.hardware not in ("", wanted):
                raise UsageError(
                    f"prices page states of {profile.hardware} guests, and these are {hardware}",
                    key="--costs",
                    value=name,
                    allowed=f"a profile of the host, or --guests {profile.hardware}",
                )
        return cls(named, Profile.load(wanted) if wanted else None)

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """All of them, the most important first; each once."""
        last = () if self.default is None or self.default in self.named else (self.default,)
        return (*self.named, *last)

    @property
    def name(self) -> str:
        """What tables call them."""
        return ", ".join(profile.name for profile in self.profiles)

    def get(self, entry: str) -> Cost | None:
        """The cost of that name; None if no profile has it."""
        return next((profile.costs[entry] for profile in self.profiles if entry in profile.costs), None)

    def owner(self, entry: str) -> str | None:
        """The name of the profile that an entry is from."""
        return next((profile.name for profile in self.profiles if entry in profile.costs), None)


def shipped() -> dict[str, Path]:
    """Return the profiles that come with gmemlab, by name."""
    folder = Path(str(files("gmemlab"))) / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    path, known = Path(name_or_path), shipped()
    if not path.is_file() and str(name_or_path) in known:
        return known[str(name_or_path)]
    if not path.exists():
        raise UsageError("no such cost profile", value=str(name_or_path), allowed=f"{', '.join(known)}, or {_FORM}")
    return path


def _check(profile: Profile) -> None:
    """Refuse what the types alone do not. Raises UsageError without the file."""
    if profile.hardware not in ("", *SHIPPED_FOR.values()):
        allowed = ", ".join(sorted({*SHIPPED_FOR.values()}))
        raise UsageError("no such guests", key="hardware", value=profile.hardware, allowed=f"{allowed}, or none")
    for name, cost in profile.costs.items():
        key = f"costs.{name}"
        if not _NAME.fullmatch(name):
            raise UsageError("not a name", key=key, value=name, allowed="small letters and digits, with hyphens between")
        if cost.unit not in UNITS:
            raise UsageError("unknown unit", key=f"{key}.unit", value=cost.unit, allowed=", ".join(UNITS))
        if cost.confidence not in CONFIDENCES:
            words = ", ".join(CONFIDENCES)
            raise UsageError("unknown word", key=f"{key}.confidence", value=cost.confidence, allowed=words)
        if not cost.low <= cost.value <= cost.high:
            raise UsageError("out of order", key=f"{key}.value", value=cost.value, allowed=f"{cost.low} to {cost.high}")


def _check_units(profile: Profile) -> None:
    """Refuse an entry that is per something else than that of its name in the shipped profiles, with which it is counted."""
    documents = [tomllib.loads(path.read_text(encoding="utf-8")) for path in shipped().values()]
    counted = {name: cost["unit"] for document in documents for name, cost in document["costs"].items()}
    for name, cost in profile.costs.items():
        if cost.unit != (unit := counted.get(name, cost.unit)):
            raise UsageError("not what it is counted by", key=f"costs.{name}.unit", value=cost.unit, allowed=unit)


def _line_of(text: str, key: str) -> int:
    """Return the line of a key, or of the nearest table around it that the text has."""
    from gmemlab.workload.toml_lines import nearest_line, toml_lines

    indexed = re.fullmatch(r"(.*)\[(\d+)\]", key)
    path = (*indexed[1].split("."), int(indexed[2])) if indexed else tuple(key.split("."))
    return nearest_line(toml_lines(text), path)


def _as_toml(profile: Profile) -> str:
    head: dict[str, str | int] = {
        "format": profile.format,
        "name": profile.name,
        "kernel": profile.kernel,
        "cpu": profile.cpu,
        "date": profile.date,
    }
    if profile.hardware:
        head["hardware"] = profile.hardware
    lines = [f"{key} = {_value(value)}" for key, value in head.items()]
    lines.append(f"notes = [{', '.join(_value(note) for note in profile.notes)}]")
    for name, cost in profile.costs.items():
        remark = f"  # spread {cost.spread:.1f}: of no use in a comparison" if cost.useless else ""
        lines += ["", f"[costs.{name}]{remark}"]
        lines += [f"{key} = {_value(getattr(cost, key))}" for key in Cost.__slots__]
    return "\n".join(lines) + "\n"


def _value(value: str | int) -> str:
    """Write a value: JSON's strings are TOML's, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
