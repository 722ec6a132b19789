"""Makes the text of replies: the same text for the same prompt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from doteval.mock_openai.errors import RequestError, of_type
from doteval.mock_openai.prompts import Prompt

_POSITIVE_WORDS = """
    amazing awesome beautiful best brilliant delightful enjoyed excellent fantastic good great happy
    impressive like liked love loved lovely nice outstanding perfect pleased recommend superb wonderful
"""
_NEGATIVE_WORDS = """
    annoying awful bad boring broken disappointed disappointing dreadful hate hated horrible mediocre
    pathetic poor sad slow terrible ugly unhappy useless waste worse worst
"""
POSITIVE = frozenset(_POSITIVE_WORDS.split())
NEGATIVE = frozenset(_NEGATIVE_WORDS.split())
_WORD = re.compile(r"[a-z']+")
# A word with the blanks before it; the last one also with those after it.
_PIECE = re.compile(r"(?<!\s)\s*\S+(?:\s+\Z)?")
# How doteval's judges ask for a verdict: "VERDICT polite: yes | no".
_VERDICT = re.compile(r"^(VERDICT[^:|\n]{0,200}): ([^|\n]{1,200}(?: \| [^|\n]{1,200})+)$", re.MULTILINE)
_NEGATIONS = frozenset({"not", "never", "no", "isn't", "wasn't", "don't", "didn't", "doesn't"})


def sentiment_of(text: str) -> str:
    """``positive``, ``negative`` or ``neutral``, by a small word list; a negation inverts the next two words.

    >>> sentiment_of("not bad at all")
    'positive'
    """
    balance = 0
    inverted = 0
    for word in _WORD.findall(text.lower()):
        weight = (word in POSITIVE) - (word in NEGATIVE)
        balance += -weight if inverted else weight
        inverted = 2 if word in _NEGATIONS else max(0, inverted - 1)
    return "positive" if balance > 0 else "negative" if balance < 0 else "neutral"


def reply_text(rule: str, prompt: Prompt) -> str:
    """The text of the reply by a rule of `MockSettings.reply`.

    ``auto`` answers a prompt that asks for verdicts with a choice for each, one that contains "sentiment" with the
    sentiment of the last user message, and any other with ``mock reply DIGEST``, the same for the same prompt.
    """
    match rule:
        case "auto":
            if verdicts := _VERDICT.findall(prompt.text):
                return _chosen(verdicts, prompt.key)
            if "sentiment" in prompt.text.lower():
                return sentiment_of(prompt.last)
            return f"mock reply {prompt.key.hex()}"
        case "echo":
            return prompt.last
        case _:
            return rule


def _chosen(verdicts: list[tuple[str, str]], key: bytes) -> str:
    """A line for each verdict that is asked for, drawn from the prompt's key."""
    lines = []
    for name, choices in verdicts:
        drawn = hashlib.blake2b(key + name.encode("utf-8", "replace"), digest_size=2).digest()
        words = choices.split(" | ")
        lines.append(f"{name}: {words[int.from_bytes(drawn, 'big') % len(words)]}")
    return "\n".join(lines)


def pieces(text: str) -> list[str]:
    """The text in the pieces in which a stream sends it.

    >>> pieces("one two ")
    ['one', ' two ']
    """
    found: list[str] = _PIECE.findall(text)
    return found


def shortened(text: str, limit: object, param: str, stop: object = None) -> tuple[str, str]:
    """The text up to the first of the stop sequences and cut to a limit of tokens, and the finish reason.

    >>> shortened("one two three", 2, "max_tokens")
    ('one two', 'length')

    Raises RequestError for a limit or a stop sequence of another type.
    """
    if stop is not None:
        text = _before_stop(text, stop)
    if limit is None:
        return text, "stop"
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise of_type(param, "an integer", limit)
    if limit < 1:
        raise RequestError(
            f"Invalid '{param}': integer below minimum value. Expected a value >= 1, but got {limit} instead.",
            param=param,
            code="integer_below_min_value",
        )
    words = text.split()
    return (text, "stop") if len(words) <= limit else (" ".join(words[:limit]), "length")


def _before_stop(text: str, stop: object) -> str:
    sequences = [stop] if isinstance(stop, str) else stop
    if not isinstance(sequences, list) or not all(isinstance(sequence, str) for sequence in sequences):
        raise of_type("stop", "a string or an array of strings", stop)
    if len(sequences) > 4:
        raise RequestError(
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length "
            f"{len(sequences)} instead.",
            param="stop",
            code="array_above_max_length",
        )
    ends = [at for sequence in sequences if sequence and (at := text.find(sequence)) >= 0]
    return text[: min(ends)] if ends else text


def log_probabilities(text: str, top: int) -> Iterator[dict[str, Any]]:
    """The log probability of each piece of a text, with the `top` most likely pieces in its place.

    >>> next(log_probabilities("yes", 1))["bytes"]
    [121, 101, 115]
    """
    for piece in pieces(text):
        drawn = int.from_bytes(hashlib.blake2b(piece.encode("utf-8", "replace"), digest_size=2).digest(), "big")
        first = _log_probability(piece, -drawn / 65536 / 4)
        others = (_log_probability(f"{piece}{rank}", -2.0 - rank) for rank in range(1, top))
        yield {**first, "top_logprobs": [first, *others] if top else []}


def _log_probability(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "replace"))}
