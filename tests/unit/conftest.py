"""Fixtures of the unit tests: embedded pytest sessions, a dispatcher on its own store, eval functions, the CLI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.core.results import Outcome
from doteval.pytest_runtime.embedded_session import Collected, EmbeddedPytest
from doteval.runner.calls import CallPolicy, call, call_async
from doteval.settings import Settings
from doteval.store import Store
from tests.support.cli import CommandLine, fill
from tests.support.clock import Clock
from tests.support.eval_calls import NEVER, Run
from tests.support.fake_queue import FakeQueue
from tests.support.scheduler_bench import HEADER, Bench

InSession = Callable[..., Any]
OnBench = Callable[..., Any]

# Plugins that these sessions have no use for, and that take time in each.
_WITHOUT = tuple(
    argument
    for name in ("hypothesispytest", "asyncio", "anyio", "xdist", "xdist.looponfail", "cacheprovider")
    for argument in ("-p", f"no:{name}")
)


@pytest.fixture
def in_session(pytester: pytest.Pytester) -> InSession:
    """Collects the files of a dict in a fresh directory, and calls a function inside of that pytest session.

    ``in_session(body, {"eval_it.py": source}, *arguments)`` gives what ``body(collected)`` returns, and
    raises what it raises, or EvaluationFileError if nothing can be collected. The session's fixtures
    are torn down when it returns. Names are free for the next call: modules are forgotten.
    """

    def run(body: Callable[[Collected], Any], files: dict[str, str] | None = None, *arguments: str) -> Any:
        for name, source in (files or {}).items():
            path = pytester.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        returned: list[Any] = []
        embedded = EmbeddedPytest(["."], lambda collected: returned.append(body(collected)))
        pytester.inline_run(*(arguments or ["."]), "--capture=no", *_WITHOUT, plugins=[embedded])
        if embedded.raised is not None:
            raise embedded.raised
        assert embedded.called, embedded.output()
        return returned[0]

    return run


@pytest.fixture
def on_bench(in_session: InSession) -> OnBench:
    """``on_bench(source, body, **settings)`` calls `body` with a `Bench` on the evaluations of a source."""

    def run(source: str, body: Callable[[Bench], Any], **settings: Any) -> Any:
        return in_session(lambda collected: body(Bench(collected, **settings)), {"eval_it.py": HEADER + source})

    return run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite://{tmp_path}/results.db") as store:
        yield store


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher(store: Store, queue: FakeQueue, clock: Clock) -> Dispatcher:
    return Dispatcher(store, queue, DispatchOptions(rows_per_task=10), clock=clock)


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Calls a plain function as an eval function of either kind."""
    if request.param == "sync":
        return lambda function, policy=NEVER, **arguments: call(function, arguments, policy)

    def run_async(function: Callable[..., Any], policy: CallPolicy = NEVER, **arguments: Any) -> Outcome:
        async def eval_function(**values: Any) -> Any:
            await asyncio.sleep(0)
            return function(**values)

        return asyncio.run(call_async(eval_function, arguments, policy))

    return run_async


@pytest.fixture
def doteval_(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.fixture
def without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory, and nothing in the environment that the command line would go by."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DOTEVAL_{name.upper()}", raising=False)
    monkeypatch.delenv("DOTEVAL_DEBUG", raising=False)
    # pytest's own processes may have it, and tables are as wide as it says.
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def results(tmp_path: Path) -> str:
    """The path of a result store with the experiment "alpha"."""
    path = tmp_path / "results.db"
    fill(path)
    return str(path)
