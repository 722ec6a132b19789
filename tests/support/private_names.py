"""Lists the private names of pytest that a file of doteval uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def private_names(path: Path) -> Iterator[str]:
    """Yield what a file imports from `_pytest`, and the private attributes and arguments that it does not define."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private(node.attr)]
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and is_self(node.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "_pytest":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            yield node.arg or ""
    yield from (node.attr for node in attributes if not (is_self(node.value) and node.attr in own))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
