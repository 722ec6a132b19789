"""Lists the private names of pytest that a file of doteval uses, and those that tests are for."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COVERED: set[str] = set()


def relies_on(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare the private names that a test is for, and name them when it fails."""
    COVERED.update(names)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                test(*args, **kwargs)
            except Exception as error:
                pytest.fail(
                    f"pytest {pytest.__version__} has changed {' or '.join(names)}, "
                    f"which doteval.pytest_runtime relies on: {type(error).__name__}: {error}\n"
                    "Adapt pytest_internals.py, or leave this version out of the "
                    "range in pyproject.toml."
                )

        return run

    return decorate


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
