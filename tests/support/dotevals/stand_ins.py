"""What the documentation of dotevals uses without defining it: models, clients, packages that are not installed.

It is imported by the files that `corpus` writes, and replaces nothing of doteval or dotevals.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any


class StandIn(str):
    """A text that has every attribute, can be called and entered, and yields 100 more like it.

    What methods return can be awaited too: most are those of models and clients.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return AwaitableStandIn(f"{self:.40}.{name}")

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        return self

    def __getitem__(self, _: Any) -> StandIn:  # type: ignore[override]
        return self

    def __iter__(self) -> Iterator[StandIn]:  # type: ignore[override]
        return iter([self] * 100)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def __aenter__(self) -> StandIn:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def __float__(self) -> float:
        return 0.5

    def __int__(self) -> int:
        return 1

    def __mro_entries__(self, _: object) -> tuple[type, ...]:
        return (object,)


class AwaitableStandIn(StandIn):
    """A stand-in that can be awaited, which gives itself."""

    def __await__(self) -> Any:
        return self
        yield  # An awaitable that never waits.


class _StandInModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # Exceptions are caught and classes are inherited from.
        return type(name, (Exception,), {}) if name.endswith(("Error", "Exception")) else StandIn(name)


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        wanted = name.partition(".")[0] in _packages
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is to be executed."""


_packages: set[str] = set()


def stand_in_for(*packages: str) -> None:
    """Have imports of these packages succeed."""
    _packages.update(packages)
    if not any(isinstance(finder, _StandInFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StandInFinder())
