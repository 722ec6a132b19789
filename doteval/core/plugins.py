"""Looks up evaluators, metrics and datasets by name, from this process and from installed packages.

A package announces its objects in an entry point group, such as ``doteval.evaluators``. Their names are read from the
package's metadata; its code is imported when a name is first used.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from doteval.core.error_leaves import for_logs, in_one_line
from doteval.core.wording import listed
from doteval.errors import NotFoundError, UsageError


class Plugins:
    """A registry of named objects, which this process registers or an installed package announces.

    group: the entry point group.
    kind: the word for one of the objects in messages.

    An object that this process registers takes precedence.

    >>> plugins = Plugins("doteval.examples", "example")
    >>> plugins.register("one", 1)
    >>> plugins.get("one"), "two" in plugins
    (1, False)
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind
        self._registered: dict[str, Any] = {}
        self._announced: dict[str, EntryPoint] | None = None

    def register(self, name: str, value: Any) -> None:
        """Register `value` under a name in this process, in place of an earlier one."""
        self._registered[name] = value

    def names(self) -> tuple[str, ...]:
        """All names, sorted. Imports nothing."""
        return tuple(sorted({*self._registered, *self._entry_points()}))

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._entry_points()

    def get(self, name: str) -> Any:
        """The object of this name. It imports the package that announces it.

        Raises NotFoundError: no object has the name; it gives the nearest names.
        Raises UsageError: the package's code cannot be imported.
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
                f"the {self.kind} {name!r} of the package {package} cannot be loaded: {in_one_line(error)}",
                remedy=f"Repair or remove the package {package}.",
                logged=f"the {self.kind} {name!r} of the package {package} cannot be loaded: {for_logs(error)}",
            ) from error
        self._registered[name] = value
        return value

    def refresh(self) -> None:
        """Read the entry points of installed packages again."""
        self._announced = None

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._announced is None:
            self._announced = {point.name: point for point in entry_points(group=self.group)}
        return self._announced


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The remedy for a name that does not exist: the nearest names, or all of them.

    otherwise: what to say in place of all names, where they may be many.

    >>> did_you_mean("meen", ["mean", "max"])
    "Did you mean 'mean'?"
    >>> did_you_mean("eval", ["eval1", "eval2", "eval3"])
    "Did you mean 'eval3', 'eval2' or 'eval1'?"
    """
    names = sorted(known)
    near = list(map(repr, difflib.get_close_matches(name, names, n=3)))
    if near:
        return f"Did you mean {' or '.join(filter(None, (', '.join(near[:-1]), near[-1])))}?"
    if otherwise is not None:
        return otherwise
    return f"There are: {listed(names, most=30)}." if names else "There are none."
