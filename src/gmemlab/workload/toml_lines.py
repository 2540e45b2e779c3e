"""Where in a TOML text each key stands."""

from collections import Counter
from typing import Final

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

Path = tuple[str | int, ...]

_TABLES: Final = ("table", "table_array_element")
_DEPTH: Final = 8  # keys of a path that are remembered: more than any scenario has


def toml_lines(text: str) -> dict[Path, int]:
    """Return the line (from 1) of every key, table and array element of a valid TOML text.

    A path holds keys, and indices of arrays: ``("guests", "fixed", 1)``. The empty path is line 1. Of longer paths only
    the first eight keys are there.
    """
    root = Parser(Language(tree_sitter_toml.language())).parse(text.encode()).root_node
    lines: dict[Path, int] = {(): 1}
    tables: Counter[Path] = Counter()
    for node in root.named_children:
        if node.type == "pair":
            _pair(node, (), lines)
        elif node.type in _TABLES:
            path = _keys(node.named_children[0])
            if node.type == "table_array_element":
                tables[path] += 1
                path = (*path, tables[path] - 1)
            _note(path, node, lines)
            for child in node.named_children[1:]:
                if child.type == "pair":
                    _pair(child, path, lines)
    return lines


def nearest_line(lines: dict[Path, int], path: Path) -> int:
    """Return the line of a path, or of the nearest enclosing table that the text has."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _note(path: Path, node: Node, lines: dict[Path, int]) -> None:
    for length in range(1, min(len(path), _DEPTH) + 1):
        lines.setdefault(path[:length], node.start_point.row + 1)


def _pair(node: Node, table: Path, lines: dict[Path, int]) -> None:
    key, *_, value = node.named_children
    path = (*table, *_keys(key))
    _note(path, node, lines)
    _value(value, path, lines)


def _value(node: Node, path: Path, lines: dict[Path, int]) -> None:
    if node.type == "inline_table":
        for child in node.named_children:
            if child.type == "pair":
                _pair(child, path, lines)
    elif node.type == "array":
        elements = [child for child in node.named_children if child.type != "comment"]
        for index, child in enumerate(elements):
            _note((*path, index), child, lines)
            _value(child, (*path, index), lines)


def _keys(node: Node) -> Path:
    """Return the parts of a key. The grammar nests a dotted key to the left, once for each of its parts."""
    parts: list[str] = []
    while node.type == "dotted_key":
        keys = node.named_children
        parts.append(_part(keys[-1]))
        node = keys[0]
    return (_part(node), *reversed(parts))


def _part(node: Node) -> str:
    text = (node.text or b"").decode()
    return text[1:-1] if node.type == "quoted_key" else text
