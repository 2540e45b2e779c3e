"""Pins as users have them: for long, and for one I/O."""

import pytest

from gmemlab.core import layout
from gmemlab.errors import OutOfMemory
from gmemlab.model.host import Host


def test_long_pin_leaves_cma() -> None:
    """FOLL_LONGTERM: of 150M some lie in CMA, as movable memory has it first; a long pin has them moved."""
    host = Host("256M", cma="64M")
    memory = host.memory("150M", "anon-thp")
    memory.allocate()
    memory.pin(0, "150M", long_term=False)
    before = in_cma(host)
    memory.unpin(0, "150M")
    memory.pin(0, "150M")
    assert (before > 0, in_cma(host)) == (True, 0)
    with host.memory("100M", "shmem-thp") as other, pytest.raises(OutOfMemory):
        other.pin(0, "60M")
    host.audit()


def in_cma(host: Host) -> int:
    """Blocks of CMA that are not free."""
    blocks = host.state.blocks
    return int(((blocks.migratetype == layout.CMA) & (blocks.kind != layout.FREE)).sum())
