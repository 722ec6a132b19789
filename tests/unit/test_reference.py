"""The generated pages of docs/reference say what the code says."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import generate
from docs.generate import markdown
from docs.generate.settings import VARIABLES
from doteval.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", generate.FILES)
def test_pages_are_current(name: str) -> None:
    written = (generate.FOLDER / name).read_text(encoding="utf-8")
    assert written == generate.FILES[name](), "run `make reference`"


def test_every_page_is_generated() -> None:
    pages = {path.name for path in generate.FOLDER.iterdir() if path.read_bytes().startswith(b"<!-- Written by")}
    assert pages == {name for name in generate.FILES if name.endswith(".md")}


def test_every_environment_variable_is_described() -> None:
    described = {name for group in VARIABLES.values() for name in group}
    settings = {f"DOTEVAL_{name.upper()}" for name in Settings.model_fields}
    templates = ROOT / "doteval" / "project_templates"
    files = [path for path in (ROOT / "doteval").rglob("*.py") if not path.is_relative_to(templates)]
    # PYTHONPATH is passed on, with a directory added.
    read = {name for path in files for name in variables_read(path)} - {"PYTHONPATH"}
    assert "DOTEVAL_DEBUG" in read
    assert read <= described | settings


def variables_read(path: Path) -> Iterator[str]:
    """Names of doteval's own variables anywhere in a file, and of others where the environment is asked for them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Constant(value=str(text)) if text.removeprefix("_").startswith("DOTEVAL_") and text.isupper():
                if text != "DOTEVAL_":
                    yield text
            case ast.Call(func=ast.Attribute(attr="get" | "getenv"), args=[ast.Constant(value=str(text)), *_]):
                if "environ" in ast.unparse(node.func) or node.func.attr == "getenv":  # type: ignore[attr-defined]
                    yield text
            case ast.Subscript(value=value, slice=ast.Constant(value=str(text)), ctx=ast.Load()):
                if ast.unparse(value).endswith("environ"):
                    yield text


def test_examples_of_the_generator_give_what_they_say() -> None:
    assert doctest.testmod(markdown).failed == 0
    assert doctest.testmod(markdown).attempted > 1


def test_what_has_no_docstring_is_an_error() -> None:
    def silent() -> None: ...

    with pytest.raises(markdown.MissingTextError, match="silent has no docstring"):
        markdown.documented("silent", silent)
