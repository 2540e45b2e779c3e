"""Pools of huge pages as users of the model meet them, and mounts of hugetlbfs, each with a sub-pool."""

from typing import TYPE_CHECKING, Final

from gmemlab.core import execute, layout
from gmemlab.core.layout import BLOCK_PAGES, PAGE_SIZE
from gmemlab.core.state import Records, State
from gmemlab.errors import UsageError, operation_error
from gmemlab.model.guest import GuestMemory
from gmemlab.model.nodes import check_node
from gmemlab.policy import Policy
from gmemlab.presets import find
from gmemlab.units import format_size, parse_size

if TYPE_CHECKING:
    from gmemlab.model.host import Host

ORDERS: Final = {PAGE_SIZE * BLOCK_PAGES: layout.BLOCK_ORDER, 1 << 30: layout.GIGA_ORDER}
ALL: Final = -1


def order_of(page: int | str, *counts: int) -> int:
    """The order of a pool's pages. UsageError if there is no pool of this size, or a count is none."""
    order = ORDERS.get(parse_size(page))
    if order is None or any(not isinstance(count, int) or count < 0 for count in counts):
        raise UsageError("no such pool", key="page", value=str(page), allowed="2M or 1G, and counts of 0 or more")
    return order


def mask_of(state: State, node: int | None) -> int:
    """A node as bits; 0, which stands for all, for None. UsageError if the host has no such node."""
    if node is None:
        return 0
    check_node(node, int(state.host[0].nr_nodes))
    return 1 << node


def grow(state: State, page: int | str, count: int, hvo: bool, node: int | None) -> int:
    """`Host.grow_pool`."""
    order = order_of(page, count)
    pool = state.pools[int(order == layout.GIGA_ORDER)]
    if pool.nr and bool(pool.hvo) is not bool(hvo):
        raise UsageError("one pool has HVO for all of its pages, or none", key="hvo", value=hvo, allowed=str(bool(pool.hvo)))
    _, done = execute.fill_pool(state, order, count, int(hvo), mask_of(state, node))
    return int(done)


def resize(state: State, page: int | str, count: int, overcommit: int, node: int | None) -> int:
    """`Host.set_pool`. Returns 0 or the errno."""
    order = order_of(page, count, overcommit)
    mask_of(state, node)
    return int(execute.set_pool(state, order, count, overcommit, ALL if node is None else node))


def demote(host: "Host", count: int, node: int | None) -> int:
    """`Host.demote_pages`."""
    if not isinstance(count, int) or count < 0:
        raise UsageError("not a number of pages", value=str(count), allowed="0 or more")
    small, large = host.state.pools
    if small.nr and small.hvo != large.hvo:
        raise UsageError("the pool of 2M pages differs in HVO from that of 1G", key="hvo", allowed="the same in both")
    error, done = execute.demote_pages(host.state, count, mask_of(host.state, node))
    host.check_capacity()
    if error:
        raise operation_error(int(error), 0, f"demote {count} pages of 1G, of which {done} were")
    return int(done)


class HugetlbMount:
    """A mount of hugetlbfs with limits of its own (`size` and `min_size`); made by `Host.mount_hugetlbfs`."""

    def __init__(self, host: "Host", subpool: int, page: int) -> None:
        self._host = host
        self._subpool: int | None = subpool
        self.page = page

    def __enter__(self) -> "HugetlbMount":
        """Use the mount in a `with` block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Unmount it."""
        self.close()

    @property
    def used(self) -> int:
        """Bytes that count against `size`: promised to files, or theirs. 0 without such a limit."""
        return int(self._record().used_hpages) * self.page

    @property
    def kept(self) -> int:
        """Bytes of `min_size` that no file has."""
        return int(self._record().rsv_hpages) * self.page

    def memory(self, size: int | str, nodes: str = "local", home: int = 0) -> GuestMemory:
        """A file of the mount; `nodes` and `home` as for `Host.memory`.

        What it takes or has promised counts against the limits: OutOfMemory from `reserve` and `allocate`, PoolExhausted
        (SIGBUS) from an access beyond them. A grant that the pool cannot back stays counted until the mount goes, as in 6.18.
        """
        self._record()
        memory = self._host.memory(size, _policy_for(self.page), nodes, home)
        execute.join_mount(self._host.state, int(self._subpool or 0), memory.file)
        return memory

    def close(self) -> None:
        """Unmount it, which ends what it keeps; harmless when done twice.

        Raises:
            OperationError: EBUSY while it has files.
        """
        if self._subpool is None:
            return
        error = int(execute.close_mount(self._host.state, self._subpool))
        if error:
            raise operation_error(error, 0, "unmount hugetlbfs")
        self._subpool = None

    def _record(self) -> Records:
        if self._subpool is None:
            raise UsageError("this mount is closed")
        record: Records = self._host.state.subpools[self._subpool]
        return record


def mount(host: "Host", page: int | str, size: int | str | None, min_size: int | str | None) -> HugetlbMount:
    """`Host.mount_hugetlbfs`."""
    order = order_of(page)
    unit = PAGE_SIZE << order
    most, least = (_pages(limit, unit, key) for limit, key in ((size, "size"), (min_size, "min_size")))
    if 0 <= most < least:
        allowed = f"at most size, {format_size(most * unit)}"
        raise UsageError("more is kept than may be used", key="min_size", value=str(min_size), allowed=allowed)
    error, subpool = execute.open_mount(host.state, order, most, least)
    host.check_capacity()
    if error:
        raise operation_error(error, 0, f"mount hugetlbfs of {page} pages with min_size={min_size}")
    return HugetlbMount(host, int(subpool), unit)


def _pages(limit: int | str | None, unit: int, key: str) -> int:
    """A limit in huge pages, rounded down as the mount option is; -1 for none."""
    if limit is None:
        return -1
    value = limit if isinstance(limit, int) else parse_size(limit)
    if value < 0:
        raise UsageError("not a size", key=key, value=str(limit), allowed="0 or more")
    return value // unit


def _policy_for(page: int) -> Policy:
    policy = find("hugetlbfs")
    return policy if page == policy.unit else policy.with_choices({"sizes": format_size(page)})
