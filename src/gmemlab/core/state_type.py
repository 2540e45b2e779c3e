"""How compiled code sees the state: one pointer to a table of (address, length) pairs, then the addresses of the core's parts.

Numba passes a NamedTuple of 16 arrays as 112 scalars, in every call and through every level of inlining: half of the
compile time went into them. Here the state is one pointer; reading a field loads its address and length from the table,
which never changes, so that LLVM may keep them in registers. With the compiler off the NamedTuple is used as it is.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.extending import NativeValue, models, register_model, typeof_impl, unbox
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.core.typing.typeof import typeof
from numba.np import arrayobj

WORD = ir.IntType(64)


class StateType(types.Type):
    """The type of a state whose fields are one-dimensional arrays of the given types."""

    def __init__(self, fields: tuple[tuple[str, types.Array], ...]) -> None:
        self.fields = fields
        super().__init__(name="State(" + ", ".join(f"{name}: {array}" for name, array in fields) + ")")

    @property
    def mangling_args(self) -> tuple[str, tuple[object, ...]]:
        """Its short name in the symbols of compiled functions: the full one has thousands of letters. There is one."""
        return "State", ()


@register_model(StateType)
class StateModel(models.PrimitiveModel):  # type: ignore[misc]
    """A pointer to 64-bit words."""

    def __init__(self, manager: Any, fe_type: StateType) -> None:
        super().__init__(manager, fe_type, WORD.as_pointer())


def register(state_class: type) -> None:
    """Make compiled functions take instances of a NamedTuple of arrays whose last field, `table`, is `make_table`'s."""

    @typeof_impl.register(state_class)  # type: ignore[untyped-decorator]
    def typeof_state(value: Any, context: Any) -> StateType:
        """The type of one instance: the fields but the table, with their array types."""
        del context
        return type_of({name: getattr(value, name) for name in value._fields[:-1]})


def type_of(fields: Mapping[str, Any]) -> StateType:
    """The type of a state with these arrays."""
    return StateType(tuple((name, typeof(array)) for name, array in fields.items()))


@infer_getattr
class StateAttributes(AttributeTemplate):  # type: ignore[misc]
    """Field types of a state."""

    key = StateType

    def generic_resolve(self, state: StateType, name: str) -> types.Array | None:
        """The array type of field `name`."""
        return dict(state.fields).get(name)


@unbox(StateType)  # type: ignore[untyped-decorator]
def unbox_state(state_type: StateType, value: Any, context: Any) -> NativeValue:
    """The address of a state's table.

    To ask for it runs Python code, during which a signal's handler may raise: a null pointer then, and an error.
    """
    del state_type
    builder, failed = context.builder, cgutils.alloca_once_value(context.builder, cgutils.false_bit)
    pointer = cgutils.alloca_once_value(builder, ir.Constant(WORD.as_pointer(), None))
    with ExitStack() as stack:
        found = value
        for name in ("table", "ctypes", "data"):
            owner, found = found, context.pyapi.object_getattr_string(found, name)
            if owner is not value:
                context.pyapi.decref(owner)
            with cgutils.early_exit_if_null(builder, stack, found):
                builder.store(cgutils.true_bit, failed)
        address = context.pyapi.long_as_voidptr(found)
        context.pyapi.decref(found)
        builder.store(builder.bitcast(address, WORD.as_pointer()), pointer)
    return NativeValue(builder.load(pointer), is_error=builder.load(failed))


def read_word(builder: Any, pointer: Any, offset: int) -> Any:
    """A word of the table, which never changes."""
    word = builder.load(builder.gep(pointer, [ir.Constant(ir.IntType(32), offset)]))
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    return word


@lower_getattr_generic(StateType)  # type: ignore[untyped-decorator]
def read_field(context: Any, builder: Any, state_type: StateType, pointer: Any, name: str) -> Any:
    """Build the array of field `name` from its row in the table."""
    position = [field for field, _ in state_type.fields].index(name)
    array_type = state_type.fields[position][1]
    address = read_word(builder, pointer, 2 * position)
    # Numba counts a negative index from the end of the array, a test and a selection at every access. With a length of zero
    # they fold away; nothing in the core counts from the end or asks for a length.
    length = read_word(builder, pointer, 2 * position + 1) if config.BOUNDSCHECK else ir.Constant(WORD, 0)
    array = arrayobj.make_array(array_type)(context, builder)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(address, array.data.type),
        shape=cgutils.pack_array(builder, [length]),
        strides=cgutils.pack_array(builder, [itemsize]),
        itemsize=itemsize,
        meminfo=None,
    )
    return array._getvalue()
