"""Evaluators of numbers, and of text that is a number."""

from __future__ import annotations

import math
import re
from typing import Any

from doteval.evaluators.base import evaluator
from doteval.metrics import accuracy

# "- 5" is not a number, but would become one when spaces are removed.
_LONE_SIGN = re.compile(r"[+-]\s")


@evaluator(metrics=accuracy())
def numeric_match(result: Any, expected: Any) -> bool:
    """Whether both are the same number.

    Commas and spaces are removed, then `float` reads the rest: "1,234" and "1 234" are 1234.0. Anything that is not
    a number then matches nothing: NaN, None, "", "$5", "50%".

    >>> numeric_match("1,234.0", 1234).value
    True
    """
    left, right = _number(result), _number(expected)
    return left is not None and right is not None and left == right


@evaluator(metrics=accuracy())
def close_to(result: Any, expected: Any, *, rel_tol: float = 1e-6, abs_tol: float = 0.0) -> bool:
    """Whether both are numbers that are close: |a - b| ≤ max(rel_tol · max(|a|, |b|), abs_tol).

    Numbers are read as in `numeric_match` and compared by `math.isclose`.

    >>> close_to("3.14", 3.14159, rel_tol=0.01).value
    True
    """
    left, right = _number(result), _number(expected)
    return left is not None and right is not None and math.isclose(left, right, rel_tol=rel_tol, abs_tol=abs_tol)


def _number(value: Any) -> float | None:
    """The value as a number, which may be NaN; None if it is not a number."""
    text = str(value).strip()
    if _LONE_SIGN.match(text):
        return None
    try:
        return float(re.sub(r"[,\s]", "", text))
    except ValueError:
        return None
