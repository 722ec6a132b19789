"""Makes the environments of templates: every value is escaped, and loses what browsers would obey."""

from __future__ import annotations

from typing import Any

import jinja2

from doteval.analysis.figures import count, difference_interval, figure, interval, method_name, money, signed
from doteval.core.wording import clean, counted, duration

# Texts of names and sentences; those of rows have limits of their own.
_SENTENCE_CHARACTERS = 500


def template_environment(package: str) -> jinja2.Environment:
    """An environment with the templates of a package, and with filters for figures and texts."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
    )
    environment.filters |= {
        "figure": figure,
        "interval": interval,
        "signed": signed,
        "difference_interval": difference_interval,
        "money": money,
        "count": count,
        "counted": counted,
        "duration": duration,
        "method": method_name,
        "excerpt": excerpt,
        "p_value": lambda value: "-" if value is None else f"{value:.2g}",
    }
    return environment


def excerpt(text: object, characters: int = _SENTENCE_CHARACTERS) -> str:
    """Return the beginning of a text that is longer than so many characters."""
    shown = str(text)
    return shown if len(shown) <= characters else f"{shown[:characters]} …"


def _final(value: Any) -> Any:
    """What a template shows, without control characters and what UTF-8 does not have."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return clean(value)
    return value
