"""Embeds a pytest session in another program: a submitter collects in it, a worker process runs rows in it."""

from __future__ import annotations

import faulthandler
import gc
import importlib.metadata
import io
import itertools
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from doteval.core.error_leaves import for_logs, in_one_line
from doteval.core.wording import counted
from doteval.errors import DotEvalError, EvaluationFileError, NothingRanError
from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.items import EvaluationItem

# The packages that call hooks, and do not implement any that a user could leave out.
_PYTEST = ("pluggy", "pytest", "_pytest")
_PACKAGE = Path(__file__).parents[1]
_NOT_COLLECTED = "troubleshooting#evaluation-not-found"


@dataclass(frozen=True)
class Collected:
    """The evaluations that pytest has collected, and its root directory, which their paths are relative to.

    skipped: a line for people for each file that skips itself as a whole, as with `pytest.importorskip`
    """

    items: list[EvaluationItem]
    root: Path
    config: pytest.Config
    skipped: tuple[str, ...] = ()


def with_collected(
    paths: Sequence[str],
    body: Callable[[Collected], None],
    *,
    keyword: str | None = None,
    root: str | None = None,
    plugins: Sequence[object] = (),
) -> None:
    """Collect evaluations below `paths` (files, directories, ``file::node``) and call `body` with them.

    The pytest session lasts as long as `body`; its fixtures are torn down afterwards. A process can do this only once,
    since a second collection loses the fixtures of conftest files.

    `keyword`: pytest's -k. `root`: pytest's root directory; None leaves it to pytest.

    Raises what `body` raises, EvaluationFileError if a path does not exist, a file cannot be collected, or there is no
    evaluation, and NothingRanError if all files skip themselves.
    """
    for path in paths:
        file = Path(path.partition("::")[0])
        if not file.exists():
            raise EvaluationFileError(
                f"no such file or directory: {file}",
                remedy="Check the path; it is relative to the current directory.",
                page=_NOT_COLLECTED,
            )
    embedded = EmbeddedPytest(paths, body, keyword)
    arguments = [*paths, "--capture=no", "-p", "no:cacheprovider"]
    # Plugins' warnings about their settings belong to `pytest`; every worker process would repeat them. And plugins
    # that are imported already are no error, even if the user's settings make warnings errors: doteval itself is a
    # plugin, and the fork server imports the others before it forks.
    for category in ("PytestDeprecationWarning", "PytestAssertRewriteWarning"):
        arguments += ["-W", f"ignore::pytest.{category}"]
    if keyword:
        arguments += ["-k", keyword]
    if root is not None:
        arguments.append(f"--rootdir={root}")
    code: int | pytest.ExitCode = pytest.ExitCode.INTERNAL_ERROR
    try:
        code = pytest.main(arguments, plugins=[embedded, *plugins])
    except Exception as error:
        # Plugins may raise before pytest is there to report it.
        if embedded.called:
            raise
        embedded.start_error = embedded.start_error or error
    if embedded.raised is not None:
        raise embedded.raised
    if not embedded.called:
        if embedded.start_error is not None:
            whose = _whose(embedded.start_error)
            raise EvaluationFileError(
                f"{whose} raised while pytest started: {in_one_line(embedded.start_error)}",
                remedy="Correct it, or leave the plugin out with addopts = -p no:NAME; `pytest --collect-only` shows "
                "the whole traceback.",
                logged=f"{whose} raised while pytest started: {for_logs(embedded.start_error)}",
                page="troubleshooting#plugin-fails",
            ) from embedded.start_error
        raise EvaluationFileError(
            f"pytest could not collect {' '.join(paths)} (exit code {int(code)})",
            remedy=embedded.output() or "Run pytest --collect-only on it to see why.",
            logged=f"pytest could not collect {' '.join(paths)} (exit code {int(code)})",
        )


def is_embedded(config: pytest.Config) -> bool:
    """Whether this pytest session was started by `with_collected`, and not by a user's command line."""
    return any(isinstance(plugin, EmbeddedPytest) for plugin in config.pluginmanager.get_plugins())


class EmbeddedPytest:
    """A plugin that replaces pytest's loop over tests and captures what pytest prints."""

    def __init__(self, paths: Sequence[str], body: Callable[[Collected], None], keyword: str | None = None) -> None:
        self._paths = paths
        self._body = body
        self._keyword = keyword
        self._failed: list[pytest.CollectReport] = []
        # By node: the exception because of which it cannot be collected.
        self._causes: dict[str, BaseException] = {}
        self._deselected = 0
        self._skipped: list[str] = []
        self._terminal = io.StringIO()
        self.raised: BaseException | None = None
        self.called = False
        # What a plugin raised before anything was collected.
        self.start_error: BaseException | None = None

    def output(self) -> str:
        """The last lines that pytest has printed."""
        return "\n".join(self._terminal.getvalue().splitlines()[-20:])

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        # The user's addopts may start pytest-xdist; this runs before it reads the option.
        if hasattr(config.option, "numprocesses"):
            config.option.numprocesses = 0
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        # -p no:terminal would make pytest refuse options such as -q in the user's addopts.
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(pytest.TerminalReporter(config, self._terminal), "terminalreporter")
        if faulthandler.is_enabled() and sys.__stderr__ is not None:
            # pytest prints the stacks of all threads when a process crashes in C code; only one of them is the user's.
            faulthandler.enable(sys.__stderr__, all_threads=False)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._deselected += sum(isinstance(item, EvaluationItem) for item in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Generator[None, Any, Any]:
        try:
            return (yield)
        except pytest.UsageError as error:
            # A name that is not found in a file which cannot be imported: the import error is the reason.
            self.raised = self._failure() or EvaluationFileError(
                str(error).splitlines()[0],
                remedy="List the evaluations with: pytest --collect-only FILE",
                page=_NOT_COLLECTED,
            )
            # pytest would print a UsageError.
            raise pytest.exit.Exception("the evaluations cannot be collected") from error

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # pytest.exit comes here too, with an exception of its own.
        if self.raised is None and isinstance(excinfo.value, KeyboardInterrupt):
            self.raised = excinfo.value

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        """Keep an error of the start, which pytest then does not print."""
        self.start_error = self.start_error or excinfo.value
        return not self.called

    def pytest_exception_interact(self, node: pytest.Collector, call: pytest.CallInfo[object]) -> None:
        if call.excinfo is not None:
            # pytest raises an error of its own from an ImportError.
            self._causes[node.nodeid] = call.excinfo.value.__cause__ or call.excinfo.value

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed.append(report)
        elif report.skipped:
            self._skipped.append(f"{report.nodeid} was skipped: {internals.skip_text(report)}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.called = True
        # All objects so far stay, so the garbage collector need not visit them again.
        gc.freeze()
        try:
            self._check(session)
            items = [item for item in session.items if isinstance(item, EvaluationItem)]
            self._body(Collected(items, session.config.rootpath, session.config, tuple(self._skipped)))
        except BaseException as error:  # noqa: BLE001 - pytest would print it; `with_collected` raises it again
            self.raised = error
        # pytest collects garbage twice before it ends, which would visit all of them.
        gc.freeze()
        return True

    def _check(self, session: pytest.Session) -> None:
        failure = self._failure()
        if failure is not None:
            raise failure
        if any(isinstance(item, EvaluationItem) for item in session.items):
            return
        if self._skipped and not session.items:
            raise NothingRanError("; ".join(self._skipped), remedy="Nothing ran, since no file has other evaluations.")
        where = ", ".join(self._paths)
        if self._deselected and self._keyword:
            raise EvaluationFileError(
                f"none of {counted(self._deselected, 'evaluation')} in {where} matches -k {self._keyword!r}",
                remedy=f"List them with: pytest --collect-only {where}",
                page=_NOT_COLLECTED,
            )
        raise EvaluationFileError(
            f"no evaluation in {where}",
            remedy='An evaluation is a function named eval_* below @foreach("columns", dataset), in a '
            "file named eval_*.py.",
            page=_NOT_COLLECTED,
        )

    def _failure(self) -> EvaluationFileError | None:
        """The error of the first file that could not be collected."""
        if not self._failed:
            return None
        report = self._failed[0]
        what = f"{report.nodeid or self._paths[0]} cannot be collected"
        cause = self._causes.get(report.nodeid)
        logged = f"{what}: {'an error' if cause is None else type(cause).__qualname__}"
        if isinstance(cause, DotEvalError):
            # It says what to do; the place in doteval that raised it does not help the user.
            where = _own_line(cause)
            message = f"{what}: {cause.message}" if where is None else f"{what}:\n  {where}: {cause.message}"
            return EvaluationFileError(message, remedy=cause.remedy, logged=logged, page=cause.page)
        return EvaluationFileError(
            f"{what}:\n{_reason(report)}",
            remedy="Correct the file; `pytest --collect-only` shows the whole traceback.",
            logged=logged,
            page="troubleshooting#file-not-imported",
        )


def _own_line(error: BaseException) -> str | None:
    """The file and line of the user's code that raised an error through doteval."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if Path(frame.filename).is_file() and not Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else None


def _reason(report: pytest.CollectReport) -> str:
    """The end of the traceback: the file and line, and what went wrong there."""
    lines = [line for line in report.longreprtext.splitlines() if line.strip()]
    if "Traceback:" in lines:
        # Before it pytest says that it imported a test module; behind it are the frames of importlib.
        lines = lines[lines.index("Traceback:") + 1 :]
        frames = [number for number, line in enumerate(lines) if not line.startswith((" ", "E "))]
        lines = lines[next((number for number in frames if "importlib/__init__.py:" not in lines[number]), 0) :]
    return "\n".join(f"  {line}" for line in lines[-12:])


def _whose(error: BaseException) -> str:
    """The plugin or conftest.py that raised an error in a hook, or else the code that did, with its line."""
    frames = [
        (frame.f_globals.get("__name__", ""), frame, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    called = [
        place
        for caller, place in itertools.pairwise(frames)
        if caller[0].startswith("pluggy.") and place[0].partition(".")[0] not in _PYTEST
    ]
    module, frame, line = (called or frames)[-1]
    where = f"{frame.f_code.co_filename}:{line}"
    if Path(frame.f_code.co_filename).name == "conftest.py":
        return where
    root = module.partition(".")[0]
    distribution = importlib.metadata.packages_distributions().get(root, [root])[0]
    return f"the plugin {distribution} ({where})"
