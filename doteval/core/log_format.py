"""Log lines: readable on a terminal, one JSON object a line elsewhere. Ids and counts only.

What an exception says is shown only if it is doteval's own, whose messages hold neither the content of rows
nor secrets. Of others the type and the places are shown; rows that fail keep the rest in the result store.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from doteval.errors import DotEvalError

LogFormat = Literal["auto", "json", "text"]

# The attribute of a log record with its ids: ``logger.info("...", extra={IDS: {"evaluation": uid}})``.
IDS = "doteval_ids"

_TEXT = "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s: %(message)s"
# The password of a URL in whatever a library logs.
_PASSWORD = re.compile(r"(?P<before>\w+://[^\s:/@'\"]*:)[^\s@'\"]+@")


def resolve(chosen: LogFormat, stream: TextIO | None = None) -> Literal["json", "text"]:
    """The format that a choice means: "auto" is text on a terminal, and JSON elsewhere."""
    if chosen != "auto":
        return chosen
    return "text" if (stream or sys.stderr).isatty() else "json"


def handler(log_format: LogFormat) -> logging.Handler:
    """A handler that writes to standard error in a format."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(JsonLines() if resolve(log_format) == "json" else TextLines(_TEXT))
    return made


def line(event: str, *, level: str = "info", ids: Mapping[str, Any] | None = None, logger: str = "doteval") -> str:
    """One event as a JSON line, without its end."""
    return _line(datetime.now(UTC), level, logger, event, dict(ids or {}))


class TextLines(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        return _without_passwords(super().format(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _exception(ei[1])


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, process, event, ids, and of an exception its type and places."""

    def format(self, record: logging.LogRecord) -> str:
        more: dict[str, Any] = {"process": record.process, **getattr(record, IDS, {})}
        if record.exc_info and record.exc_info[1] is not None:
            more["error"] = type(record.exc_info[1]).__name__
            more["traceback"] = _exception(record.exc_info[1])
        time = datetime.fromtimestamp(record.created, UTC)
        return _line(time, record.levelname.lower(), record.name, record.getMessage(), more)


def _line(time: datetime, level: str, logger: str, event: str, more: dict[str, Any]) -> str:
    document = {"time": time.isoformat(timespec="milliseconds"), "level": level, "logger": logger, "event": event}
    # ensure_ascii: also a lone surrogate in a name must get through.
    return _without_passwords(json.dumps({**document, **more}, default=repr, ensure_ascii=True))


def _exception(error: BaseException | None) -> str:
    if error is None:
        return ""
    said = f": {error.message}" if isinstance(error, DotEvalError) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__qualname__}{said}"


def _without_passwords(text: str) -> str:
    return _PASSWORD.sub(r"\g<before>***@", text)
