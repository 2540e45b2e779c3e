"""What must not happen, and happened: zeros written to private memory, memory touched before it was accepted, contents lost.

Told for every policy, whatever else there is to tell (T9, K1, K2).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from gmemlab.lab.compare import Row, Spread
from gmemlab.policy import Policy
from gmemlab.units import format_count, format_size

HOST_WRITE: Final = "host-write"
UNACCEPTED: Final = "unaccepted"
# What the machine makes of a write of the host to a private page, by the guests' hardware.
_WRITES: Final[Mapping[str, str]] = {
    "snp": "while the RMP gave them to the guest: each is an RMP fault in the host's kernel",
    "tdx": (
        "that were private, after they were taken out of the S-EPT and cleared (G78): the write finds no private page, unless a"
        " removal failed, which the model does not have"
    ),
    "generic": "that were private: an RMP fault in the host's kernel under SNP, nothing under TDX (choose --guests)",
    "sw-protected": "that were private: no hardware objects, the guest's contents are gone",
    "pkvm": "that were private: the hypervisor refuses the write",
}
_TOUCHES: Final[Mapping[str, str]] = {
    "snp": "#VC, at which a Linux guest ends",
    "tdx": "#VE or, where the guest switched that off, an exit that ends it",
}


class Hazard(NamedTuple):
    """One kind of harm under one policy.

    Attributes:
        policy: its name.
        kind: host-write, unaccepted, stale or lost.
        unit: of the amounts, count (4K pages) or bytes.
        amount: over the seeds.
        phases: the same by phase of the guests' lives, where that is known.
        led_by: by the operation that led to it, in 4K pages.
        cause: what made it of that operation.
        text: a sentence: how much, by which operation, and why.
        harmless: whether the hardware makes nothing of it.
    """

    policy: str
    kind: str
    unit: str
    amount: Spread
    phases: Mapping[str, Spread]
    led_by: Mapping[str, Spread]
    cause: str
    text: str
    harmless: bool


def hazards(rows: Sequence[Row], hardware: str) -> tuple[Hazard, ...]:
    """Return what went wrong, policy by policy.

    Args:
        rows: of a comparison.
        hardware: what the guests have.
    """
    found: list[Hazard] = []
    for row in rows:
        if (writes := _counted(row, HOST_WRITE)) is not None:
            cause, why = _why_zeroed(row.policy)
            text = f"{_pages(writes)} zeroed by the host's kernel {_WRITES[hardware]}. {why}"
            found.append(_hazard(row, HOST_WRITE, writes, cause, text, harmless=hardware == "tdx"))
        if (touches := _counted(row, UNACCEPTED)) is not None:
            text = f"{_pages(touches)} touched by guests that had not accepted them (unaccepted): {_TOUCHES[hardware]}."
            found.append(_hazard(row, UNACCEPTED, touches, "touched before it was accepted", text))
        found += _failed_splits(row)
    return tuple(found)


def _counted(row: Row, operation: str) -> Spread | None:
    """How often, in all phases; nothing where no seed has any."""
    phases = row.operations.get(operation, {}).values()
    amount = Spread(*(sum(getattr(phase, end) for phase in phases) for end in ("median", "least", "most")))
    return amount if amount.most else None


def _hazard(row: Row, kind: str, amount: Spread, cause: str, text: str, harmless: bool = False) -> Hazard:
    led_by, whole = row.hazards.get(kind, {}), f"{row.policy.name}: {text}{_led_by(row, kind)}"
    return Hazard(row.policy.name, kind, "count", amount, row.operations[kind], led_by, cause, whole, harmless)


def _led_by(row: Row, kind: str) -> str:
    """A sentence that says which operations led there."""
    parts = [f"{name} ({_pages(amount)})" for name, amount in row.hazards.get(kind, {}).items()]
    return f" Led to by: {', '.join(parts)}." if parts else ""


def _failed_splits(row: Row) -> list[Hazard]:
    """What K2 says of folios that a punch could not split."""
    found: list[Hazard] = []
    for kind, cause, text in (
        ("stale", "dirty", "punched, but kept its contents: the folio was held, and dirty (K2)."),
        (
            "lost",
            "clean",
            "of live guest memory dropped beside a punch: the folio was held, and clean (K2).",
        ),
    ):
        amount = row.figures[kind]
        if amount is not None and amount.most:
            found.append(
                Hazard(
                    row.policy.name,
                    kind,
                    "bytes",
                    amount,
                    {},
                    row.hazards.get(kind, {}),
                    f"split failed, folio {cause}",
                    f"{row.policy.name}: {_range(amount, format_size)} {text}{_led_by(row, kind)}",
                    False,
                )
            )
    return found


def _why_zeroed(policy: Policy) -> tuple[str, str]:
    if policy.punch == "zero":
        return "punch=zero", "A partial punch zeroes under this policy (punch=zero)."
    old = (
        "Truncation zeroes a part before it splits the folio (truncation=zeroes): the code that T9 speaks of, before"
        " guest_memfd's memory was marked inaccessible (c72ceafbd12c)."
    )
    return "truncation=zeroes", old


def _pages(amount: Spread) -> str:
    return f"{_range(amount, lambda value: format_count(round(value)))} 4K pages"


def _range(amount: Spread, write: Callable[[float], str]) -> str:
    if amount.least == amount.most:
        return write(amount.median)
    return f"{write(amount.median)} ({write(amount.least)} to {write(amount.most)})"
