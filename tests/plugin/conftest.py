"""pytest on files of evaluations, each time in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from doteval.results import Record
from doteval.store import Store

Evaluate = Callable[..., pytest.RunResult]
Records = Callable[..., list[Record]]

# Plugins that most tests have no use for, and that take a second to import.
ALONE = tuple(
    argument
    for name in ("hypothesispytest", "asyncio", "anyio", "xdist", "xdist.looponfail")
    for argument in ("-p", f"no:{name}")
)


@pytest.fixture
def evaluate(pytester: pytest.Pytester) -> Evaluate:
    """Write ``eval_it.py`` and run pytest on it, keeping results under the experiment "x".

    Without a source, the file is left as it is. `plain` leaves out -s and the experiment's name.
    """

    def run(
        source: str | None = None,
        *arguments: str,
        name: str = "eval_it.py",
        plain: bool = False,
        plugins: tuple[str, ...] = ALONE,
    ) -> pytest.RunResult:
        if source is not None:
            pytester.path.joinpath(name).write_text(_HEADER + source, encoding="utf-8")
        given = () if plain else ("--experiment", "x", "-s", "-p", "no:cacheprovider")
        return pytester.runpytest_subprocess(name, *given, *plugins, *arguments, timeout=60)

    return run


@pytest.fixture
def records(pytester: pytest.Pytester) -> Records:
    """The stored records of an evaluation, of the experiment "x" unless another is named."""

    def read(evaluation: str, experiment: str = "x") -> list[Record]:
        store = Store.open(str(pytester.path / ".doteval" / "doteval.db"), create=False)
        try:
            evaluations = store.evaluations.of(store.experiments.find(experiment))
            found = [each for each in evaluations if each.name == evaluation]
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
