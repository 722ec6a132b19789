"""Reads the parameters of a URL, and makes URLs with parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import parse_qsl, quote, urlencode

from doteval.core.plugins import did_you_mean
from doteval.errors import UsageError

# Names may hold lone surrogates, which come from file names and from JSON.
_ERRORS = "surrogatepass"
_MOST_PARAMETERS = 200
_MOST_CHARACTERS = 16_000

ParameterValue = str | int | Sequence[str] | None


class Parameters:
    """The parameters of a URL. Each is asked for by its name; `refuse_others` refuses those that nobody asked for.

    >>> given = Parameters("name=first&page=2")
    >>> given.required("name"), given.number("page", 1, least=1, most=100)
    ('first', 2)
    """

    def __init__(self, query: str) -> None:
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors=_ERRORS)
        except ValueError as error:
            raise UsageError("the URL cannot be read: it is no UTF-8, or has too many parameters") from error
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if len(value) > _MOST_CHARACTERS:
                raise UsageError(f"the parameter {name[:40]!r} has more than {_MOST_CHARACTERS:,} characters")
            self._values.setdefault(name, []).append(value)
        self._asked: set[str] = set()

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a parameter; empty ones are left out."""
        self._asked.add(name)
        return tuple(value for value in self._values.get(name, ()) if value)

    def text(self, name: str) -> str | None:
        """The value of a parameter, None if it is not there or empty. Raises UsageError: it is there twice."""
        found = self.texts(name)
        if len(found) > 1:
            raise UsageError(f"the URL has the parameter {name!r} {len(found)} times, and can have it once")
        return found[0] if found else None

    def required(self, name: str) -> str:
        """The value of a parameter that must be there. Raises UsageError."""
        found = self.text(name)
        if found is None:
            raise UsageError(f"the URL lacks the parameter {name!r}", remedy="Begin at the list of experiments.")
        return found

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number. Raises UsageError: it is none, or not between the two bounds."""
        found = self.text(name)
        if found is None:
            return default
        if not (found.isascii() and found.isdecimal() and len(found) < 20 and least <= int(found) <= most):
            raise UsageError(f"{name} in the URL is no whole number from {least:,} to {most:,}: {found[:40]!r}")
        return int(found)

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of some words. Raises UsageError: it is another one."""
        found = self.text(name)
        if found is None:
            return default
        if found not in choices:
            raise UsageError(
                f"{name} in the URL cannot be {found[:40]!r}",
                remedy=did_you_mean(found[:40], choices, f"It is one of {', '.join(choices)}."),
            )
        return found

    def refuse_others(self) -> None:
        """Raise UsageError if the URL has a parameter that nobody has asked for."""
        for name in self._values:
            if name not in self._asked:
                raise UsageError(
                    f"this page has no parameter {name[:40]!r}",
                    remedy=f"It has {', '.join(sorted(self._asked))}." if self._asked else "It has none.",
                )

    def changed(self, changes: dict[str, ParameterValue]) -> dict[str, ParameterValue]:
        """The parameters as they are given, with others in place of some."""
        return {**{name: tuple(values) for name, values in self._values.items()}, **changes}


def link(path: str, **parameters: ParameterValue) -> str:
    """A link to a page, relative to the page that holds it. Parameters that are None or empty are left out.

    path: without a slash; "." is the list of experiments.

    >>> link("experiment", name="a b", page=None)
    'experiment?name=a%20b'
    """
    pairs = [
        (name, each)
        for name, value in parameters.items()
        for each in ([value] if isinstance(value, str | int) else value or ())
        if each != ""
    ]
    query = urlencode(pairs, quote_via=quote, errors=_ERRORS)
    return f"{path}?{query}" if query else path
