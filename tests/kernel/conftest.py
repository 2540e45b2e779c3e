"""What the tests of the live drivers share: a host, a machine, settings that are put back; skips that name what is missing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemlab.errors import UnsupportedError
from gmemlab.kernel import abi
from gmemlab.kernel.host import LiveHost
from gmemlab.kernel.kvm import Vm
from gmemlab.kernel.quiet import quiet
from gmemlab.kernel.settings import Settings

PATIENCE = 300.0  # seconds: other tests may hold the same settings


@pytest.fixture
def host() -> Iterator[LiveHost]:
    with LiveHost() as host:
        yield host


@pytest.fixture
def vm(host: LiveHost) -> Vm:
    """An ordinary machine whose guest_memfd files the host can map."""
    try:
        machine = host.machine(abi.VM_DEFAULT)
    except UnsupportedError as error:
        pytest.skip(str(error))
    if machine.capability("KVM_CAP_GUEST_MEMFD_FLAGS") & 3 != 3:
        pytest.skip("KVM_CAP_GUEST_MEMFD_FLAGS: MMAP and INIT_SHARED (6.18)")
    return machine


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """Settings, with the kernel's own helpers kept from changing what is counted."""
    if os.geteuid() != 0:
        pytest.skip("root")
    if not Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").exists():
        pytest.skip("transparent huge pages in shmem")
    with Settings(patience=PATIENCE) as guard:
        quiet(guard)
        yield guard
