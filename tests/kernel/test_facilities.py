"""What of the running kernel works is tried, and what does not says why."""

import os

import pytest

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import facilities as module
from gmemlab.kernel.facilities import facilities


def test_every_facility_has_an_answer_of_one_line() -> None:
    found = facilities()
    assert set(found) == set(module._ATTEMPTS)
    assert all("\n" not in reason for reason in found.values())


def test_reason_is_what_the_attempt_ran_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "thp_sizes", lambda: ())

    def no_trace(*arguments: object, **named: object) -> None:
        raise UnsupportedError("tracefs", "not here")

    monkeypatch.setattr(module, "Trace", no_trace)
    found = facilities()
    assert found["huge page counters"].startswith("/sys/kernel/mm/transparent_hugepage/hugepages-*/stats: ")
    assert found["traces (tracefs)"] == "tracefs: not here"


@pytest.mark.skipif(os.geteuid() != 0, reason="root")
def test_root_sees_folios_and_presence() -> None:
    found = facilities()
    assert found["folios (pagemap)"] == ""
    assert found["page presence (cachestat)"] == ""
