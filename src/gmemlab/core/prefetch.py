"""The processor's instruction that asks for memory ahead of its use, for compiled code."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.np import arrayobj
from numpy.typing import NDArray

from gmemlab.core.state import Records


def prefetch(table: Records | NDArray[Any], row: int) -> None:
    """Have a row of a table brought into the caches, to be written; nothing to do with the compiler off."""


@infer_global(prefetch)
class Prefetch(AbstractTemplate):  # type: ignore[misc]  # it has no types
    """How a call of `prefetch` is typed."""

    def generic(self, args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
        """The signature for whatever table."""
        del kws
        return signature(types.none, args[0], types.int64)


@lower_builtin(prefetch, types.Array, types.int64)  # type: ignore[untyped-decorator]  # it has no types
def lower_prefetch(context: Any, builder: Any, sig: Any, args: tuple[Any, ...]) -> Any:
    """LLVM's instruction: the address, then that it will be written, is worth keeping, and is no code."""
    table = arrayobj.make_array(sig.args[0])(context, builder, args[0])
    address = builder.bitcast(builder.gep(table.data, [args[1]]), cgutils.voidptr_t)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[cgutils.int32_t] * 3])
    instruction = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(instruction, [address, *(ir.Constant(cgutils.int32_t, value) for value in (1, 3, 1))])
    return context.get_dummy_value()
