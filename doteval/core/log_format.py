"""Formats log lines: text on a terminal, one JSON object a line elsewhere. They hold ids and counts only.

The message of an exception is logged only if it is one of doteval's own, which hold neither row contents nor secrets.
Of other exceptions the type and the stack are logged; the result store keeps their messages with the failed rows.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from doteval.core import clocks
from doteval.core.error_leaves import for_logs
from doteval.core.redaction import hide_in_text
from doteval.core.wording import plain, plain_json

LogFormat = Literal["auto", "json", "text"]

# The attribute of a log record with its ids: ``logger.info("...", extra={IDS: {"evaluation": uid}})``.
IDS = "doteval_ids"

_TEXT = "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s: %(message)s"
# Characters of a line's event, stack and ids that are logged. A reply, or a message from outside, may be longer.
_MOST_CHARACTERS = 10_000


def resolve(chosen: LogFormat, stream: TextIO | None = None) -> Literal["json", "text"]:
    """The format for a choice: "auto" means text on a terminal and JSON elsewhere."""
    if chosen != "auto":
        return chosen
    return "text" if (stream or sys.stderr).isatty() else "json"


def handler(log_format: LogFormat) -> logging.Handler:
    """A handler that writes to standard error in the given format."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(JsonLines() if resolve(log_format) == "json" else TextLines(_TEXT))
    return made


def line(event: str, *, level: str = "info", ids: Mapping[str, Any] | None = None, logger: str = "doteval") -> str:
    """One event as a JSON line, without the newline."""
    return _line(clocks.utc_now(), level, logger, event, dict(ids or {}))


class TextLines(logging.Formatter):
    """Formats lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(_cut(hide_in_text(super().format(record))))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _exception(ei[1])


class JsonLines(logging.Formatter):
    """Formats one JSON object a line: time, level, logger, process, event, ids, and an exception's type and stack."""

    def format(self, record: logging.LogRecord) -> str:
        more: dict[str, Any] = {"process": record.process, **getattr(record, IDS, {})}
        if record.exc_info and record.exc_info[1] is not None:
            more["error"] = type(record.exc_info[1]).__name__
            more["traceback"] = _exception(record.exc_info[1])
        time = datetime.fromtimestamp(record.created, UTC)
        return _line(time, record.levelname.lower(), record.name, record.getMessage(), more)


def _line(time: datetime, level: str, logger: str, event: str, more: dict[str, Any]) -> str:
    document = {"time": time.isoformat(timespec="milliseconds"), "level": level, "logger": logger, "event": event}
    bounded = {
        name: _cut(hide_in_text(value)) if isinstance(value, str) else value
        for name, value in {**document, **more}.items()
    }
    # ensure_ascii: a lone surrogate in a name would not encode as UTF-8.
    return plain_json(hide_in_text(json.dumps(bounded, default=repr, ensure_ascii=True)))


def _exception(error: BaseException | None) -> str:
    if error is None:
        return ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{for_logs(error)}"


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]}... ({len(text):,} characters)"
