"""pytest on files of evaluations, each time in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from doteval.results import Record
from doteval.store import Store

Evaluate = Callable[..., pytest.RunResult]


@pytest.fixture
def evaluate(pytester: pytest.Pytester) -> Evaluate:
    """Write ``eval_it.py`` and run pytest on it, keeping results under the experiment "x"."""

    def run(source: str, *arguments: str, name: str = "eval_it.py") -> pytest.RunResult:
        pytester.path.joinpath(name).write_text(_HEADER + source, encoding="utf-8")
        return pytester.runpytest_subprocess(
            name, "--experiment", "x", "-s", "-p", "no:cacheprovider", *arguments, timeout=60
        )

    return run


@pytest.fixture
def records(pytester: pytest.Pytester) -> Callable[..., list[Record]]:
    """The stored records of an evaluation of the experiment "x"."""

    def read(evaluation: str) -> list[Record]:
        store = Store.open(str(pytester.path / ".doteval" / "doteval.db"), create=False)
        try:
            experiment = store.experiments.find("x")
            found = [each for each in store.evaluations.of(experiment) if each.name == evaluation]
            return list(store.results.records(found[0].id))
        finally:
            store.close()

    return read


def count(result: pytest.RunResult, word: str) -> int:
    """How often a word was printed, as a word of its own."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", result.stdout.str()))


_HEADER = """
import asyncio
import pytest
from doteval import Result, Score, foreach, batch
from doteval.evaluators import exact_match
"""
