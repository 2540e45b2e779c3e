"""What the machine finds when it starts: the part of gmemlab that needs the standard library only, init, the command."""

import ast
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from gmemlab.errors import GmemlabError
from tools.vmtest.cpio import Writer
from tools.vmtest.host import REPOSITORY
from tools.vmtest.python import compile_python

_CONTRACT: Final = "The live world needs nothing but the standard library"
_SOURCES: Final = REPOSITORY / "src"
_PLACE: Final = "gmemlab"
_INIT: Final = Path(__file__).with_name("init.sh")


def live_files(project: Path = REPOSITORY / "pyproject.toml", sources: Path = _SOURCES) -> list[Path]:
    """Return the files of the modules that the contract lists, and of those that they import, relative to ``sources``.

    Args:
        project: the pyproject.toml with the contract.
        sources: the directory of the package.

    Raises:
        GmemlabError: there is no such contract, or a module that it lists.
    """
    contracts = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    listed = [name for contract in contracts if contract["name"] == _CONTRACT for name in contract["source_modules"]]
    if not listed:
        raise GmemlabError(f'{project.name} has no contract "{_CONTRACT}"')
    missing = [name for name in listed if not _files(sources, name)]
    if missing:
        raise GmemlabError(f"{project.name} lists modules that do not exist: {', '.join(missing)}")
    found: set[Path] = set()
    waiting = {file for name in listed for file in _files(sources, name)}
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= set(_imported(sources, file)) - found
    packages = {parent / "__init__.py" for file in found for parent in file.parents if parent != Path()}
    return sorted(found | packages)


def _files(sources: Path, name: str) -> list[Path]:
    """Return the file of a module, or all files of a package."""
    base = sources.joinpath(*name.split("."))
    files = [base.with_suffix(".py")] if base.with_suffix(".py").exists() else sorted(base.rglob("*.py"))
    return [file.relative_to(sources) for file in files]


def _imported(sources: Path, file: Path) -> Iterable[Path]:
    """Yield the files that a file imports from the same package."""
    for node in ast.walk(ast.parse((sources / file).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{item.name}" for item in node.names)]
        for name in names:
            path = Path(*name.split("."))
            if path.parts[0] == file.parts[0]:
                yield from (item for item in (path.with_suffix(".py"), path / "__init__.py") if (sources / item).exists())


def pack_run(target: Path, python: Path, commands: Sequence[Sequence[str]]) -> None:
    """Write the initramfs that differs from run to run.

    Args:
        target: the file.
        python: the directory of ``fetch_python``.
        commands: each with its arguments; they run one after another, also after one has failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for file in live_files():
            (root / _PLACE / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_SOURCES / file, root / _PLACE / file)
        compile_python(python / "root", root)
        with target.open("wb") as stream:
            archive = Writer(stream)
            archive.tree(root)
            archive.file("init", _INIT.read_bytes(), executable=True)
            archive.file("command", script(commands).encode())
            archive.close()


def script(commands: Sequence[Sequence[str]]) -> str:
    """Return a shell script that runs all commands, and has the status of the last one that failed."""
    return "".join(["status=0\n", *(f"{shlex.join(command)} || status=$?\n" for command in commands), "exit $status\n"])
