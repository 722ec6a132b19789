"""`run`: evaluate from a script or a notebook, without pytest and without a broker."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any, overload

from doteval.coordination.provenance import CommandOrigin, record_command
from doteval.core.call_journal import JournalMode
from doteval.core.experiments import Counts, Evaluation, EvaluationSpec, ephemeral_name
from doteval.core.reducer_names import ReducerName
from doteval.core.results import Record
from doteval.core.run_config import RunConfig, RunTarget
from doteval.core.wording import plain
from doteval.errors import ChangedError, UsageError
from doteval.foreach import ForEachSpec, spec_of
from doteval.local.evaluation import LocalEvaluation, LocalReport
from doteval.local.load import Answer, StoredTable
from doteval.local.options import LocalOptions
from doteval.local.progress import Screen, is_terminal
from doteval.local.results_summary import ResultsSummary
from doteval.local.store_session import StoreSession
from doteval.runner.assignments import PreparedCall, RowFixtures
from doteval.runner.event_loop import LoopThread
from doteval.settings import load_settings
from doteval.store import Store
from doteval.tracing.commands import command_span

# The path of functions that are in no file: typed in, or in a cell of a notebook.
INTERACTIVE = "(interactive)"


def run(
    eval_fn: Callable[..., Any],
    experiment: str | None = None,
    samples: int | None = None,
    storage: str | None = None,
    *,
    concurrency: int | None = None,
    epochs: int = 1,
    reducer: str | None = None,
    retries: int = RunConfig().max_retries,
    row_timeout: float | None = None,
    journal: str = "full",
    replay: bool = False,
    allow_changed: bool = False,
    **fixtures: Any,
) -> RunResults:
    """Evaluate a function decorated with `@foreach` or `@batch` in this process.

    ::

        results = run(eval_math, model=my_model)
        results.summary()["exact_match"]["accuracy"]

    fixtures: the values of the parameters that no column fills; pytest's fixtures and `parametrize` play no part
    experiment: a second call with the same name continues where the first one stopped; None makes a new name
    samples: the first rows only
    storage: where results are kept (default ``.doteval/doteval.db``)
    concurrency: rows in flight
    epochs: how often every row runs
    reducer: what reduces the samples of a row to one score: ``mean``, ``mode``, ... (`doteval.metrics.reducers`)
    retries: further attempts after connection errors
    row_timeout: seconds that a row may take
    journal: what is stored of model calls: ``full`` for requests and replies, ``usage``, or ``off``
    replay: rows that failed replay the calls that they have made, and ask only new ones
    allow_changed: go on although the function or the dataset has changed

    Returns when all rows have completed; errors of rows are results. In a notebook too, where an event loop is running
    already, async functions run on a loop of their own in a thread. Clients that are bound to the notebook's loop (used
    in an ``await`` before) must be made anew for them.

    Raises UsageError: when the function is no evaluation, `fixtures` are not its parameters, or a reducer or a mode of
        the journal does not exist
    Raises DatasetError or UnstorableValueError: when the dataset cannot be read or stored
    Raises ChangedError: when the function or the dataset has changed since the experiment began
    Raises StoreError: when the store cannot be used

    >>> from tempfile import mkdtemp
    >>> from doteval import foreach
    >>> from doteval.evaluators import exact_match
    >>> @foreach("word,capitals", [("yes", "YES"), ("no", "NO")])
    ... def eval_capitals(word, capitals, model):
    ...     return exact_match(model(word), capitals)
    >>> results = run(eval_capitals, storage=f"{mkdtemp()}/results.db", model=str.upper)
    >>> results.summary()["exact_match"]["accuracy"], results[0].row.values["word"]
    (1.0, 'yes')
    """
    evaluation = _Plain(eval_fn, fixtures)
    settings = load_settings(storage=storage, concurrency=concurrency)
    name = experiment or ephemeral_name()
    target = RunTarget(
        experiment=name,
        storage=evaluation.spec.storage or settings.storage,
        samples=_positive("samples", samples),
        epochs=_positive("epochs", epochs) or 1,
        allow_changed=allow_changed,
    )
    config = RunConfig(
        max_retries=retries,
        row_timeout=row_timeout,
        journal=_journal_mode(journal),
        replay=replay,
        batch_size=evaluation.spec.batch_size,
        reducer=None if reducer is None else str(ReducerName.parse(reducer)),
    )
    options = LocalOptions(
        target,
        config,
        concurrency=settings.concurrency,
        client_config=settings.client_config(),
        drain_seconds=settings.drain_timeout,
    )
    tracing = options.client_config.tracing
    session = StoreSession(target.storage, name, service="run")
    record_command(session.store, session.experiment, CommandOrigin(sys.argv, _folder(eval_fn)))
    loop = LoopThread()
    try:
        with command_span("run", name, tracing) as traceparent:
            report = LocalEvaluation(
                session,
                evaluation,
                _specify(eval_fn, evaluation.spec, replace(config, traceparent=traceparent)),
                evaluation,
                loop=loop,
                options=options,
                on_message=lambda line: print(plain(line), file=sys.stderr),  # noqa: T201
                screen=Screen(sys.stderr) if is_terminal(sys.stderr) else None,
            ).run(_folder(eval_fn))
    except ChangedError as error:
        # The remedy names an option of commands.
        remedy = (error.remedy or "").replace("--allow-changed", "allow_changed=True")
        raise ChangedError(error.message, remedy=remedy) from None
    finally:
        loop.close()
        session.close()
    return RunResults(report, session.store.raw_url)


class RunResults(StoredTable, Sequence[Record]):
    """The results of `run`: a sequence of the rows' records, in the order of the dataset, and their summary.

    ``for record in results``, ``results[0]``, ``len(results)``, ``results.to_pandas()``. Records are read from the
    store when they are first used.
    """

    def __init__(self, report: LocalReport, storage: str) -> None:
        self._report = report
        self._storage = storage

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return self._report.evaluation.experiment.name

    @property
    def evaluation(self) -> str:
        """The name of the evaluation."""
        return self._report.evaluation.name

    @property
    def counts(self) -> Counts:
        """How many rows are done, failed, skipped and pending."""
        return self._report.evaluation.counts

    @functools.cached_property
    def records(self) -> list[Record]:
        """All results with their rows."""
        with Store.open(self._storage, create=False) as store:
            return list(store.results.records(self._report.evaluation.id))

    def summary(self) -> ResultsSummary:
        """The metrics of the scores: ``summary["exact_match"]["accuracy"]`` is a number."""
        return ResultsSummary(self._report.summary, self._report.evaluation.dataset_notes)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Results of {self.evaluation} in {self.experiment!r}: {self.summary()!r}>"

    def _title(self) -> str:
        return f"Results of {self.evaluation} in {self.experiment!r}"

    def _read(self, use: Callable[[Store, list[Evaluation]], Answer]) -> Answer:
        with Store.open(self._storage, create=False) as store:
            return use(store, [self._report.evaluation])


class _Plain:
    """An evaluation without pytest: the function, called with the fixtures that the caller gave.

    It is a `Runnable` and, since nothing is to be set up, its own `EvaluationFixtures`.
    """

    def __init__(self, function: Callable[..., Any], fixtures: Mapping[str, Any]) -> None:
        spec = spec_of(function)
        if spec is None:
            raise UsageError(
                f"{getattr(function, '__name__', function)!s} is not an evaluation",
                remedy='Decorate it: @foreach("columns", dataset).',
            )
        parameters = list(inspect.signature(function).parameters.values())
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
        known = [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
        missing = [each.name for each in known if each.default is each.empty and each.name not in fixtures]
        unknown = [] if takes_any else [name for name in fixtures if name not in {each.name for each in known}]
        if missing or unknown:
            what = [f"needs {', '.join(missing)}"] if missing else []
            what += [f"has no parameter {', '.join(unknown)}"] if unknown else []
            raise UsageError(
                f"{function.__name__} {' and '.join(what)}",
                remedy="Give its fixtures by name: run(eval_fn, model=my_model).",
            )
        self.spec: ForEachSpec = spec
        self.is_async = inspect.iscoroutinefunction(function)
        self.item = self
        self.shared_call = PreparedCall(function, dict(fixtures))

    def exclusive_fixture_names(self) -> list[str]:
        return []

    def enter(self, item: Any) -> None:
        """Nothing is to be set up."""

    def take_context(self) -> RowFixtures:
        raise AssertionError("all rows share one call")

    def release_context(self, context: Any) -> None:  # noqa: ARG002
        raise AssertionError("all rows share one call")


def _specify(function: Callable[..., Any], spec: ForEachSpec, config: RunConfig) -> EvaluationSpec:
    file = _file(function)
    return EvaluationSpec(
        path=INTERACTIVE if file is None else _relative(file).as_posix(),
        name=function.__qualname__.replace(".<locals>", "").replace(".", "::"),
        columns=spec.columns,
        # Of the function, not of its file: cells of a notebook have none, and scripts hold much else.
        fingerprint={function.__qualname__: _hash(function)},
        config=config,
    )


def _hash(function: Callable[..., Any]) -> str:
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        # Typed into an interpreter that keeps no source.
        text = _described(getattr(function, "__code__", None))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _described(code: CodeType | None) -> str:
    if code is None:
        return ""
    constants = [_described(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _file(function: Callable[..., Any]) -> Path | None:
    code = getattr(function, "__code__", None)
    path = Path(code.co_filename) if code is not None else None
    return path if path is not None and path.is_file() else None


def _folder(function: Callable[..., Any]) -> Path:
    """The directory that paths of datasets are relative to: that of the file, or the current one."""
    file = _file(function)
    return Path.cwd() if file is None else file.parent


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _journal_mode(word: str) -> JournalMode:
    try:
        return JournalMode(word)
    except ValueError:
        raise UsageError(f"journal is {word!r}", remedy=f"Give one of {', '.join(JournalMode)}.") from None


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}")
    return value
