"""The vmstat worker: each second it has the CPUs give back what they keep for nothing (mm/vmstat.c, mm/page_alloc.c, 6.18)."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import PCP_BATCH_SCALE_MAX
from gmemlab.core.parts import part
from gmemlab.core.pcp import free_bulk, node_of_cpu, pcp_row
from gmemlab.core.state import State

SECOND = 1000  # milliseconds: vm.stat_interval
EXPIRE = 3  # seconds: "3 seconds idle till flush"


@jit
def decay_high(state: State, row: int) -> bool:
    """A limit that grew shrinks by an eighth, and what lies above goes (`decay_pcp_high`): batch by batch since 6.18.7.

    So that of large chunks one goes for each batch. Returns whether the next second has work, too.
    """
    pcp = state.pcps[row]
    high, batch = int(pcp.high), int(pcp.batch)
    more = False
    if high > pcp.high_min:
        high = max(int(pcp.count) - (batch << PCP_BATCH_SCALE_MAX), high - (high >> 3), int(pcp.high_min))
        pcp.high = high
        more = high > pcp.high_min
    excess = int(pcp.count) - high
    while excess > 0:
        free_bulk(state, row, min(excess, batch), 0)
        more = True
        excess -= batch
    return more


@jit
def expire_remote(state: State, row: int) -> bool:
    """Have a batch of another node's zone go three seconds after the CPU last changed anything there (`drain_zone_pages`).

    That it goes is such a change, unless all of it is chunks of order 9: counters that change by so much at once are not
    left to the vmstat worker. Returns whether the next second has work, too.
    """
    pcp = state.pcps[row]
    if pcp.expire == 0 or pcp.count == 0:
        return False
    pcp.expire -= 1
    if pcp.expire == 0:
        free_bulk(state, row, int(pcp.batch), 0)
    return True


@part
def decay_all(state: State) -> bool:
    """The vmstat worker's second on all CPUs (`refresh_cpu_vm_stats`). Returns whether the next second has work, too.

    What a CPU allocates and frees past its lists (orders 4 to 8) does not put off that it gives back what it keeps there.
    """
    more = False
    for cpu in range(int(state.host[0].nr_cpus)):
        node = node_of_cpu(state, cpu)
        for zone in range(int(state.host[0].nr_zones)):
            row = pcp_row(state, zone, cpu)
            pcp = state.pcps[row]
            if pcp.touched:
                pcp.touched = 0
                pcp.expire = EXPIRE
            if decay_high(state, row):
                more = True
            if state.zones[zone].node == node:
                pcp.expire = 0
            elif expire_remote(state, row):
                more = True
    return more


@jit
def let_decay(state: State, milliseconds: int) -> None:
    """Let time pass for the vmstat worker, as far as there is work; what is left of a second counts the next time."""
    host = state.host[0]
    host.undecayed += milliseconds
    seconds = int(host.undecayed) // SECOND
    host.undecayed %= SECOND
    for _ in range(seconds):
        if not decay_all(state):
            return
