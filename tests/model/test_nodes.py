"""NUMA nodes as users of the model meet them: hosts, policies in words, mounts, snapshots, and the event stream."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gmemlab.core import layout
from gmemlab.errors import OutOfMemory, PoolExhausted, UnsupportedError, UsageError
from gmemlab.lab.simulate import simulate
from gmemlab.model.host import Host
from gmemlab.model.nodes import fallback_orders, parse_nodes, split_blocks
from gmemlab.policy import find
from gmemlab.snapshot import NodeSnapshot, Snapshot, capture
from gmemlab.workload.scenario import load
from gmemlab.workload.trace import generate
from hosts import TWO_NODES

MIB = 1 << 20
NPS4 = [[10 if a == b else 12 if a // 4 == b // 4 else 32 for b in range(8)] for a in range(8)]


def test_nodes_are_equal_and_begin_at_whole_gigabytes() -> None:
    assert split_blocks(4096, 2) == [(1, 2048), (2048, 4097)]
    assert split_blocks(64, 2) == [(1, 32), (32, 65)]
    host = Host("8G", nodes=2)
    assert [node.total for node in host.nodes()] == [4096 * MIB - 2 * MIB, 4096 * MIB + 2 * MIB]
    assert host.description == "8G, empty, 2 NUMA nodes"
    assert host.free_bytes == sum(node.free for node in host.nodes())
    host.audit()


def test_equally_near_nodes_are_asked_in_turn() -> None:
    """Four nodes, all 20 apart: each asks the next one first, as `Fallback order for Node 1: 1 2 3 0` in a boot log says."""
    table = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    assert fallback_orders(table, [True] * 4) == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    assert fallback_orders(table, [True, True, True, False])[0] == [0, 3, 1, 2]  # one without CPUs is asked first


def test_near_nodes_come_before_far_ones_whose_first_ones_take_turns() -> None:
    """Two sockets of four nodes (NPS4): the far socket is entered at another node each time."""
    orders = fallback_orders(NPS4, [True] * 8)
    assert orders[0] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert orders[1][:4] == [1, 2, 3, 0]
    assert [order[4] for order in orders[:4]] == [4, 5, 6, 7]


def test_three_lines_of_a_user() -> None:
    host = Host("1G", nodes=2)
    guest = host.guest_memfd("256M", "thp", nodes="bind:1")
    guest.allocate()
    assert guest.nodes() == [0, 256 * MIB]
    guest.set_nodes("interleave:0-1")
    guest.punch_hole(0, "64M")
    guest.allocate(0, "64M")
    assert guest.nodes() == [32 * MIB, 224 * MIB]
    with pytest.raises(OutOfMemory):
        host.memory("768M", "shmem-thp", nodes="bind:0").allocate()
    host.audit()


def test_cpus_belong_to_nodes() -> None:
    """Three CPUs on two nodes: 0 on the first, 1 and 2 on the second; memory is local to the one that works."""
    host = Host("1G", cpus=3, nodes=2)
    assert [(int(node.first_cpu), int(node.nr_cpus)) for node in host.state.nodes[:2]] == [(0, 1), (1, 2)]
    pcps = host.state.pcps[:: layout.MAX_CPUS]
    assert pcps[0].high_max > 1.9 * pcps[1].high_max
    guest = host.guest_memfd("4M", "4k", home=0)
    host.run_on(2)
    guest.allocate(0, "2M")
    host.run_on(0)
    guest.allocate()
    assert guest.nodes() == [2 * MIB, 2 * MIB]
    host.audit()


def test_pools_of_nodes() -> None:
    host = Host("1G", nodes=2)
    assert host.grow_pool("2M", 3, hvo=False) == 3
    host.set_pool("2M", 4, node=1)
    assert [node.pool // MIB for node in host.nodes()] == [4, 8]
    memory = host.memory("12M", "hugetlbfs", home=1)
    memory.access(0, "12M", by="host")
    assert [node.pool_idle for node in host.nodes()] == [0, 0]
    host.audit()


def test_page_structs_are_of_their_node() -> None:
    """HVO: a split on node 1 takes the 7 frames of its structs there."""
    host = Host("1G", nodes=2)
    host.grow_pool("2M", 1, node=1)
    before = [node.free for node in host.nodes()]
    guest = host.guest_memfd("2M", "hugetlb-2m", home=0)
    guest.allocate()
    guest.convert(0, "4K", to="shared")
    assert [was - node.free for was, node in zip(before, host.nodes(), strict=True)] == [0, 7 * 4096]
    host.audit()


def test_a_mount_of_hugetlbfs() -> None:
    host = Host("1G", nodes=2)
    host.set_pool("2M", 6)
    with host.mount_hugetlbfs("2M", size="6M", min_size="4M") as mount:
        memory = mount.memory("8M")
        memory.access(0, "6M", by="host")
        assert (mount.used, mount.kept) == (6 * MIB, 0)
        with pytest.raises(PoolExhausted):
            memory.access("6M", "2M", by="host")
        memory.close()
        assert (mount.used, mount.kept) == (0, 4 * MIB)
        host.audit()
    with pytest.raises(UsageError, match="this mount is closed"):
        mount.memory("2M")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Host("1G", nodes=0), "not a number of nodes.*1 to 32"),
        (lambda: Host("1G", nodes=True), "not a number of nodes"),
        (lambda: Host("1G", nodes=33), "not a number of nodes"),
        (lambda: Host("128M", nodes=3), "nodes smaller than 64M.*2 nodes of 128M"),
        (lambda: Host("1G", nodes=2, distances=[[10, 20]]), "not distances of nodes"),
        (lambda: Host("1G", nodes=2, distances=[[10, 20], [20, 20]]), r"not distances of nodes.*10 from a node to itself"),
        (lambda: Host("1G", nodes=2, distances=[[10, 255], [20, 10]]), "not distances of nodes.*11 to 254"),
        (lambda: Host("1G", nodes=2, distances=[[10, 20], ["far", 10]]), "not distances of nodes"),  # type: ignore[list-item]
        (lambda: Host("1G", nodes=2).guest_memfd("2M", home=2), "home.*no such node.*0 to 1"),
        (lambda: Host("1G").guest_memfd("2M", nodes="bind:1"), "no such node.*allowed: node 0"),
        (lambda: Host("1G", nodes=2).grow_pool("2M", 1, node=2), "no such node.*0 to 1"),
        (lambda: Host("1G", nodes=2).set_pool("2M", 1, node=-1), "no such node"),
        (lambda: Host("1G").mount_hugetlbfs("4M"), "no such pool"),
        (lambda: Host("1G").mount_hugetlbfs(size="2M", min_size="4M"), "more is kept than may be used.*2M"),
        (lambda: Host("1G").mount_hugetlbfs(size=-1), "not a size"),
    ],
)
def test_what_no_host_has(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    "text", ["", "bind", "bind:", "bind:0,", "bind:1-0", "bind:x", "local:0", "preferred:0-1", "mbind:0", None]
)
def test_words_that_are_no_policy(text: Any) -> None:
    with pytest.raises(UsageError, match=r"not a policy of nodes.*allowed: local, bind:NODES"):
        parse_nodes(text, 4)


def test_words_of_policies() -> None:
    assert parse_nodes("local", 1) == (layout.NODES_LOCAL, 0)
    assert parse_nodes("interleave:0-1,3", 4) == (layout.NODES_INTERLEAVE, 0b1011)
    assert parse_nodes("preferred:2", 4) == (layout.NODES_PREFERRED, 0b100)


def test_a_snapshot_keeps_its_nodes() -> None:
    """Two nodes, ZONE_MOVABLE on one of them; /sys tells no distances."""
    snapshot = capture(TWO_NODES)
    host = Host.from_snapshot(snapshot)
    assert host.nr_nodes == 2
    assert any("distances between nodes are unknown" in note for note in host.notes)
    of_zone = [int(zone.node) for zone in host.state.zones]
    asked = host.state.zonelists.reshape(-1, len(of_zone))
    for node in range(2):
        assert [of_zone[zone] for zone in asked[node]] == sorted(of_zone, key=lambda of: of != node)
    assert sum(node.free for node in host.nodes()) == host.free_bytes
    host.audit()


def test_distances_and_cpus_of_a_snapshot(tmp_path: Path) -> None:
    """Node 1 has no CPUs, as memory behind CXL: it is told so, and asked first by nobody but itself."""
    root = tmp_path / "host"
    shutil.copytree(TWO_NODES, root)
    for node, distances, cpus in ((0, "10 17", "0-3,8"), (1, "17 10", "")):
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "distance").write_text(distances + "\n")
        (folder / "cpulist").write_text(cpus + "\n")
    snapshot = capture(root)
    assert [(node.node, node.cpus, node.distances) for node in snapshot.topology] == [(0, 5, (10, 17)), (1, 0, (17, 10))]
    snapshot.save(tmp_path / "host.json")
    assert Snapshot.load(tmp_path / "host.json") == snapshot
    host = Host.from_snapshot(snapshot, cpus=4)
    assert not any("distances" in note for note in host.notes)
    assert [(int(node.first_cpu), int(node.nr_cpus)) for node in host.state.nodes[:2]] == [(0, 4), (4, 0)]
    host.audit()
    (folder / "distance").write_text("near\n")
    with pytest.raises(UnsupportedError, match=r"node1/distance:1.*a line of numbers"):
        capture(root)
    (folder / "distance").write_text("17 10\n")
    (folder / "cpulist").write_text("3-1\n")
    with pytest.raises(UnsupportedError, match=r"node1/cpulist:1.*a list like 0-3,8"):
        capture(root)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ((NodeSnapshot(0, 1, (10,)),), "topology.*a zone's node is missing.*allowed: 0"),
        ((NodeSnapshot(0, 1, (10, 20)), NodeSnapshot(0, 1, (20, 10))), "a node twice"),
        ((NodeSnapshot(0, 1, (10, 20)), NodeSnapshot(1, 1, (20,))), r"topology\[1\].distances.*wrong number"),
        ((NodeSnapshot(0, 1, (10, 20)), NodeSnapshot(1, 1, (255, 10))), "not a distance.*10 to 254"),
    ],
)
def test_impossible_topologies(topology: tuple[NodeSnapshot, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(capture(TWO_NODES), topology=topology).check()


def test_nodes_without_memory_are_left_out() -> None:
    """The machine's nodes 0 and 2 are the model's 0 and 1; node 1 has CPUs only."""
    snapshot = capture(TWO_NODES)
    zones = tuple(replace(zone, node=2 * zone.node) for zone in snapshot.zones)
    topology = tuple(NodeSnapshot(node, 1, row) for node, row in enumerate(((10, 12, 21), (12, 10, 21), (21, 21, 10))))
    host = Host.from_snapshot(replace(snapshot, zones=zones, topology=topology))
    assert host.nr_nodes == 2
    assert any("0 to 1 are the machine's 0, 2" in note for note in host.notes)
    host.audit()


@pytest.mark.parametrize(("nodes", "remote"), [("local", False), ("bind", False), ("interleave", True)])
def test_guests_of_a_scenario_have_homes(nodes: str, remote: bool) -> None:
    """Guests at home on one node after the other; interleaved memory is half on the other one."""
    scenario = load("demo")
    scenario = scenario.model_copy(update={"guests": scenario.guests.model_copy(update={"nodes": nodes})})
    host = Host("32G", nodes=2)
    run = simulate(host, generate(scenario, host.usable_bytes, 0), find("thp"))
    last = run.samples[-1]
    assert bool(last.remote > last.charged // 4) is remote
    assert {moment: len(found) for moment, found in run.nodes.items()} == {"start": 2, "filled": 2, "end": 2, "after": 2}
    assert any("guest k is at home on node k modulo 2" in note for note in run.notes)
    host.audit()
