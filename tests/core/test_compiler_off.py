"""With the compiler and without it, one long trace leaves the same bytes in every table of the state."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import long_trace
from gmemlab.core import layout

ERRORS = (errno.EAGAIN, errno.ENOMEM, errno.EFAULT, errno.EACCES, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP)


def interpreted() -> dict[str, str]:
    """What the trace leaves in a process that does not compile."""
    done = subprocess.run(
        [sys.executable, Path(long_trace.__file__)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK, reason="the compiled pass compares both")
def test_same_bytes_with_and_without_the_compiler() -> None:
    compiled = long_trace.digests(long_trace.STEPS, audited=True)
    assert interpreted() == compiled
    outcomes = {(op, error): count for op, error, count in json.loads(compiled["outcomes"])}
    operations = set(range(layout.OP_ALLOCATE, layout.OP_UNREFERENCE + 1))
    assert min(outcomes[op, 0] for op in operations) >= 50
    assert all(outcomes[tick, 0] > 0 for tick in long_trace.TICKS)
    assert {error for _, error in outcomes} >= set(ERRORS)
