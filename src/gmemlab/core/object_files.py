"""Machine code of the core's parts on disk: an object file for each, as a C compiler would leave them.

Numba's own cache keeps a function's types and bitcode as well, for callers that link it, and takes 5 ms to rebuild them. Parts
are called by address only: the object files of all of them are loaded in the time of one.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba
from numba.core import config

from gmemlab.core.jit import INNER, OPTIONS
from gmemlab.whole_file import write_whole


class ObjectFile(NamedTuple):
    """What was compiled, and the name that the function has in it."""

    symbol: str
    code: bytes


def compile_alone(function: Callable[..., Any], signature: Any) -> ObjectFile:
    """Compile a function for one signature, with all that it links in."""
    compiled: Any = numba.njit(**OPTIONS, **INNER)(function)
    compiled.compile(signature)
    result = compiled.overloads[signature.args]
    _, _, (code, _) = result.library.serialize_using_object_code()
    return ObjectFile(result.fndesc.llvm_func_name, code)


def keep(path: Path, made: ObjectFile) -> None:
    """Write an object file, behind a line with its symbol. Where that is impossible, the next run compiles again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, made.symbol.encode() + b"\n" + made.code)


def kept(path: Path) -> ObjectFile | None:
    """Return what `keep` wrote, or None if there is nothing to be read."""
    try:
        symbol, _, code = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return ObjectFile(symbol.decode(), code)


def load(objects: Sequence[ObjectFile]) -> list[int]:
    """Bring object files into memory, where they stay. Returns the address of each one's function."""
    engine = _engine()
    for made in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(made.code))
    engine.finalize_object()
    return [engine.get_function_address(made.symbol) for made in objects]


@functools.cache
def _engine() -> Any:
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=config.USE_LLVMLITE_MEMORY_MANAGER)
