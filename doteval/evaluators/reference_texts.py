"""Evaluators that compare a text with reference texts by the figures that papers report: BLEU and chrF of sacrebleu.

They need ``pip install 'doteval[reference]'``. The package takes half a second to import, so that happens when the
first row is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from doteval.core.results import Score
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators.decorator import evaluator
from doteval.metrics import mean


@evaluator(metrics=mean())
def sentence_bleu(response: str, references: str | Sequence[str]) -> Any:
    """BLEU of one response, from 0 to 100, as sacrebleu computes it for a sentence (with exponential smoothing).

    references: the expected text, or several, of which any n-gram may come.

    The metadata name the package with its version, and sacrebleu's signature, which papers give with the figure. The
    mean over rows is that of sentences, and not the BLEU of the whole dataset, which papers mostly mean.

    >>> round(sentence_bleu("the cat sat on the mat", "the cat sat on the mat").value, 1)
    100.0

    Raises UsageError if sacrebleu is not installed, InvalidResultError if something is no text.
    """
    return _score("sentence_bleu", lambda sacrebleu: sacrebleu.BLEU(effective_order=True), response, references)


@evaluator(metrics=mean())
def chrf(response: str, references: str | Sequence[str], word_order: int = 0) -> Any:
    """The F-score of character n-grams of one response, from 0 to 100, as sacrebleu computes it for a sentence.

    references: the expected text, or several, of which the nearest counts.
    word_order: 2 for chrF++, which also counts words.

    The metadata name the package with its version, and sacrebleu's signature.

    >>> round(chrf("the cat sat on the mat", ["a dog", "the cat is on the mat"]).value, 1)
    64.6

    Raises UsageError if sacrebleu is not installed, InvalidResultError if something is no text.
    """
    return _score(f"chrf {word_order}", lambda sacrebleu: sacrebleu.CHRF(word_order=word_order), response, references)


def checked_references(response: str, references: str | Sequence[str]) -> list[str]:
    """The references, one or several, as a list. Raises InvalidResultError: there is none, or something is no text."""
    texts = [references] if isinstance(references, str) else list(references)
    if not texts:
        raise InvalidResultError("there are no references to compare the response with")
    for text in (response, *texts):
        if not isinstance(text, str):
            raise InvalidResultError(f"{text!r} is no text, so it cannot be compared with texts")
    return texts


def _score(kind: str, make: Callable[[Any], Any], response: str, references: str | Sequence[str]) -> Score:
    texts = checked_references(response, references)
    metric, package = _metric(kind, make, len(texts))
    value = metric.sentence_score(response, texts).score
    return Score(kind, value, (), {"package": package, "signature": str(metric.get_signature())})


_made: dict[tuple[str, int], tuple[Any, str]] = {}


def _metric(kind: str, make: Callable[[Any], Any], references: int) -> tuple[Any, str]:
    """A metric of sacrebleu, and the package with its version.

    references: a metric notes for its signature how many references it saw last, and rows may run in threads.
    """
    found = _made.get((kind, references))
    if found is None:
        sacrebleu = _sacrebleu()
        found = _made[kind, references] = (make(sacrebleu), f"sacrebleu {sacrebleu.__version__}")
    return found


@lru_cache(maxsize=1)
def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise UsageError(
            f"BLEU and chrF need sacrebleu, which cannot be imported: {error}",
            remedy="Install it: pip install 'doteval[reference]'",
        ) from None
    return sacrebleu
