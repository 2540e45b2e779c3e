"""This machine: the programs needed on it, messages, and what is kept between runs outside the repository."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import platformdirs

from gmemlab.errors import GmemlabError, UnsupportedError

REPOSITORY: Final = Path(__file__).resolve().parents[2]

# Where Debian keeps each program.
_PACKAGES: Final[Mapping[str, str]] = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc",
    "gzip": "gzip",
    "ld": "binutils",
    "make": "make",
    "perl": "perl",
    "qemu-system-x86_64": "qemu-system-x86",
    "tar": "tar",
    "xz": "xz-utils",
}


def say(text: str) -> None:
    """Tell what is going on, on standard error."""
    print(f"vmtest: {text}", file=sys.stderr, flush=True)


def need(*programs: str) -> None:
    """Check that programs are installed.

    Raises:
        UnsupportedError: some are not; names all of them, with the Debian packages to install.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES[program] for program in missing))
        raise UnsupportedError(", ".join(missing), f"not found; on Debian: apt-get install {packages}")


def output(arguments: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program and return what it printed.

    Args:
        arguments: the program and its arguments.
        env: environment variables, beside those of this process.
        cwd: where it runs.

    Raises:
        GmemlabError: it failed; with its last lines.
    """
    result = subprocess.run(
        arguments, env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise GmemlabError(f"{arguments[0]} failed ({result.returncode}): {' '.join(lines[-3:])}")
    return result.stdout


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell that something begins, and how long it took."""
    say(f"{what} ...")
    start = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - start:.0f} s")


def cache() -> Path:
    """Return the directory of what is kept between runs."""
    folder = platformdirs.user_cache_path("gmemlab") / "vmtest"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other runs of vmtest from the same thing."""
    handle = os.open(cache() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return a directory of the cache; it is there in full or not at all.

    Args:
        name: its name; must tell apart whatever may differ inside.
        make: fills an empty directory with it, in the first run only.
    """
    folder = cache() / name
    if folder.is_dir():
        return folder
    with locked(name), tempfile.TemporaryDirectory(prefix=".making-", dir=cache()) as scratch:
        if not folder.is_dir():
            complete = Path(scratch) / "complete"
            complete.mkdir()
            make(complete)
            complete.rename(folder)
    return folder


def key(*parts: str) -> str:
    """Return a short name for what was made from ``parts``, which another set of them does not get."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
