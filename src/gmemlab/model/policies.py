"""Policies as the core's records."""

from typing import Final

from gmemlab.core import layout
from gmemlab.core.state import MAX_POLICIES, State
from gmemlab.errors import UsageError
from gmemlab.policy import ALLOWED, Policy
from gmemlab.presets import shared_side

KINDS: Final = {
    "guest_memfd": layout.KIND_GUEST_MEMFD,
    "shmem": layout.KIND_SHMEM,
    "anon": layout.KIND_ANON,
    "hugetlb": layout.KIND_HUGETLB,
    "host": layout.KIND_HOST,
    "cache": layout.KIND_CACHE,
}
CODES: Final[dict[str, dict[str, int]]] = {
    "source": {"buddy": layout.SOURCE_BUDDY, "pool": layout.SOURCE_POOL},
    "effort": {
        "none": layout.EFFORT_NONE,
        "light": layout.EFFORT_LIGHT,
        "direct-once": layout.EFFORT_ONCE,
        "retry": layout.EFFORT_RETRY,
        "atomic": layout.EFFORT_ATOMIC,
    },
    "punch": {
        "split": layout.PUNCH_SPLIT,
        "zero": layout.PUNCH_ZERO,
        "refuse": layout.PUNCH_REFUSE,
        "no-op": layout.PUNCH_KEEP,
        "defer": layout.PUNCH_DEFER,
    },
    "conversion": {
        "none": layout.CONVERT_NONE,
        "two-sources": layout.CONVERT_TWO_SOURCES,
        "in-place": layout.CONVERT_IN_PLACE,
    },
    "split": {"4k": layout.SPLIT_UNIFORM, "pieces": layout.SPLIT_BUDDY, "2m-first": layout.SPLIT_2M_FIRST},
    "merge": {"never": layout.MERGE_NEVER, "eager": layout.MERGE_EAGER, "lazy": layout.MERGE_LAZY},
    "repair": {means: layout.REPAIR_COLLAPSE * ("collapse" in means) for means in ALLOWED["repair"]},
    "zero_scan": {"off": 0, "on": 1},
    "truncation": {"inaccessible": layout.TRUNCATION_INACCESSIBLE, "zeroes": layout.TRUNCATION_ZEROES},
    "accept_mark": {"one-way": layout.ACCEPT_MARK_ONE_WAY, "none": layout.ACCEPT_MARK_NONE},
    "vmm_punch": {
        "none": 0,
        "shared": layout.VMM_PUNCHES_SHARED,
        "private": layout.VMM_PUNCHES_PRIVATE,
        "both": layout.VMM_PUNCHES_SHARED | layout.VMM_PUNCHES_PRIVATE,
    },
}


class PolicyTable:
    """The policies that a state knows, each in one row of `state.policies`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._rows: dict[Policy, int] = {}

    def row(self, policy: Policy) -> int:
        """The row of a policy, written on first use (with the policy of its shared side, if it has one)."""
        if policy not in self._rows:
            beside = self.row(shared_side(policy)) if policy.conversion == "two-sources" else 0
            row = len(self._rows) + 1
            if row >= MAX_POLICIES:
                raise UsageError(f"a host knows at most {MAX_POLICIES - 1} policies at a time")
            self._rows[policy] = row
            self._write(row, policy, beside)
        return self._rows[policy]

    def copy_to(self, state: State) -> "PolicyTable":
        """The table of a copied state, which has the same rows."""
        table = PolicyTable(state)
        table._rows = dict(self._rows)
        return table

    def _write(self, row: int, policy: Policy, beside: int) -> None:
        record = self._state.policies[row]
        record.sizes = sum(1 << order for order in policy.orders)
        record.unit = policy.orders[-1]
        record.fallocate_sizes = sum(1 << order for order in policy.fallocate_orders)
        record.movable = policy.zone == "movable"
        record.shared_policy = beside
        for choice, codes in CODES.items():
            record[choice] = codes[getattr(policy, choice)]
