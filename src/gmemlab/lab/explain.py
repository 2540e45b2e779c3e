"""Why a guest page is mapped as it is: the term of K8 that limits it, the event that made it so, what would lift it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from gmemlab.core import layout
from gmemlab.lab.watch import Change, Watch, watch
from gmemlab.model.host import Host
from gmemlab.policy import Policy
from gmemlab.units import format_size
from gmemlab.workload.trace import Trace

FIRST_SHOWN: Final = 6
LAST_SHOWN: Final = 2


class Term(NamedTuple):
    """A term of K8: its stable name, what it means for the page, and what would lift it."""

    name: str
    meaning: str
    remedy: str


TERMS: Final[dict[int, Term]] = {
    layout.TERM_NONE: Term("none", "nothing stands in the way of a 2M mapping", "nothing has to be lifted"),
    layout.TERM_ABSENT: Term(
        "absent", "the page has no backing", "an access by the guest: it backs the page and maps it (G39)"
    ),
    layout.TERM_FOLIO: Term(
        "folio",
        "the page's folio is smaller than 2M",
        "a 2M folio: a policy that tries 2M pages, a free 2M page of the host at the first touch, and no split since;"
        " a merge mends the folio, but not yet the mapping (K6, K8)",
    ),
    layout.TERM_SLOT: Term(
        "slot",
        "the aligned 2M range around the page leaves its memslot",
        "a memslot that contains the whole 2M range: a memory layout without a hole there (K8, K10)",
    ),
    layout.TERM_CONGRUENCE: Term(
        "congruence",
        "guest address and file offset differ modulo 2M",
        "a memslot whose guest address and file offset are congruent modulo 2M (K8, K10)",
    ),
    layout.TERM_ATTRIBUTES: Term(
        "attributes",
        "the 2M range around the page has shared pages too",
        "the conversion of the other pages back to private, or shared pages that lie side by side elsewhere (K8); then"
        " the whole 2M has to leave the guest and come back at once (K6)",
    ),
    layout.TERM_HISTORY: Term(
        "history",
        "the 2M range was mapped at 4K and has not left the guest as a whole since",
        "the whole 2M leaving the guest and coming back at once: one punch or conversion of all of it, then an access;"
        " merging its folio does not help (K6)",
    ),
    layout.TERM_ACCEPT: Term(
        "accept", "the guest accepts the page in units of 4K", "acceptance in units of 2M from the first time on (K8)"
    ),
    layout.TERM_INHIBIT: Term(
        "inhibit",
        "a 4K accept forbade 2M here for good",
        "in a TD nothing as long as it lives (G79); else the mark goes when the whole 2M leaves the file (K8); accept in units"
        " of 2M",
    ),
    layout.TERM_SHARED: Term(
        "shared",
        "the page is shared: its mapping follows that of the host",
        "the conversion of the page back to private; the level of shared memory is that of the host's mapping (K9)",
    ),
}
_OPERATIONS: Final[dict[int, str]] = {
    layout.OP_CREATE: "creation of the guest",
    layout.OP_READY: "guest ready",
    layout.OP_ALLOCATE: "allocation",
    layout.OP_PUNCH: "punch",
    layout.OP_TO_SHARED: "conversion to shared",
    layout.OP_TO_PRIVATE: "conversion to private",
    layout.OP_PIN: "pin",
    layout.OP_UNPIN: "unpin",
    layout.OP_REFERENCE: "transient reference",
    layout.OP_UNREFERENCE: "end of a transient reference",
    layout.OP_KHUGEPAGED: "khugepaged",
}
_ACCESSES: Final[dict[int, str]] = {
    layout.PRIVATE: "access",
    layout.SHARED: "shared access",
    layout.HOST: "access by the host",
}
_ACCEPTS: Final[dict[int, str]] = {layout.ACCEPT_4K: "4K accept", layout.ACCEPT_2M: "2M accept"}


@dataclass(frozen=True)
class Step:
    """One change, in words.

    Attributes:
        time_ns: when.
        event: number of the event in the stream.
        operation: what the event was.
        pages: of how many pages.
        first_gfn: the first of them, as the guest counts; None for a page in no memslot.
        was: name of the limiting term before.
        term: name of the limiting term afterwards.
        mapped_2m: whether the 2M range is mapped with one entry afterwards.
    """

    time_ns: int
    event: int
    operation: str
    pages: int
    first_gfn: int | None
    was: str
    term: str
    mapped_2m: bool


@dataclass(frozen=True)
class Repeat:
    """Changes in the middle of a history that are alike: how many there were."""

    count: int
    operation: str
    was: str
    term: str


@dataclass(frozen=True)
class Explanation:
    """What is known about one guest page at the end of the scenario, or of its guest.

    Attributes:
        guest: name of the guest.
        gfn: guest frame number.
        watch: the page's state, and all changes.
        term: what limits its mapping.
        cause: the change that made it so; None if it was so from the start.
        broken: the change by which the 2M mapping was lost for the last time, if it ever was.
        first: the first changes.
        repeats: the changes in the middle, by kind, the most frequent first.
        last: the last changes.
    """

    guest: str
    gfn: int
    watch: Watch
    term: Term
    cause: Step | None
    broken: Step | None
    first: tuple[Step, ...]
    repeats: tuple[Repeat, ...]
    last: tuple[Step, ...]

    @property
    def _level_of_shared(self) -> str:
        """How large the mapping of a shared page may be: by the memory that serves it, as the VMM maps it (K9)."""
        term = self.watch.shared_term
        if term == layout.TERM_ABSENT:
            return "with nothing behind it"
        return "at up to 2M (K9)" if term == layout.TERM_NONE else f"at 4K (K9: {TERMS[term].meaning})"

    @property
    def state(self) -> str:
        """How the page is backed and mapped, in words."""
        if self.watch.shared:
            return f"shared, {self._level_of_shared}" + (", mapped by the VMM" if self.watch.host_mapped else "")
        if not self.watch.present:
            return "not backed"
        backing = f"in a folio of {format_size(layout.PAGE_SIZE << self.watch.folio_order)}"
        if not self.watch.mapped:
            return f"private, {backing}, not mapped by the guest"
        huge = bool(self.watch.changes) and self.watch.changes[-1].mapped_2m
        return f"private, {backing}, mapped at {'2M' if huge else '4K'}"


def explain(
    host: Host,
    trace: Trace,
    policy: Policy,
    vm: int,
    gfn: int,
    progress: Callable[[float], None] | None = None,
) -> Explanation:
    """Run a trace under a policy and explain one guest page. The host is used up.

    Args:
        host: a fresh host.
        trace: the events.
        policy: how guests' memory is backed.
        vm: which guest, from 0.
        gfn: guest frame number.
        progress: called with the share of events done.

    Raises:
        UsageError: there is no such guest, or it has no memory there.
    """
    seen = watch(host, trace, policy, vm, gfn, progress)
    steps = [_step(trace, vm, change) for change in seen.changes]
    term = TERMS[seen.final_term]
    made = [step for step in steps if step.term == term.name and step.was != step.term]
    lost = [after for before, after in pairwise(steps) if before.mapped_2m and not after.mapped_2m]
    first, middle, last = _parts(steps)
    counts = Counter((step.operation, step.was, step.term) for step in middle)
    return Explanation(
        guest=trace.names[vm],
        gfn=gfn,
        watch=seen,
        term=term,
        cause=made[-1] if made else None,
        broken=lost[-1] if lost else None,
        first=tuple(first),
        repeats=tuple(Repeat(count, *kind) for kind, count in counts.most_common()),
        last=tuple(last),
    )


def gfn_of_page(trace: Trace, vm: int, page: int) -> int | None:
    """Return the guest frame number of a page of a guest's file; None for a page in no memslot."""
    guest = trace.guests[vm]
    for gfn, count, offset in zip(guest["slot_gfn"], guest["slot_count"], guest["slot_offset"], strict=True):
        if offset <= page < offset + count:
            return int(gfn + page - offset)
    return None


def operation_name(op: int, arg: int) -> str:
    """Return what an event did, in words; of an access (arg = kind + 4 * accept size) also how."""
    if op != layout.OP_ACCESS:
        return _OPERATIONS[op]
    kind, accept = arg % 4, arg // 4
    return _ACCEPTS[accept] if kind == layout.PRIVATE and accept in _ACCEPTS else _ACCESSES[kind]


def _step(trace: Trace, vm: int, change: Change) -> Step:
    return Step(
        time_ns=change.time_ns,
        event=change.event,
        operation=operation_name(change.op, change.arg),
        pages=change.count,
        first_gfn=gfn_of_page(trace, vm, change.first),
        was=TERMS[change.was].name,
        term=TERMS[change.term].name,
        mapped_2m=change.mapped_2m,
    )


def _parts(steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step], Sequence[Step]]:
    """Split a long history into its first changes, a middle to be counted, and its last changes."""
    if len(steps) <= FIRST_SHOWN + LAST_SHOWN + 1:
        return steps, (), ()
    return steps[:FIRST_SHOWN], steps[FIRST_SHOWN:-LAST_SHOWN], steps[-LAST_SHOWN:]
