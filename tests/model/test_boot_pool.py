"""Pools that boot fills, before anything else is in memory: known answers on hosts that are fragmented, or have nodes."""

import pytest

from gmemlab.capture import capture
from gmemlab.core.layout import MAX_NODES
from gmemlab.errors import UsageError
from gmemlab.model.boot_pool import BootPool
from gmemlab.model.host import Host
from hosts import LAZY

MIB = 1 << 20


def test_giga_pages_are_there_at_boot_and_not_at_run_time() -> None:
    """K21: fragmented to 0.4, the host has no run of 512 blocks left; at boot it has seven."""
    assert Host("8G", fragmentation=0.4).grow_pool("1G", 4) == 0
    host = Host("8G", fragmentation=0.4, boot_pages={"2M": 100, "1G": 4})
    assert list(host.state.pools.nr) == [100, 4]
    assert host.description == "8G, fragmented to 0.4, huge pages from boot on: 4 of 1G and 100 of 2M"
    assert 1 - host.free_2m * 2 * MIB / host.free_bytes == pytest.approx(0.4, abs=0.01)
    host.audit()


def test_hvo_at_boot_leaves_the_memory_that_it_would_free() -> None:
    """C25: 4095 frames for each page of 1G, 7 for each of 2M."""
    with_structs = Host("4G", boot_pages={"1G": 2, "2M": 10}, boot_hvo=False)
    host = Host("4G", boot_pages={"1G": 2, "2M": 10})
    assert host.free_bytes - with_structs.free_bytes == (2 * 4095 + 10 * 7) * 4096
    assert host.state.pools.hvo.tolist() == [1, 1]
    host.set_pool("1G", 1)
    host.audit()


def test_more_than_there_is_is_among_the_notes() -> None:
    host = Host("2G", boot_pages={"1G": 2})
    assert host.notes == ("of 2 pages of 1G that boot was to take there were 1",)


def test_boot_takes_pages_of_single_nodes() -> None:
    """hugepages=0:1,1:2."""
    host = Host("8G", nodes=2, boot_pages={"1G": {0: 1, 1: 2}, "2M": 4})
    assert host.state.node_pools.nr[MAX_NODES : MAX_NODES + 2].tolist() == [1, 2]
    assert host.state.node_pools.nr[:2].tolist() == [2, 2]
    host.audit()


def test_host_is_booted_anew_with_a_pool() -> None:
    """As it was made; not as it is by now, nor as one that was booted anew."""
    host = Host("4G", fragmentation=0.3, seed=5, cpus=2)
    host.memory("1G", "anon-thp").allocate()
    again = host.copy().rebooted({"1G": 1}, boot_hvo=False)
    assert again.rebooted({}).free_bytes == Host("4G", fragmentation=0.3, seed=5, cpus=2).free_bytes
    assert again.description == "4G, fragmented to 0.3, huge pages from boot on: 1 of 1G, 2 CPUs with lists"
    assert again.state.pools.nr.tolist() == [0, 1]


def test_machine_that_runs_takes_no_pool_at_boot() -> None:
    snapshot = capture(LAZY)
    with pytest.raises(UsageError, match=r"^host: no pool can be taken at the boot of a machine that runs") as caught:
        Host.from_snapshot(snapshot).copy().rebooted({"1G": 1})
    assert "pool_at=run" in str(caught.value)


@pytest.mark.parametrize(
    ("pages", "words"),
    [({"4M": 1}, "^page: no such pool"), ({"2M": -1}, "^page: no such pool"), ({"1G": {1: 1}}, "no such node")],
)
def test_wrong_pools_are_named(pages: BootPool, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Host("1G", boot_pages=pages)
