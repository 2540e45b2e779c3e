"""What must not happen is told, whatever else there is."""

import pytest

from gmemlab.lab.compare import Row
from gmemlab.lab.hazards import Hazard, hazards
from gmemlab.presets import find
from lab_world import make_row, with_hazards, with_operations


def one(row: Row, hardware: str) -> Hazard:
    (found,) = hazards([make_row("4k"), row], hardware)
    return found


@pytest.mark.parametrize(
    ("hardware", "says", "harmless"),
    [
        ("snp", "while the RMP gave them to the guest: each is an RMP fault", False),
        ("tdx", "the write finds no private page, unless a removal failed", True),
        ("generic", "an RMP fault in the host's kernel under SNP, nothing under TDX", False),
        ("sw-protected", "no hardware objects", False),
        ("pkvm", "the hypervisor refuses", False),
    ],
)
def test_writes_of_the_host(hardware: str, says: str, harmless: bool) -> None:
    found = one(with_operations(make_row("thp"), {"host-write": (1, 2, 0)}), hardware)
    assert (found.policy, found.kind, found.amount.median, found.harmless) == ("thp", "host-write", 3, harmless)
    assert found.text.startswith("thp: 3 4K pages zeroed by the host's kernel ")
    assert says in found.text
    assert "truncation=zeroes" in found.text
    assert found.phases["running"].median == 2


def test_a_policy_that_zeroes_is_the_cause_itself() -> None:
    found = one(with_operations(make_row("thp-strict-zero"), {"host-write": (0, 2, 0)}), "snp")
    assert "(punch=zero)" in found.text
    assert find("thp-strict-zero").punch == "zero"


def test_memory_that_was_never_accepted() -> None:
    row = with_operations(make_row("thp"), {"unaccepted": (0, 9, 0)})
    assert "#VC" in one(row, "snp").text
    assert "#VE" in one(row, "tdx").text


def test_failed_splits_of_every_policy() -> None:
    rows = [make_row("thp", stale=(0.0, 0.0, 8192.0)), make_row("ladder", lost=4096.0, stale=4096.0), make_row("4k")]
    found = hazards(rows, "generic")
    assert [(hazard.policy, hazard.kind, hazard.unit) for hazard in found] == [
        ("thp", "stale", "bytes"), ("ladder", "stale", "bytes"), ("ladder", "lost", "bytes"),
    ]  # fmt: skip
    assert found[0].text == "thp: 0B (0B to 8K) punched, but kept its contents: the folio was held, and dirty (K2)."
    assert "4K of live guest memory dropped" in found[2].text


def test_what_led_there_is_told() -> None:
    """Operation and cause, of hazards of either kind."""
    row = with_operations(make_row("thp"), {"host-write": (3, 2, 0)})
    found = one(with_hazards(row, "host-write", {"conversion to shared": 3, "punch by the VMM": 2}), "snp")
    assert found.text.endswith("Led to by: conversion to shared (3 4K pages), punch by the VMM (2 4K pages).")
    assert (found.cause, found.led_by["punch by the VMM"].median) == ("truncation=zeroes", 2)
    found = one(with_hazards(make_row("thp", stale=8192.0), "stale", {"punch by the VMM": 2}), "snp")
    assert (found.cause, list(found.led_by)) == ("split failed, folio dirty", ["punch by the VMM"])
    assert found.text.endswith("(K2). Led to by: punch by the VMM (2 4K pages).")


def test_nothing_happened() -> None:
    assert hazards([with_operations(make_row("thp"), {"psmash": (1, 1, 1)})], "snp") == ()
