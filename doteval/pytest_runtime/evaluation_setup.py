"""Sets up the fixtures that the rows of an evaluation share, one evaluation at a time.

What the next evaluation does not share is torn down when that evaluation arrives, and not earlier, because nobody
knows before which one will be next.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.items import EvaluationItem
from doteval.pytest_runtime.row_context import RowContext
from doteval.pytest_runtime.run_protocol import RunProtocol
from doteval.runner.assignments import LoadFailedError, PreparedCall
from doteval.runner.error_classes import ends_command

logger = logging.getLogger("doteval.pytest_runtime")


class EvaluationSetup:
    """Keeps one evaluation set up. All methods belong to the thread that sets up fixtures."""

    def __init__(self) -> None:
        self.item: EvaluationItem | None = None
        # The evaluation that was set up last: `item`, or one whose set-up failed half-way.
        self._last: EvaluationItem | None = None
        # Its run protocol, None if pytest itself has set it up.
        self._protocol: RunProtocol | None = None
        self._lock = threading.RLock()
        self._free: list[RowContext] = []
        self._shared: PreparedCall | None = None

    def adopt(self, item: EvaluationItem) -> None:
        """Take over an evaluation that pytest itself has set up."""
        self.item = self._last = item
        self._free = []
        self._shared = None
        if not item.has_row_fixtures():
            wanted = internals.fixture_info(item).argnames
            self._shared = PreparedCall(item.obj, {name: item.funcargs[name] for name in wanted})

    def enter(self, item: EvaluationItem) -> None:
        """Set up an evaluation as pytest would, and tear down what it does not share with the last one.

        Raises LoadFailedError if a fixture raises or skips, or a mark skips the evaluation.
        """
        if item is self.item:
            return
        try:
            self._leave(item)
        except BaseException as error:
            # The rows that used the fixture are stored, and the next evaluation does not use it.
            if ends_command(error):
                raise
            logger.exception("a fixture that is no longer needed could not be torn down")
        self._last, self._protocol = item, RunProtocol(item)
        try:
            self._protocol.set_up()
        except BaseException as error:
            # The item stays set up in part; the next `enter` or `close` tears it down.
            if ends_command(error):
                raise
            raise LoadFailedError(item, error, internals.raising_fixture(item, error)) from error
        self.adopt(item)

    def close(self) -> None:
        """Tear down everything, session fixtures last. Raises what the teardowns raise."""
        self._leave(None)

    @property
    def shared_call(self) -> PreparedCall | None:
        """What to call for every row, None if each row has fixtures of its own."""
        return self._shared

    def take_context(self) -> RowContext:
        """Get a row context, an unused one if there is any."""
        assert self.item is not None
        return self._free.pop() if self._free else RowContext(self.item, self._lock)

    def release_context(self, context: RowContext) -> None:
        """Hand a row context back, so that another row can use it."""
        if context.item is self.item and context.usable:
            self._free.append(context)

    def _leave(self, following: EvaluationItem | None) -> None:
        last, self._last = self._last, None
        protocol, self._protocol = self._protocol, None
        self.item = None
        self._free, self._shared = [], None
        if protocol is not None:
            protocol.tear_down(following)
        elif last is not None:
            last.ihook.pytest_runtest_teardown(item=last, nextitem=following)


def load_session_fixtures(items: list[EvaluationItem]) -> list[LoadFailedError]:
    """Load the session fixtures of evaluations before any row arrives.

    A parametrized session fixture is loaded with its first parameter. Failures are returned and not raised, since
    other evaluations may still run.
    """
    failures = []
    loaded: set[Any] = set()
    for item in items:
        internals.set_up_session(item.session)
        internals.renew_request(item)
        names = [name for name in session_fixture_names(item) if name not in loaded]
        try:
            item.load(names)
        except BaseException as error:
            if ends_command(error):
                raise
            failures.append(LoadFailedError(item, error, internals.raising_fixture(item, error)))
        loaded.update(names)
    return failures


def fixture_definitions(item: EvaluationItem) -> set[object]:
    """The definitions of all fixtures that an evaluation requests, directly or not."""
    return {each for definitions in internals.fixture_info(item).name2fixturedefs.values() for each in definitions}


def session_fixture_names(item: EvaluationItem) -> list[str]:
    """The session fixtures that an evaluation requests, directly or not."""
    definitions = internals.fixture_info(item).name2fixturedefs
    return [
        name
        for name in item.fixturenames
        if name in definitions
        and all(internals.scope_of(definition, item) is internals.Scope.Session for definition in definitions[name])
    ]
