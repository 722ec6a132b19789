"""The page about troubleshooting: each section is provoked by a test, and errors lead to sections that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generate.commands import commands
from doteval.cli.manual import find_page, find_section
from doteval.errors import DotEvalError
from tests.support.troubleshooting import PAGE, assert_shown, sections

ROOT = Path(__file__).parents[2]


def provoked() -> Iterator[str]:
    """The anchors that tests compare with what they have provoked."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        source = path.read_text(encoding="utf-8")
        if "assert_shown" in source and path != Path(__file__):
            for node in ast.walk(ast.parse(source)):
                # `Symptom` is a line in the table of a parametrized test.
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {"assert_shown", "Symptom"}:
                    section = node.args[0]
                    if isinstance(section, ast.Constant):
                        yield str(section.value)


def test_every_section_is_provoked_by_a_test() -> None:
    assert len(sections()) >= 25
    assert set(provoked()) == set(sections())


def test_every_section_has_an_excerpt_and_a_line_in_the_index() -> None:
    index = PAGE.read_text(encoding="utf-8").partition("## Before rows run")[0]
    assert re.findall(r"\]\(#([\w-]+)\) \|$", index, re.MULTILINE) == list(sections())
    assert [anchor for anchor, excerpts in sections().items() if not excerpts] == []


@pytest.mark.parametrize("anchor", sections())
def test_every_section_says_where_to_look_what_it_means_and_what_to_do(anchor: str) -> None:
    text = find_section(find_page("troubleshooting"), anchor).text
    assert re.findall(r"^- \*\*(\w+):\*\* ", text, re.MULTILINE) == ["Look", "Meaning", "Fix"]
    for name, rest in re.findall(r"`doteval ((?:db )?[a-z][a-z-]*)([^`]*)`", text):
        options = {text for param in commands()[name].params for text in param.opts} if name != "docs" else set()
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) <= options, f"{name}{rest}"


def test_errors_lead_to_sections_that_exist() -> None:
    named = {
        found
        for path in (ROOT / "doteval").rglob("*.py")
        for found in re.findall(r'"([a-z][\w/-]*#[a-z][\w-]*)"', path.read_text(encoding="utf-8"))
    }
    assert len(named) > 25
    for page in named:
        name, _, anchor = page.partition("#")
        find_section(find_page(name), anchor)


def test_what_a_section_does_not_show_is_noticed() -> None:
    error = DotEvalError("nothing of this is on the page")
    with pytest.raises(AssertionError, match="printed was"):
        assert_shown("missing-column", error)
    with pytest.raises(AssertionError, match="no section 'no-such-section'"):
        assert_shown("no-such-section", error)
