"""The one place that owns Numba's options and the key of the machine code on disk.

Numba's own cache looks at the entry function's file only; a changed ``decisions.py`` would be ignored by its callers. So the
directory is named by a hash of every file of ``core/``, of the processor and of the settings that change what is compiled.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import llvmlite.binding as llvmlite
import numba
import numpy as np
import platformdirs
from numba.core import event, types
from numba.core.types.misc import unliteral

P = ParamSpec("P")
R = TypeVar("R")

# Without reference counting an order-0 allocation is about six times faster; nothing may be allocated inside.
OPTIONS: Final[dict[str, Any]] = {"_nrt": False, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER: Final[dict[str, Any]] = {"no_cpython_wrapper": True}
KEPT_BUILDS: Final = 4
KEPT_SECONDS: Final = 3 * 24 * 3600  # other checkouts may use a build that is older than four of this one
COMPILING: Final = "gmemlab: compiling the core once, about half a minute"


def source_key() -> str:
    """Hash of all sources of ``core/``, of the processor and the settings: two equal keys mean the same machine code."""
    digest = hashlib.sha256(" ".join(str(setting) for setting in _settings()).encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _settings() -> tuple[object, ...]:
    chosen = (numba.config.CPU_NAME, numba.config.CPU_FEATURES, numba.config.OPT, numba.config.BOUNDSCHECK)
    processor = (llvmlite.get_process_triple(), llvmlite.get_host_cpu_name(), llvmlite.get_host_cpu_features().flatten())
    return (numba.__version__, np.__version__, *processor, *chosen, OPTIONS)


def cache_directory() -> Path:
    """Where the machine code of exactly these sources is kept."""
    return platformdirs.user_cache_path("gmemlab") / "core" / source_key()


def prune_cache() -> None:
    """Remove builds that nobody has used for days, all but the last few."""
    builds = [path for path in cache_directory().parent.glob("*") if path.is_dir()]
    due = time.time() - KEPT_SECONDS
    for path in sorted(builds, key=lambda build: build.stat().st_mtime)[:-KEPT_BUILDS]:
        if path.stat().st_mtime < due:
            shutil.rmtree(path, ignore_errors=True)


def mark_used() -> None:
    """Date the build of these sources, so that it counts as used now."""
    with suppress(OSError):  # not compiled yet, or a cache that is read only
        os.utime(CACHE)


def announce_compiling() -> None:
    """Say on standard error that the core is being compiled, should that be necessary: it takes long, and happens once."""
    event.register("numba:compile", _Announcement())


class _Announcement(event.Listener):  # type: ignore[misc]  # it has no types
    """Waits for the first function of the core that is not found on disk."""

    def __init__(self) -> None:
        self._waits = True

    def on_start(self, event: Any) -> None:
        """Say it once, when a function of the core begins to be compiled."""
        function = event.data["dispatcher"].py_func
        if self._waits and function.__module__.startswith(__package__):
            self._waits = False
            print(COMPILING, file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """Nothing is said at the end."""


def widen(argument: Any) -> Any:
    """The type in which an argument is passed: every integer as int64, every truth value as bool, constant or not."""
    argument = unliteral(argument)
    return types.int64 if isinstance(argument, types.Integer) else argument


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other compiled functions call.

    Numba would compile it anew for every mixture of constants and integer widths among the arguments; it is compiled once.
    """
    return _compiled_once(function, {})


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """`jit`, for a step of the path of a single page: it becomes part of its callers.

    LLVM leaves more than some tens of instructions a call, each of which takes 2 to 3 ns of the 20 to 40 that a page costs.
    """
    return _compiled_once(function, {"forceinline": True})


def _compiled_once(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    compiled: Any = numba.njit(**OPTIONS, **INNER, **options)(function)
    if not numba.config.DISABLE_JIT:
        resolve = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: resolve(tuple(widen(argument) for argument in args), kws)
    return cast("Callable[P, R]", compiled)


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that Python calls, and keep its machine code on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(CACHE)
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before
    return compiled


CACHE: Final = cache_directory()
mark_used()
