"""pytest's run protocol around an evaluation whose rows come and go while it is set up.

pytest runs an item within one call: the hook `pytest_runtest_protocol`, around set-up, call and teardown. In a worker
process the teardown comes when another evaluation arrives, long after the set-up has returned. So the wrappers of the
hook are entered before the set-up and left after the teardown here. Plugins prepare there what they use later.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import warnings
from collections.abc import Callable, Generator
from typing import Any, Literal, TextIO

import pluggy
import pytest

from doteval.pytest_runtime import pytest_internals as internals

logger = logging.getLogger("doteval.pytest_runtime")


class RunProtocol:
    """The run protocol of one evaluation. All methods belong to the thread that sets up fixtures."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        # Each with whether it is of pluggy's old kind.
        self._wrappers: list[tuple[Generator[None, Any, Any], bool]] = []
        self._has_begun = False
        self._show_warning = warnings.showwarning

    def set_up(self) -> None:
        """Set the evaluation up. `tear_down` must be called in any case.

        Raises what a fixture, a mark or a plugin raises.
        """
        item = self._item
        # pytest names the next item here, which nobody knows yet. There will be one: None would mean the end.
        given = {"item": item, "nextitem": item}
        for hook in reversed(item.ihook.pytest_runtest_protocol.get_hookimpls()):
            if hook.wrapper or hook.hookwrapper:
                wrapper: Any = hook.function(*(given[name] for name in hook.argnames))
                next(wrapper)
                self._wrappers.append((wrapper, hook.hookwrapper))
        self._has_begun = True
        # pytest's own wrapper keeps warnings until the item ends, which would be all those of all rows.
        warnings.showwarning = _once(self._show_warning)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self._phase("setup", lambda: item.ihook.pytest_runtest_setup(item=item))
        self._stop_timers()

    def tear_down(self, following: pytest.Item | None) -> None:
        """Tear down what the following evaluation does not share. Raises what a fixture or a plugin raises."""
        item = self._item
        try:
            if self._has_begun:
                self._phase("teardown", lambda: item.ihook.pytest_runtest_teardown(item=item, nextitem=following))
                item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            else:
                # A wrapper raised, so that no plugin has prepared for a teardown.
                internals.tear_down_silently(item, following)
        finally:
            while self._wrappers:
                self._leave(*self._wrappers.pop())
            warnings.showwarning = self._show_warning

    def _phase(self, when: Literal["setup", "teardown"], hook: Callable[[], object]) -> None:
        """Call a hook as pytest does, and have plugins report it."""
        ihook = self._item.ihook
        call = pytest.CallInfo.from_call(hook, when, reraise=(pytest.exit.Exception, KeyboardInterrupt))
        report = ihook.pytest_runtest_makereport(item=self._item, call=call)
        ihook.pytest_runtest_logreport(report=report)
        if call.excinfo is not None:
            raise call.excinfo.value

    def _stop_timers(self) -> None:
        """Stop timers of plugins that limit one test: they would go off while this process waits for rows."""
        faulthandler.cancel_dump_traceback_later()
        # A hook of pytest-timeout.
        cancel = getattr(self._item.ihook, "pytest_timeout_cancel_timer", None)
        if cancel is not None:
            cancel(item=self._item)

    @staticmethod
    def _leave(wrapper: Generator[None, Any, Any], is_old: bool) -> None:
        try:
            wrapper.send(pluggy.Result.from_call(lambda: True) if is_old else True)
        except StopIteration:
            return
        except Exception:
            # The other wrappers are left all the same.
            logger.exception("a plugin raised at the end of an evaluation")


def _once(show: Callable[..., None]) -> Callable[..., None]:
    """A function that shows a warning when a line gives it for the first time, whatever the filters say."""
    shown = set()
    # While warnings are kept, Python's own function would keep them too.
    if show.__module__ == "warnings":
        show = _print

    def show_once(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if (category, filename, lineno) not in shown:
            shown.add((category, filename, lineno))
            show(message, category, filename, lineno, file, line)

    return show_once


def _print(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None, line: str | None
) -> None:
    (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))
