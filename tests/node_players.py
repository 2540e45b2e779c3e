"""Hosts of two and of three NUMA nodes, for the core and the oracle side by side: policies, pools of each node, and mounts."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from gmemlab.core.layout import BLOCK_ORDER, NODES_SPREAD, ZONE_DMA32, ZONE_MOVABLE, ZONE_NORMAL
from gmemlab.policy import Policy
from players import BACKGROUND_PAGES, Players, Setting

# Node 1 is near node 2, node 0 far from both; node 2 has movable memory, too, and node 0 a zone DMA32.
THREE: Final = [[10, 21, 31], [21, 10, 15], [31, 15, 10]]
TWO: Final = [[10, 20], [20, 10]]


def setting_on(nodes: int, policy: Policy) -> Setting:
    """Sixteen blocks, short of memory soon."""
    sizes = (512, 1024, 1536) if policy.unit > 4096 else (512, 700, 1300)
    pool = (BLOCK_ORDER, 4 if policy.source == "pool" else 0)
    if nodes == 2:
        zones = [(1, 9, ZONE_NORMAL, 50), (9, 17, ZONE_NORMAL, 20)]
        return Setting(zones, {1}, 16, sizes, pool, [0, 1], TWO)
    zones = [(14, 17, ZONE_MOVABLE, 0), (4, 7, ZONE_NORMAL, 30), (7, 12, ZONE_NORMAL, 0), (12, 14, ZONE_NORMAL, 9)]
    zones.append((1, 4, ZONE_DMA32, 60))
    return Setting(zones, {1}, 16, sizes, pool, [2, 0, 1, 2, 0], THREE)


@dataclass
class NodePlayers(Players):
    """Players on a host of several nodes. `seen` counts what happened to allocations."""

    mounts: list[int] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    @classmethod
    def on(cls, nodes: int, policy: Policy) -> "NodePlayers":
        """On a host of so many nodes, half of it memory of its own that is spread over them."""
        players = cls(policy, where=setting_on(nodes, policy))
        for file in (1, 2):
            players.both("bind", file, NODES_SPREAD, 0, 0)
            players.both("allocate", file, 0, BACKGROUND_PAGES - 512 * file)
        return players

    def step(self, random: Random, operation: str) -> None:
        """One of the other players' operations, or one about nodes."""
        if self.guests and random.random() < 0.2:
            self.step_of_nodes(random)
        before = self.oracle.memory.buddy.nodes.missed_pages
        super().step(random, operation)
        self.seen["missed"] += self.oracle.memory.buddy.nodes.missed_pages > before

    def create(self, random: Random) -> None:
        """A guest with a policy, hugetlb memory sometimes of a mount."""
        before = self.core.created
        super().create(random)
        if self.core.created == before:
            return
        file = self.core.created
        self.bind(random, file)
        if self.policy.memory == "hugetlb" and self.mounts and random.random() < 0.7:
            self.both("join", random.choice(self.mounts), file)

    def bind(self, random: Random, file: int) -> int:
        """Another policy for a guest, counted."""
        mode = super().bind(random, file)
        self.seen[f"mode {mode}"] += 1
        return mode

    def step_of_nodes(self, random: Random) -> None:
        """mbind, memory of the host that goes, or pools and mounts."""
        nodes = len(self.setting.distances)
        choice = random.choice(("bind", "background", "pool"))
        if choice == "bind":
            self.bind(random, random.choice(sorted(self.guests)))
        elif choice == "background":
            self.both("punch", random.choice((1, 2)), *self.range(random, BACKGROUND_PAGES, 512))
        elif self.policy.memory != "hugetlb" or random.random() < 0.6:
            if self.policy.hvo == "on" and random.random() < 0.3:
                self.set_pool(100, 0, -1)
                for file in (1, 2):  # what is left: page structs are short from here on
                    self.both("allocate", file, 0, BACKGROUND_PAGES)
            self.set_pool(random.randrange(5), random.randrange(3), random.randrange(-1, nodes))
        else:
            self.step_of_mounts(random)

    def set_pool(self, count: int, overcommit: int, node: int) -> None:
        """A write to nr_hugepages, of all nodes or of one, and to nr_overcommit_hugepages."""
        self.note_pool(self.oracle.set_pool(BLOCK_ORDER, count, overcommit, node))
        assert self.core.set_pool(BLOCK_ORDER, count, overcommit, node) == 0
        self.log.append(f"set_pool({count}, {overcommit}, {node})")
        self.core.check()

    def note_pool(self, error: int) -> None:
        """Resized without an error."""
        assert error == 0
        pool = self.oracle.memory.pools[BLOCK_ORDER]
        self.seen["surplus"] += pool.surplus > 0
        self.seen["kept"] += pool.hvo and pool.surplus > pool.nr - len(pool.idle) + pool.reserved  # for want of page structs

    def step_of_mounts(self, random: Random) -> None:
        """A mount comes, or tries to go."""
        if self.mounts and random.random() < 0.5:
            mount = random.choice(self.mounts)
            if self.both("unmount", mount) == 0:
                self.mounts.remove(mount)
            return
        least = random.choice((-1, 0, 1, 2))
        most = random.choice((-1, max(least, 0), 2, 3))
        if not self.mounts and self.both("mount", BLOCK_ORDER, most, least) == 0:
            self.mounts = [1]

    def leave(self) -> None:
        """All guests leave, then the mounts."""
        super().leave()
        for mount in self.mounts:
            self.both("unmount", mount)
        self.compare()
