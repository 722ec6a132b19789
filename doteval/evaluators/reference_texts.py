"""Evaluators that compare a text with reference texts by the figures that papers report.

BLEU and chrF are those of sacrebleu, ``pip install 'doteval[reference]'``, and ROUGE is that of Google's rouge-score,
``pip install 'doteval[rouge]'``. Each package takes half a second to import, so that happens when the first row is
judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

from doteval.core.results import Score
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators.decorator import evaluator
from doteval.metrics import mean

# Of rouge-score's table for a longest common subsequence, which has a cell for each word of one text and each of the
# other: 25 million take 200 MB and some 15 seconds (rouge-score 0.1.2, Python 3.11).
_MAX_CELLS = 25_000_000
_ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


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


def rouge(
    response: str,
    references: str | Sequence[str],
    variant: str = "rougeL",
    *,
    stemmer: bool = False,
    name: str | None = None,
) -> Score:
    """ROUGE of one response: the F-score, from 0 to 1, as Google's rouge-score computes it.

    references: the expected text, or several, of which the one with the highest F-score counts.
    variant: "rouge1" or "rouge2" (words or pairs of words in common), "rougeL" (the longest common subsequence of
        words) or "rougeLsum" (that of each line, where summaries have a sentence a line). It is also the score's name.
    stemmer: whether words are reduced to their stems first, by Porter's algorithm for English.

    The metadata hold the precision and the recall, and the package with its version. A word is of the letters a to z
    and of digits, whatever the case; all other characters part words.

    >>> score = rouge("the cat sat on the mat", ["a dog", "the cat is on the mat"])
    >>> round(score.value, 3), score.name
    (0.833, 'rougeL')

    Raises UsageError if rouge-score is not installed or there is no such variant. Raises InvalidResultError if
    something is no text, if a reference has no letter from a to z and no digit but others, so that nothing could agree
    with it, or if texts are too long for the longest common subsequence (25 million pairs of words).
    """
    return _rouge(response, references, variant, stemmer=stemmer, name=name or variant)


@evaluator(metrics=mean())
def _rouge(response: str, references: str | Sequence[str], variant: str, *, stemmer: bool) -> Score:
    if variant not in _ROUGE:
        raise UsageError(f"there is no variant {variant!r} of ROUGE; there are: {', '.join(_ROUGE)}")
    texts = checked_references(response, references)
    split, scorer, package = _rouge_scorer(variant, stemmer)
    words = len(split(response))
    for text in texts:
        expected = len(split(text))
        if not expected and any(character.isalnum() for character in text):
            raise InvalidResultError(
                "ROUGE knows only words of the letters a to z and of digits, and a reference has none",
                remedy="For other scripts, use chrf, which compares characters, or sentence_bleu.",
            )
        if variant.startswith("rougeL") and words * expected > _MAX_CELLS:
            raise InvalidResultError(
                f"{variant} of {words:,} and {expected:,} words takes a table of {words * expected:,} cells; "
                f"it has at most {_MAX_CELLS:,}",
                remedy="Shorten the texts, or use rouge1 and rouge2, which take as many words as there are.",
            )
    found = scorer.score_multi(texts, response)[variant]
    metadata = {"package": package, "precision": float(found.precision), "recall": float(found.recall)}
    return Score(variant, float(found.fmeasure), (), metadata)


def checked_references(response: str, references: str | Sequence[str]) -> list[str]:
    """The references, one or several, as a list. Raises InvalidResultError: there is none, or something is no text."""
    several = isinstance(references, Iterable) and not isinstance(references, str | bytes | Mapping)
    texts: list[Any] = list(references) if several else [references]
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
    return _imported("sacrebleu", "BLEU and chrF need sacrebleu", "reference")


@lru_cache
def _rouge_scorer(variant: str, stemmer: bool) -> tuple[Callable[[str], list[str]], Any, str]:
    """What parts a text into words, a scorer of rouge-score, and the package with its version."""
    need = "ROUGE needs rouge-score"
    split = _imported("rouge_score.tokenizers", need, "rouge").DefaultTokenizer(use_stemmer=False).tokenize
    scorer = _imported("rouge_score.rouge_scorer", need, "rouge").RougeScorer([variant], use_stemmer=stemmer)
    return split, scorer, f"rouge-score {version('rouge-score')}"


def _imported(module: str, need: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{need}, which cannot be imported: {error}", remedy=f"Install it: pip install 'doteval[{extra}]'"
        ) from None
