"""The one place that owns Numba's options and the key of its file cache.

Numba's own cache looks at the entry function's file only; a changed ``decisions.py`` would be ignored by its callers. So the
cache directory is named by a hash of every file of ``core/`` and of the settings that change what is compiled.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba
import numpy as np
import platformdirs
from numba.core import types
from numba.core.types.misc import unliteral

P = ParamSpec("P")
R = TypeVar("R")

# Without reference counting an order-0 allocation is about six times faster; nothing may be allocated inside.
OPTIONS: Final[dict[str, Any]] = {"_nrt": False, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER: Final[dict[str, Any]] = {"no_cpython_wrapper": True}
KEPT_BUILDS: Final = 4


def source_key() -> str:
    """Hash of all sources of ``core/`` and of the compiler's settings: two equal keys mean the same machine code."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__} {numba.config.BOUNDSCHECK} {OPTIONS}".encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Where the machine code of exactly these sources is kept."""
    return platformdirs.user_cache_path("gmemlab") / "core" / source_key()


def prune_cache() -> None:
    """Remove the builds of older sources, all but the newest few."""
    builds = [path for path in cache_directory().parent.glob("*") if path.is_dir()]
    for path in sorted(builds, key=lambda build: build.stat().st_mtime)[:-KEPT_BUILDS]:
        shutil.rmtree(path, ignore_errors=True)


def widen(argument: Any) -> Any:
    """The type in which an argument is passed: every integer as int64, every truth value as bool, constant or not."""
    argument = unliteral(argument)
    return types.int64 if isinstance(argument, types.Integer) else argument


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other compiled functions call.

    Numba would compile it anew for every mixture of constants and integer widths among the arguments; it is compiled once.
    """
    compiled: Any = numba.njit(**OPTIONS, **INNER)(function)
    if not numba.config.DISABLE_JIT:
        resolve = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: resolve(tuple(widen(argument) for argument in args), kws)
    return cast("Callable[P, R]", compiled)


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that Python calls, and keep its machine code on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_CACHE)
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before
    return compiled


_CACHE: Final = cache_directory()
