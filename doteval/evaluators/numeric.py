"""Evaluators of numbers, and of text that is a number."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Any

from doteval.evaluators.decorator import evaluator
from doteval.metrics import accuracy

# The minus sign of typeset text (U+2212), and the full-width forms of digits, signs and separators.
_ASCII = {0x2212: "-"} | {ord(character) + 0xFEE0: character for character in "0123456789+-,."}

# Groups of three digits, as in "1,234,567" and "1 234 567", or of two before the last three, as in "12,34,567". A first
# digit 0, as in "0,123", is a decimal comma.
_GROUPED = re.compile(
    r"[+-]?[1-9]\d{0,2}(?:(?P<separator>[,_\s])\d{3})(?:(?P=separator)\d{3})*(?![\d,_\s])"
    r"|[+-]?[1-9]\d?(?:,\d{2})+,\d{3}(?![\d,_\s])"
)

# Differences are rounded to so many digits, after they were computed exactly.
_CONTEXT = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)


@evaluator(metrics=accuracy())
def numeric_match(result: Any, expected: Any) -> bool:
    """Whether both are the same number.

    Text and integers of any length are compared exactly, and as floats if one of both is a float. In text, digits may
    be in groups, as in "1,234" or "1 234", and the minus may be U+2212. Anything that is not a number then matches
    nothing: NaN, None, "", "$5", "50%", "1,2,3".

    >>> numeric_match("1,234.0", 1234).value
    True
    >>> numeric_match("9007199254740993", "9007199254740992").value
    False
    """
    return same_number(result, expected)


@evaluator(metrics=accuracy())
def close_to(result: Any, expected: Any, *, rel_tol: float = 1e-6, abs_tol: float = 0.0) -> bool:
    """Whether both are numbers that are close: |a - b| ≤ max(rel_tol · max(|a|, |b|), abs_tol).

    Numbers are read as in `numeric_match`. The formula is that of `math.isclose`, computed in decimal numbers, so that
    3.1 and 3.0 differ by 0.1. Infinity is close to itself only.

    >>> close_to("3.14", 3.14159, rel_tol=0.01).value
    True

    Raises ValueError if a tolerance is negative.
    """
    if not (rel_tol >= 0 and abs_tol >= 0):
        raise ValueError("tolerances must not be negative")
    left, right = _number(result), _number(expected)
    if left is None or right is None:
        return False
    if left == right or not (left.is_finite() and right.is_finite()):
        return left == right
    relative = _CONTEXT.multiply(Decimal(str(rel_tol)), max(left.copy_abs(), right.copy_abs()))
    return _CONTEXT.subtract(left, right).copy_abs() <= max(relative, Decimal(str(abs_tol)))


def same_number(left: Any, right: Any) -> bool:
    """Whether both are the same number, read as by `numeric_match`.

    >>> same_number(0.1, "0.10"), same_number("1e400", "1e500"), same_number("a", "a")
    (True, False, False)
    """
    first, second = _number(left), _number(right)
    if first is None or second is None:
        return False
    if _is_float(left) or _is_float(right):
        # A float stands for all numbers that are rounded to it.
        return float(first) == float(second)
    return first == second


def _is_float(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, Integral)


def _number(value: Any) -> Decimal | None:
    """The exact value of an integer or text, the shortest text of a float; None if it is not a number, or NaN."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        # Without its text, whose length Python limits (sys.set_int_max_str_digits).
        return Decimal(int(value))
    text = str(value).strip().translate(_ASCII)
    grouped = _GROUPED.match(text)
    if grouped is not None:
        text = re.sub(r"[,_\s]", "", grouped[0]) + text[grouped.end() :]
    if "_" in text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return None if number.is_nan() else number
