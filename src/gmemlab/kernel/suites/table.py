"""The suites by name: what each shows, what it needs, its plan and its live world."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Any, Final, Protocol, cast

from gmemlab.errors import UsageError
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.steps import Step, World

_PACKAGE: Final = "gmemlab.kernel.suites"


class SuiteModule(Protocol):
    """What the module of a suite has."""

    def plan(self, random: Random, count: int) -> Iterator[Step]:
        """So many random steps."""

    def live(self, settings: Settings) -> tuple[World, dict[str, Any]]:
        """The running kernel's world, and what a judge must know of this kernel; UnsupportedError where it lacks something."""


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: on the command line.
        module: below `kernel.suites`, and of the model's world below `lab.conform`.
        rows: of the facts that it holds against the kernel.
        summary: one line for people.
        operations: how many by default.
        bytes: of memory that it uses at most.
        bytes_each: of memory for each operation, where fewer of them use less.
        measured: whether figures are compared at the end, instead of sightings after each step.
        quiet: whether the per-CPU page lists are kept short, so that free memory can be counted.
    """

    name: str
    module: str
    rows: str
    summary: str
    operations: int
    bytes: int
    bytes_each: int = 0
    measured: bool = False
    quiet: bool = True

    def needs(self, operations: int) -> int:
        """Bytes of memory for so many operations."""
        return min(self.bytes, self.bytes_each * operations) if self.bytes_each else self.bytes

    def load(self) -> SuiteModule:
        """Import the suite's module."""
        return cast(SuiteModule, import_module(f"{_PACKAGE}.{self.module}"))


_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
SUITES: Final[Mapping[str, Suite]] = {
    suite.name: suite
    for suite in (
        Suite("guest-memfd", "guest_memfd", "L1 to L11", "files of an ordinary VM, memslots, pins", 20000, 16 * _MIB),
        Suite("thp", "thp", "L12 to L15", "shmem with 2M folios: splits, pins, collapse", 1500, 64 * _MIB),
        Suite("anon", "anon", "L16, L17", "anonymous 2M folios: deferred splits, zeros", 1000, 64 * _MIB),
        Suite("hugetlb", "hugetlb", "L18, L19", "hugetlb files: reservations, pool sizes, surplus, pins", 3000, 64 * _MIB),
        Suite("hugetlb-1g", "hugetlb_1g", "L18 to L20", "1G pages: punches inside, demotion", 60, 2048 * _MIB),
        Suite(
            "order",
            "order",
            "L21",
            "freed pages are handed out again, the last one first",
            200,
            256 * _MIB,
            measured=True,
            quiet=False,
        ),
        Suite(
            "fragmentation",
            "fragmentation",
            "L22 to L24, K22",
            "what unmovable and movable pages leave behind",
            1 << 18,
            1024 * _GIB,
            bytes_each=8192,  # every other page of a file is punched
            measured=True,
        ),
        Suite(
            "mix",
            "mix",
            "L21 to L24",
            "free memory by order in a random mix of files",
            10_000,
            6 * _GIB,
            bytes_each=6 * _GIB // 10_000 + 1,
            measured=True,
        ),
        Suite(
            "daemons",
            "daemons",
            "L15, T1",
            "what khugepaged collapses and fills, when kcompactd works",
            12,
            2 * _GIB,
            measured=True,
        ),
        Suite(
            "attributes",
            "attributes",
            "G3, G4, L section 7",
            "private and shared from two sources",
            500,
            64 * _MIB,
        ),
    )
}


def find(name: str) -> Suite:
    """A suite by name. UsageError with the names that exist."""
    if name not in SUITES:
        raise UsageError("no such suite", key="suite", value=name, allowed=", ".join(SUITES))
    return SUITES[name]
