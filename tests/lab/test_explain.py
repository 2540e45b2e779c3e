"""Explanations of single guest pages: on traces made by hand, so that the event is known."""

from dataclasses import replace

import numpy as np
import pytest

from gmemlab.core.layout import (
    EVENT,
    HOST,
    MAX_SLOTS,
    OP_ACCESS,
    OP_ALLOCATE,
    OP_CREATE,
    OP_DESTROY,
    OP_KHUGEPAGED,
    OP_READY,
    OP_TO_PRIVATE,
    OP_TO_SHARED,
    TERM_ABSENT,
)
from gmemlab.errors import UsageError
from gmemlab.lab.explain import TERMS, Explanation, explain, gfn_of_page, operation_name
from gmemlab.model.host import Host
from gmemlab.presets import find
from gmemlab.workload.stream import ARG_ACCEPT_2M, ARG_ACCEPT_4K, ARG_SHARED, ARG_TOUCH, NO_VM
from gmemlab.workload.trace import Trace
from lab_world import make_trace

Event = tuple[int, int, int, int, int, int]
SECOND = 10**9


def trace_of(*events: tuple[int, int, int, int]) -> Trace:
    """One guest of 8 MiB at gfn 0x1000; events (op, arg, first, count), one a second, after its creation."""
    whole = [(0, 0, OP_CREATE, 0, 0, 0)]
    whole += [((number + 1) * SECOND, 0, *event) for number, event in enumerate(events)]
    return make_trace(whole, [2048], 1000 * SECOND)


def ask(trace: Trace, gfn: int, policy: str = "thp") -> Explanation:
    return explain(Host("256M"), trace, find(policy), 0, gfn)


def test_a_page_at_2m_has_no_limit() -> None:
    found = ask(trace_of((OP_ACCESS, ARG_ACCEPT_2M, 0, 2048)), 0x1005)
    assert found.term.name == "none"
    assert found.state == "private, in a folio of 2M, mapped at 2M"
    assert found.cause is not None
    assert (found.cause.time_ns, found.cause.event, found.cause.operation) == (SECOND, 1, "2M accept")
    assert (found.cause.pages, found.cause.first_gfn, found.cause.was) == (2048, 0x1000, "absent")
    assert found.broken is None


def test_a_conversion_of_a_neighbour_splits_the_folio() -> None:
    trace = trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048), (OP_READY, 0, 0, 0), (OP_TO_SHARED, 0, 3, 1))
    found = ask(trace, 0x1000 + 200)
    assert found.term.name == "folio"
    assert found.cause is not None
    assert found.cause == found.broken
    assert (found.cause.event, found.cause.operation, found.cause.first_gfn) == (3, "conversion to shared", 0x1003)
    assert found.state == "private, in a folio of 512K, mapped at 4K"
    assert "K6" in found.term.remedy


def test_a_shared_page_may_be_mapped_by_the_vmm() -> None:
    """G45: where the VMM touched it, not where the guest did."""
    trace = trace_of((OP_TO_SHARED, 0, 3, 2), (OP_ACCESS, ARG_SHARED, 3, 2), (OP_ACCESS, HOST, 3, 1))
    assert (
        ask(trace, 0x1003, "thp-inplace").state == "shared, at 4K (K9: the page's folio is smaller than 2M), mapped by the VMM"
    )
    assert ask(trace, 0x1004, "thp-inplace").state == "shared, at 4K (K9: the page's folio is smaller than 2M)"


def test_merging_heals_the_folio_but_not_the_mapping() -> None:
    trace = trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048), (OP_TO_SHARED, 0, 3, 1), (OP_TO_PRIVATE, 0, 3, 1), (OP_ACCESS, 0, 3, 1))
    found = ask(trace, 0x1004, "thp-strict-zero")
    assert found.term.name == "history"
    assert found.state == "private, in a folio of 2M, mapped at 4K"
    assert found.broken is not None
    assert found.broken.event == 2
    assert found.cause is not None
    assert (found.cause.event, found.cause.operation) == (3, "conversion to private")


def test_khugepaged_heals_the_folio_but_not_the_mapping() -> None:
    """K6; and it is told as what it did: 2M, at its time."""
    pages = ((OP_ACCESS, ARG_TOUCH, 0, 2048), (OP_TO_SHARED, 0, 515, 1), (OP_TO_PRIVATE, 0, 515, 1))
    trace = trace_of(*pages, (OP_ACCESS, ARG_TOUCH, 515, 1))
    tick = np.array([(0, NO_VM, OP_KHUGEPAGED, 0, 0, 10_000), (14 * SECOND, NO_VM, OP_KHUGEPAGED, 0, 0, 10_000)], EVENT)
    trace = replace(trace, events=np.concatenate([tick[:1], trace.events, tick[1:]]))
    found = ask(trace, 0x1000 + 600, "thp-migratable")
    assert found.term.name == "history"
    assert found.state == "private, in a folio of 2M, mapped at 4K"
    assert found.cause is not None
    assert (found.cause.operation, found.cause.was, found.cause.time_ns) == ("khugepaged", "folio", 14 * SECOND)
    assert (found.cause.pages, found.cause.first_gfn) == (512, 0x1200)
    assert found.broken is not None
    assert found.broken.operation == "conversion to shared"


def test_a_4k_accept() -> None:
    found = ask(trace_of((OP_ACCESS, ARG_ACCEPT_4K, 0, 1)), 0x1000)
    assert found.term.name in ("history", "inhibit")
    assert found.cause is not None
    assert found.cause.operation == "4K accept"


def test_shared_and_absent_pages() -> None:
    trace = trace_of((OP_TO_SHARED, 0, 0, 1), (OP_ACCESS, ARG_SHARED, 0, 1), (OP_ALLOCATE, 0, 512, 512))
    assert ask(trace, 0x1000, "thp-inplace").term.name == "shared"
    absent = ask(trace, 0x1001, "4k-inplace")
    assert (absent.term.name, absent.state, absent.cause) == ("absent", "not backed", None)
    backed = ask(trace, 0x1200)
    assert (backed.term.name, backed.state) == ("none", "private, in a folio of 2M, not mapped by the guest")


def test_a_slot_that_ends_inside_2m() -> None:
    trace = trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048))
    trace.guests["slot_count"][0] = (1000, *([0] * (MAX_SLOTS - 1)))
    found = ask(trace, 0x1000 + 700)
    assert found.term.name == "slot"
    assert "K10" in found.term.remedy
    assert gfn_of_page(trace, 0, 999) == 0x1000 + 999
    assert gfn_of_page(trace, 0, 1000) is None


def test_addresses_that_are_not_congruent() -> None:
    trace = trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048))
    trace.guests["slot_gfn"][:, 0] = 0x1001
    assert ask(trace, 0x1400).term.name == "congruence"


def test_a_long_history_is_counted() -> None:
    rounds = [(OP_TO_SHARED, 0, 5, 1), (OP_TO_PRIVATE, 0, 5, 1), (OP_ACCESS, ARG_ACCEPT_4K, 5, 1)] * 20
    found = ask(trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048), *rounds), 0x1005)
    changes = len(found.watch.changes)
    assert changes == 41
    assert len(found.first) + sum(repeat.count for repeat in found.repeats) + len(found.last) == changes
    kinds = {(repeat.operation, repeat.was, repeat.term) for repeat in found.repeats}
    assert kinds == {("conversion to shared", "folio", "absent"), ("4K accept", "absent", "folio")}
    assert found.last[-1] == found.cause
    assert found.broken is not None
    assert found.broken.event == 2


def test_a_short_history_is_told_in_full() -> None:
    rounds = [(OP_TO_SHARED, 0, 5, 1), (OP_TO_PRIVATE, 0, 5, 1), (OP_ACCESS, ARG_ACCEPT_4K, 5, 1)] * 4
    found = ask(trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048), *rounds), 0x1005)
    assert len(found.first) == len(found.watch.changes) == 9
    assert not found.repeats
    assert not found.last


def test_a_guest_that_leaves_is_explained_as_it_was_last() -> None:
    trace = trace_of((OP_ACCESS, ARG_TOUCH, 0, 2048), (OP_DESTROY, 0, 0, 0))
    assert ask(trace, 0x1000).state == "private, in a folio of 2M, mapped at 2M"


@pytest.mark.parametrize(("vm", "gfn", "message"), [(1, 0x1000, "no such guest"), (0, 0x1800, "no memory there")])
def test_refusals(vm: int, gfn: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explain(Host("256M"), trace_of(), find("thp"), vm, gfn)


def test_operations_have_names() -> None:
    assert operation_name(OP_ACCESS, ARG_SHARED) == "shared access"
    assert operation_name(OP_ACCESS, ARG_ACCEPT_2M) == "2M accept"
    assert operation_name(OP_ACCESS, ARG_TOUCH) == "access"
    assert len({term.name for term in TERMS.values()}) == len(TERMS)
    assert TERMS[TERM_ABSENT].name == "absent"
