"""The suite `attributes`: private and shared memory from two sources, and what is allocated twice (G3, G38, L section 7)."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

from gmemlab.kernel import abi
from gmemlab.kernel.guest_memfd import TwoSourceGuest
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step, attempt, runs_of

SIZE: Final = 8 << 20
HALF: Final = 1 << 20
THP: Final = "sys/kernel/mm/transparent_hugepage/enabled"
PRIVATE_SIDE: Final = 0  # numbers of the two files
SHARED_SIDE: Final = 1
OPERATIONS: Final = ("access", "to_shared", "to_private", "punch", "discard", "attribute")
WEIGHTS: Final = (30, 15, 15, 15, 10, 5)
ATTRIBUTES: Final = (1, 2, 4, 9, 16, 1 << 40)  # none of which exists
# The table of live-kernel.md, section 7, before the random steps.
DOUBLE_ALLOCATION: Final = (
    Step("access", 0, 0, 2 * HALF),
    Step("to_shared", 0, 0, HALF),
    Step("access", 0, 0, 2 * HALF),
    Step("punch", 0, 0, HALF),
    Step("discard", 0, 0, HALF),
    Step("to_private", 0, 0, HALF),
    Step("access", 0, 0, 2 * HALF),
)


def plan(random: Random, count: int) -> Iterator[Step]:
    """The known table, then random steps."""
    yield from DOUBLE_ALLOCATION
    for _ in range(count):
        op = random.choices(OPERATIONS, WEIGHTS)[0]
        first = random.randrange(SIZE // PAGE)
        pages = random.randint(1, min(random.choice((1, 8, 600)), SIZE // PAGE - first))
        offset, size = first * PAGE, pages * PAGE
        if op == "attribute":
            yield Step(op, 0, offset, size, random.choice(ATTRIBUTES))
        elif op.startswith("to_") and random.randrange(6) == 0:
            yield Step(
                op, 0, *random.choice(((offset, 0), (offset + 1, size), (offset, size + 7), ((1 << 64) - PAGE, 2 * PAGE)))
            )
        else:
            yield Step(op, 0, offset, size)


class LiveAttributes:
    """A guest of type SW_PROTECTED on the running kernel. Satisfies `steps.World`."""

    def __init__(self) -> None:
        self.host = LiveHost()
        self.guest: TwoSourceGuest = self.host.two_source_guest(SIZE)

    def apply(self, step: Step) -> tuple[int, int]:
        """Carry out a step."""
        return attempt(lambda: self._apply(step))

    def _apply(self, step: Step) -> int:
        guest = self.guest
        if step.op == "access":
            with guest.errors("pre-fault"):  # each page as its attribute says
                guest.vm.pre_fault(step.offset, step.size)
        elif step.op in ("to_shared", "to_private"):
            guest.convert(step.offset, step.size, step.op.removeprefix("to_"))
        elif step.op == "punch":
            guest.punch_hole(step.offset, step.size)
        elif step.op == "discard":
            guest.shared_side.punch_hole(step.offset, step.size)
        else:
            with guest.errors("attribute"):
                guest.vm.set_attributes(step.offset, step.size, step.arg)
        return step.size // PAGE

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """Pages of both sides."""
        private, shared = self.guest.present(), self.guest.shared_side.present()
        return {PRIVATE_SIDE: FileSeen(present=runs_of(private)), SHARED_SIDE: FileSeen(present=runs_of(shared))}, {}

    def close(self) -> None:
        """Close the guest."""
        self.host.close()


def live(settings: Settings) -> tuple[LiveAttributes, dict[str, Any]]:
    """A guest whose shared side may have huge pages."""
    settings.set(THP, "madvise")
    return LiveAttributes(), {"private": abi.ATTRIBUTE_PRIVATE}
