"""Check that everything public has a docstring, and that documented arguments are those of the signature.

Usage: ``python tools/check_docstrings.py [FOLDER ...]`` (by default ``src``). Prints ``file:line: problem`` for each
    problem and
exits with 1 if there is one. Public is a name without a leading underscore, in a public class or at the top of a
    module.
A docstring need not have an ``Args:`` section; if it has one, its names are the parameters, all of them, in order. For
    a
class, the parameters are those of ``__init__``.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Problem = tuple[int, str]

_SECTION = re.compile(r"^Args:\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\*{0,2}\w+)(?: \([^)]*\))?:", re.MULTILINE)


def main(folders: list[str]) -> int:
    """Check the folders, print what is wrong, and return the exit code."""
    count = 0
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*.py")):
        for line, problem in check(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            print(f"{path}:{line}: {problem}")
            count += 1
    if count:
        print(f"{count} problem{'s' if count != 1 else ''} with docstrings", file=sys.stderr)
    return 1 if count else 0


def check(module: ast.Module) -> Iterator[Problem]:
    """Yield the line and text of each problem in a module."""
    if not ast.get_docstring(module):
        yield 1, "module has no docstring"
    yield from _check_body(module.body, "", in_class=False)


def _check_body(body: list[ast.stmt], prefix: str, *, in_class: bool) -> Iterator[Problem]:
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_") or _is_override(node):
            continue
        name = f"{prefix}{node.name}"
        docstring = ast.get_docstring(node)
        if docstring is None:
            yield node.lineno, f"{name} has no docstring"
        else:
            yield from _check_arguments(node, name, docstring, in_class=in_class)
        if isinstance(node, ast.ClassDef):
            yield from _check_body(node.body, f"{name}.", in_class=True)


def _check_arguments(node: Function | ast.ClassDef, name: str, docstring: str, *, in_class: bool) -> Iterator[Problem]:
    section = _SECTION.search(docstring)
    if section is None:
        return
    if isinstance(node, ast.ClassDef):
        init = next((item for item in node.body if isinstance(item, Function) and item.name == "__init__"), None)
        expected = _fields(node) if init is None else _parameters(init, bound=True)
    else:
        expected = _parameters(node, bound=in_class and "staticmethod" not in _decorators(node))
    documented = _ARGUMENT.findall(section[1])
    if documented != expected:
        yield node.lineno, f"{name} documents the arguments {documented}, but has {expected}"


def _parameters(function: Function, *, bound: bool) -> list[str]:
    """Return the names in the signature (with stars), without ``self`` or ``cls`` if it is ``bound``."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)][int(bound) :]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [argument.arg for argument in given.kwonlyargs]
    return names + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def _fields(node: ast.ClassDef) -> list[str]:
    """Return the annotated names in a class without ``__init__``: a dataclass's fields."""
    return [item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]


def _is_override(node: Function | ast.ClassDef) -> bool:
    """Whether the docstring is inherited, or belongs to another definition of the same name (setters, overloads)."""
    names = _decorators(node)
    return bool({"override", "overload", "setter", "deleter"} & set(names))


def _decorators(node: Function | ast.ClassDef) -> list[str]:
    """Return the last part of each decorator's name."""
    calls = [item.func if isinstance(item, ast.Call) else item for item in node.decorator_list]
    return [ast.unparse(item).rpartition(".")[2] for item in calls]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["src"]))
