"""Names that users and installed packages give to evaluators, metrics and datasets.

A package announces what it brings under an entry point group, ``doteval.evaluators`` for one. The
names are read from the package's metadata; its code is imported when a name is first used.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from doteval.errors import NotFoundError, UsageError


class Plugins:
    """What goes by a name: registered in this process, or announced by an installed package.

    `group` is the entry point group, `kind` the word for one of them in messages. What is
    registered here comes before what a package announces.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind
        self._registered: dict[str, Any] = {}
        self._announced: dict[str, EntryPoint] | None = None

    def register(self, name: str, value: Any) -> None:
        """Give `value` a name in this process; a name given before is taken over."""
        self._registered[name] = value

    def names(self) -> tuple[str, ...]:
        """All names, sorted. Imports nothing."""
        return tuple(sorted({*self._registered, *self._entry_points()}))

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._entry_points()

    def get(self, name: str) -> Any:
        """What goes by `name`; a package's code is imported now.

        Raises NotFoundError, which names the nearest names, or UsageError if a package's code
        cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        announced = self._entry_points().get(name)
        if announced is None:
            raise NotFoundError(f"no {self.kind} named {name!r}", remedy=did_you_mean(name, self.names()))
        try:
            value = announced.load()
        except Exception as error:
            package = announced.dist.name if announced.dist else announced.module
            raise UsageError(
                f"the {self.kind} {name!r} of the package {package} cannot be loaded: {type(error).__name__}: {error}",
                remedy=f"Repair or remove the package {package}.",
            ) from error
        self._registered[name] = value
        return value

    def refresh(self) -> None:
        """Look for installed packages again."""
        self._announced = None

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._announced is None:
            self._announced = {point.name: point for point in entry_points(group=self.group)}
        return self._announced


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that does not exist: the nearest names, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"There are: {', '.join(names)}." if names else "There are none."
