"""Evaluators: each judges one row and returns a `Score`.

The decorator `evaluator` makes one of a function. Installed packages add evaluators under the entry point group
``doteval.evaluators``; they are imported from here like the built-in ones, with ``from doteval.evaluators import
NAME``. May import `doteval.metrics`, `doteval.core` and `doteval.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doteval.core.judging import judging
from doteval.evaluators.decorator import available, evaluator, find, plugins, register
from doteval.evaluators.embeddings import embedding_similarity
from doteval.evaluators.function_calls import ast_evaluation
from doteval.evaluators.json_text import json_match, valid_json
from doteval.evaluators.judge import llm_judge, llm_rubric
from doteval.evaluators.numeric import close_to, numeric_match
from doteval.evaluators.reference_texts import chrf, rouge, sentence_bleu
from doteval.evaluators.several_judges import judge_panel, llm_pairwise
from doteval.evaluators.text import choice_match, contains, exact_match, regex_match

_BUILT_IN = (
    ast_evaluation,
    choice_match,
    chrf,
    close_to,
    contains,
    embedding_similarity,
    exact_match,
    json_match,
    judge_panel,
    llm_judge,
    llm_pairwise,
    llm_rubric,
    numeric_match,
    regex_match,
    rouge,
    sentence_bleu,
    valid_json,
)

for _built_in in _BUILT_IN:
    register(_built_in.__name__, _built_in)

__all__ = [
    "ast_evaluation",
    "available",
    "choice_match",
    "chrf",
    "close_to",
    "contains",
    "embedding_similarity",
    "evaluator",
    "exact_match",
    "find",
    "json_match",
    "judge_panel",
    "judging",
    "llm_judge",
    "llm_pairwise",
    "llm_rubric",
    "numeric_match",
    "regex_match",
    "register",
    "rouge",
    "sentence_bleu",
    "valid_json",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        if not name.startswith("_") and name in plugins:
            return find(name)
        raise AttributeError(f"module {__name__!r} has no evaluator {name!r}; there are: {', '.join(available())}")

    def __dir__():
        return sorted({*__all__, *available()})
