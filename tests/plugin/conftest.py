"""pytest on files of evaluations, each time in a process of its own."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable

import pytest

from doteval.core.results import Record
from doteval.store import Store
from tests.support.commands import Commands

Evaluate = Callable[..., pytest.RunResult]
Records = Callable[..., list[Record]]

# Plugins that most tests do not need; importing them takes a second.
ALONE = tuple(
    argument
    for name in ("hypothesispytest", "asyncio", "anyio", "xdist", "xdist.looponfail")
    for argument in ("-p", f"no:{name}")
)


@pytest.fixture
def run_pytest(pytester: pytest.Pytester, commands: Commands) -> Evaluate:
    """Run pytest like `pytester.runpytest_subprocess`, but without half of the plugins and in half of the time."""

    def run(*arguments: str, timeout: float = 180, plugins: tuple[str, ...] = ALONE) -> pytest.RunResult:
        temporary = tempfile.mkdtemp(prefix="runpytest-", dir=pytester.path)
        paths = (str(pytester.path), os.environ.get("PYTHONPATH"))
        begun = time.monotonic()
        done = commands.run(
            "pytest",
            [f"--basetemp={temporary}", *plugins, *arguments],
            directory=pytester.path,
            # Wide enough that the section of doteval is a table.
            environment={**os.environ, "COLUMNS": "160", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            timeout=timeout,
        )
        took = time.monotonic() - begun
        # For the report of a test that fails.
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), took)

    return run


@pytest.fixture
def evaluate(pytester: pytest.Pytester, run_pytest: Evaluate) -> Evaluate:
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
        return run_pytest(name, *given, *arguments, plugins=plugins)

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
    """How often pytest printed a word as a whole word."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", result.stdout.str()))


_HEADER = """
import asyncio
import pytest
from doteval import Result, Score, foreach, batch
from doteval.evaluators import exact_match
"""
