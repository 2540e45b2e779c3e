"""The core in separately compiled parts that call each other by address.

Numba links a function with all that it calls, and optimises the sum anew at every level: compiling costs the depth of the
call tree times its size. A part is compiled once, by itself, as a C file is; its callers take its address from the state's
table, behind the fields (`state_type`). That costs a call of about 2 ns, and the single-page path stays within one part.
Parts know of each other's signatures only, so that they may call each other in a circle, and be compiled side by side.
"""

import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from numba.core import cgutils, config, types
from numba.core.imputils import lower_builtin
from numba.core.types.containers import UniTuple
from numba.core.types.misc import VarArg
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from gmemlab.core.jit import CACHE
from gmemlab.core.object_files import ObjectFile, compile_alone, keep, kept, load
from gmemlab.core.state_type import StateType, read_word

P = ParamSpec("P")
R = TypeVar("R")

# Where the core is cut. A position is that of the part's address in the table; machine code on disk relies on it.
NAMES: Final = (
    "buddy.claim",
    "buddy.steal",
    "buddy.take_movable",
    "contig.alloc_giga",
    "contig.take_run",
    "daemons.compaction.compact",
    "daemons.compaction.compact_for",
    "daemons.compaction.compact_zone",
    "daemons.free_scanner.fast_isolate",
    "daemons.free_scanner.isolate_free",
    "daemons.kcompactd.kcompactd",
    "daemons.khugepaged.khugepaged",
    "daemons.migrate_scanner.isolate_sources",
    "daemons.migrate_scanner.move_isolated",
    "daemons.reclaim.alloc_page_slowly",
    "daemons.reclaim.alloc_reclaiming",
    "daemons.reclaim.call_kswapd",
    "daemons.reclaim.kswapd",
    "daemons.reclaim.reclaim",
    "daemons.reclaim.shrink",
    "daemons.shrinker.deferred_split_scan",
    "daemons.shrinker.shrink_slab",
    "daemons.vmstat.decay_all",
    "effort.alloc_folio",
    "effort.alloc_page",
    "effort.alloc_slowly",
    "frames.defer_page",
    "frames.leave_folio",
    "frames.recut",
    "guestmap.map_private",
    "hardware.moves.move_block_state",
    "hardware.moves.move_page_state",
    "hardware.moves.part_huge",
    "hardware.rmp.leave",
    "hardware.rmp.leave_orphan",
    "hardware.rmp.take_back",
    "hardware.snp.access",
    "hardware.snp.rescind",
    "hardware.tdx.access",
    "hardware.tdx.unmap_entries",
    "hardware.zap.refault",
    "hardware.zap.unmap_entries",
    "highatomic.alloc_atomic",
    "highatomic.unreserve",
    "hostmap.map_for_host",
    "hostmap.unmap_block_from_host",
    "mapping.settle",
    "mapping.write_details",
    "mapping.write_frame_rows",
    "mempolicy.nodes_of_policy",
    "migrate.move_frames",
    "mounts.mount",
    "mounts.unmount",
    "nodes.alloc_block_from_nodes",
    "nodes.alloc_from_nodes",
    "nodes.alloc_hard",
    "operations.access.access",
    "operations.access.use_range",
    "operations.collapse.collapse",
    "operations.collapse.replace_pages",
    "operations.convert.convert",
    "operations.convert.merge_range",
    "operations.convert.set_attributes",
    "operations.convert.split_for_sharing",
    "operations.deferred.split_each_block",
    "operations.lifecycle.create",
    "operations.lifecycle.destroy",
    "operations.longterm.leave_movable",
    "operations.pin.fault_in",
    "operations.pin.hold",
    "operations.pin.pin",
    "operations.pin.release_serial",
    "operations.pin.unhold",
    "operations.populate.populate",
    "operations.populate.populate_from_pool",
    "operations.punch.defer_pages",
    "operations.punch.punch",
    "operations.punch.punch_part",
    "operations.release.release_unit",
    "operations.reserve.reserve",
    "operations.split.join_unit",
    "operations.split.split_folio",
    "operations.split.split_unit",
    "pcp.alloc_from_cpu",
    "pcp.drain_zone",
    "pcp.free_bulk",
    "pcp.free_to_cpu",
    "pool_sizes.alloc_surplus",
    "pool_sizes.demote",
    "pool_sizes.grow_pool",
    "pool_sizes.promise",
    "pool_sizes.resize_pool",
    "pools.return_page",
    "pools.update_and_free_bulk",
    "underused.split_to_pages",
    "underused.split_zeros",
    "vmemmap.optimize",
    "vmemmap.release_structs",
    "vmemmap.restore",
)
TYPES: Final[dict[Any, types.Type]] = {
    int: types.int64,
    bool: types.boolean,
    None: types.none,
    tuple[int, int]: UniTuple(types.int64, 2),
}


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of the state and of numbers as a part of its own. Its name must be in `NAMES`."""
    if config.DISABLE_JIT:
        return function
    name = f"{function.__module__}.{function.__qualname__}".removeprefix(f"{__package__}.")
    if name not in NAMES:
        raise ValueError(f"{name} is not in {__name__}.NAMES")
    position = NAMES.index(name)

    class Template(AbstractTemplate):  # type: ignore[misc]  # it has no types
        """How a call of the part is typed: as declared, every argument cast."""

        key = function

        def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
            """The declared signature, for whatever arguments."""
            del kws
            return declared(function, args[0])

    infer_global(function, types.Function(Template))

    @lower_builtin(function, VarArg(types.Any))  # type: ignore[untyped-decorator]  # it has no types
    def call(context: Any, builder: Any, sig: Any, args: tuple[Any, ...]) -> Any:
        """Call the part by its address; an IndexError of the bounds checks passes through."""
        address = read_word(builder, args[0], 2 * len(sig.args[0].fields) + position)
        kind = context.call_conv.get_function_type(sig.return_type, sig.args)
        callee = builder.inttoptr(address, kind.as_pointer())
        status, result = context.call_conv.call_function(builder, callee, sig.return_type, sig.args, args)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return function


def declared(function: Callable[..., Any], state_type: types.Type) -> Any:
    """The signature of a part, from its annotations."""
    shape = inspect.signature(function)
    arguments = [TYPES[parameter.annotation] for parameter in list(shape.parameters.values())[1:]]
    return signature(TYPES[shape.return_annotation], state_type, *arguments)


def compile_part(name: str, state_type: StateType) -> ObjectFile:
    """Compile a part, or find it on disk."""
    path = object_path(name, state_type)
    made = kept(path)
    if made is None:
        module, function = name.rsplit(".", 1)
        part_function = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        made = compile_alone(part_function, declared(part_function, state_type))
        keep(path, made)
    return made


def object_path(name: str, state_type: StateType) -> Path:
    """Where the machine code of a part is kept."""
    return CACHE / f"parts-{_digest(state_type)}" / f"{name}.o"


@functools.cache
def _digest(state_type: StateType) -> str:
    return hashlib.sha256(state_type.name.encode()).hexdigest()[:8]


@functools.cache
def addresses(state_type: StateType) -> list[int]:
    """The addresses of all parts, in the order of `NAMES`; none with the compiler off."""
    if config.DISABLE_JIT:
        return []
    return load([compile_part(name, state_type) for name in NAMES])
