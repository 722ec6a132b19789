"""What a worker process logs of exceptions that libraries put into words."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable

import pytest
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer.consumer import CANCEL_TASKS_BY_DEFAULT
from kombu.transport.virtual.base import W_NO_CONSUMERS

from doteval.core.log_format import TextLines
from doteval.errors import ResourceError
from doteval.worker.log_setup import _not_decided, _not_given_back, _without_exception, _without_objects

SECRET = "hunter" + "2"


def fail(_: object) -> None:
    raise ValueError(SECRET)


def in_callback(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(fail, SECRET)


def in_task(loop: asyncio.AbstractEventLoop) -> None:
    async def forgotten() -> None:
        fail(None)

    # A reference that lasts as long as the task.
    loop.kept = loop.create_task(forgotten())  # type: ignore[attr-defined]
    loop.call_later(0.01, lambda: delattr(loop, "kept"))


def reported(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_exception_handler({"message": "It failed", "exception": ValueError(SECRET), "value": SECRET})


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        (in_callback, "Exception in callback fail"),
        (in_task, "Task exception was never retrieved"),
        (reported, "It failed"),
    ],
)
def test_asyncio_names_no_values(
    caplog: pytest.LogCaptureFixture, cause: Callable[[asyncio.AbstractEventLoop], None], shown: str
) -> None:
    loop = asyncio.new_event_loop()
    cause(loop)
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    (record,) = [record for record in caplog.records if record.name == "asyncio" and record.exc_info]
    assert _without_objects(record)
    record.exc_text = None
    text = TextLines("%(message)s").format(record)
    assert text.startswith(shown)
    assert "ValueError" in text
    assert SECRET not in text


def test_other_lines_of_asyncio_stay() -> None:
    record = logging.LogRecord("asyncio", logging.WARNING, __file__, 1, "Unclosed <%s>", ("session",), None)
    assert _without_objects(record)
    assert record.getMessage() == "Unclosed <session>"


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    g()\n'


@pytest.mark.parametrize(
    ("category", "message", "shown"),
    [
        (
            pytest.PytestUnhandledThreadExceptionWarning,
            f"Exception in thread T\n\n{TRACEBACK}ValueError: {SECRET}\n  {SECRET}\n",
            "Exception in thread T: ValueError",
        ),
        (
            pytest.PytestUnraisableExceptionWarning,
            f"Exception ignored in: <function f>\n\n{TRACEBACK}a.b.Error\n",
            "Exception ignored in: <function f>: a.b.Error",
        ),
        (
            pytest.PytestUnraisableExceptionWarning,
            f"Exception ignored in: <function f>\n\n{TRACEBACK}{SECRET} without a type: x",
            "Exception ignored in: <function f>",
        ),
    ],
)
def test_warnings_of_pytest_name_the_type_only(category: type[Warning], message: str, shown: str) -> None:
    text = _without_exception(warnings.formatwarning)(category(message), category, "x.py", 1, "")
    assert shown in text
    assert SECRET not in text


def test_warnings_of_others_stay() -> None:
    text = _without_exception(warnings.formatwarning)(UserWarning("look: here"), UserWarning, "x.py", 1, "")
    assert "UserWarning: look: here" in text


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError(SECRET), "ValueError"),
        (ResourceError("no model", remedy="get one"), "ResourceError: no model"),
        (ResourceError(f"no model: {SECRET}", logged="no model: OSError"), "ResourceError: no model: OSError"),
        (ExceptionGroup("tasks", [KeyError(SECRET)]), "KeyError"),
    ],
)
def test_stacks_end_with_what_may_be_logged(error: Exception, shown: str) -> None:
    record = logging.LogRecord("mine", logging.ERROR, __file__, 1, "failed", (), (type(error), error, None))
    assert TextLines("%(message)s").format(record) == f"failed\n{shown}"


def test_what_celery_explains_at_each_lost_connection_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("py.warnings")
    logger.addFilter(_not_decided)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            # As Celery does after everything else has been set up.
            warnings.filterwarnings("always", category=CPendingDeprecationWarning)
            warnings.warn(CANCEL_TASKS_BY_DEFAULT, CPendingDeprecationWarning, stacklevel=1)
            warnings.warn("another setting", CPendingDeprecationWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        logger.removeFilter(_not_decided)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "another setting" in line


def test_a_message_that_goes_back_to_its_queue_is_no_warning() -> None:
    """It came while its worker process was leaving, as when no process can load a fixture."""
    assert not _not_given_back(logging.makeLogRecord({"msg": W_NO_CONSUMERS, "args": ("doteval",)}))
    assert _not_given_back(logging.makeLogRecord({"msg": "something else"}))
