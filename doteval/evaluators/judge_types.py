"""What makers of judges return, for type checkers: the parameters of a judge, and what it answers."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

Answer = TypeVar("Answer", covariant=True)


class JudgeFunction(Protocol[Answer]):
    """What `llm_judge` and `llm_rubric` make: `Answer` is a score or several, to be awaited with an async client."""

    def __call__(
        self, response: str, expected: Any = None, question: Any = None, *, name: str | None = None
    ) -> Answer: ...


class PairwiseFunction(Protocol[Answer]):
    """What `llm_pairwise` makes."""

    def __call__(
        self, response: str, other: str, question: Any = None, expected: Any = None, *, name: str | None = None
    ) -> Answer: ...
