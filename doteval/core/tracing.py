"""The seams of tracing: what the runner and the clients ask of the spans of rows and of model calls.

`doteval.tracing` has the spans. Where nothing is traced there are none, and OpenTelemetry is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from doteval.core.results import Outcome, Row

Attributes = Mapping[str, str | bool | int | float | Sequence[str]]


class CallSpan(Protocol):
    """The span of one model call."""

    def current(self) -> AbstractContextManager[None]:
        """Make it the parent of spans that begin inside the block."""

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """The call has ended. error: the kind of its error, None without one."""

    def end_later(self, attributes: Attributes, error: str) -> None:
        """The garbage collector has ended the call. It takes no lock."""


class RowSpan(Protocol):
    """The span of the rows of one call of an eval function. has_content: whether prompts and replies are wanted."""

    has_content: bool

    def current(self) -> AbstractContextManager[None]:
        """Make it the parent of spans that begin inside the block."""

    def begin_call(self, name: str, attributes: Attributes) -> CallSpan | None:
        """A model call begins. Returns None if the trace is not recorded."""

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """The rows have ended; without outcomes they stay pending."""


class RowTracer(Protocol):
    """Begins the spans of the rows of an evaluation."""

    def begin(self, rows: Sequence[Row]) -> RowSpan:
        """A call of the eval function with these rows is about to be prepared."""
