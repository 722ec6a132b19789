"""The page of the Python API: every public name with its signature and docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docs.generate.markdown import MissingTextError, code, docstring, documented, page_of, signature, table
from doteval import errors, evaluators
from doteval.metrics.base import MetricFactory

# The public modules, with what to know before their names. Their `__all__` says which names are public.
MODULES = {
    "doteval": "What evaluation files and notebooks import.",
    "doteval.evaluators": "Judges of rows. The built-in ones are in [Metrics and evaluators](metrics.md#evaluators).",
    "doteval.metrics": "Metrics. The built-in ones are in [Metrics and evaluators](metrics.md#metrics).",
    "doteval.datasets": "Where rows come from. `@foreach` takes sequences, generators, files and data frames as they are.",
    "doteval.concurrency": "The strategies that `@foreach(concurrency=...)` takes. A number is enough in most cases.",
    "doteval.clients.openai": "Clients of OpenAI's API with pooled connections, cache, limits and usage: see "
    "[Shared resources](../shared-resources.md).",
    "doteval.mock_openai": "A server with OpenAI's API and made-up replies: see [the page about it](../mock-server.md).",
}
# The names that files written for dotevals import; each is another name of something above.
COMPATIBLE = ("doteval.models", "doteval.exceptions", "doteval.providers")
FIXTURES = "doteval.pytest_plugin"


def page() -> str:
    return page_of(
        "The Python API",
        "These names are public: they stay, or are deprecated for a release before they go. Everything else may change.",
        *(part for name, text in MODULES.items() for part in _module(name, text)),
        "## Fixtures",
        "Evaluations ask for these by name; the pytest plugin has them.",
        *(_fixture(name, thing) for name, thing in _public(importlib.import_module(FIXTURES))),
        "## `doteval.errors`",
        "Every error that doteval raises on purpose. `message` says what happened and where, `remedy` what to do next, and "
        "`exit_code` is that of a command which ends with it.",
        table(
            ["error", "is a", "exit code", "raised when"],
            [
                (code(name), code(thing.__base__.__name__), _exit_code(thing), _first_sentence(name, thing))
                for name, thing in _public(errors)
                if issubclass(thing, Exception)
            ],
        ),
        "## For files written for dotevals",
        "The names under which such files import the same things; see [Coming from other tools](../coming-from-other-tools.md).",
        table(
            ["name", "is"],
            [
                (code(f"{module}.{name}"), code(f"{thing.__module__}.{getattr(thing, '__qualname__', name)}"))
                for module in COMPATIBLE
                for name, thing in _public(importlib.import_module(module))
            ],
        ),
    )


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in module.__all__:
        if not name.startswith("__"):
            yield name, getattr(module, name)


def _module(name: str, text: str) -> Iterator[str]:
    yield f"## `{name}`"
    yield text
    for each, thing in _public(importlib.import_module(name)):
        # These have a page of their own.
        if not isinstance(thing, MetricFactory) and thing not in evaluators._BUILT_IN:
            yield from _entry(f"{name}.{each}", each, thing)


def _entry(path: str, name: str, thing: Any) -> Iterator[str]:
    yield f"### `{name}`"
    if isinstance(thing, type):
        if _is_made_by_callers(thing):
            yield signature(name, thing)
        yield documented(name, thing)
        for member, found in _members(thing):
            yield from _member(f"{name}.{member}", found)
    elif inspect.isfunction(thing):
        yield signature(name, thing)
        yield documented(name, thing)
    elif type(thing).__module__ == "doteval.foreach" and callable(thing):
        # `foreach` and `batch` are objects that are called.
        yield signature(name, thing)
        yield documented(name, thing.__call__)
    elif type(thing).__module__.startswith("doteval"):
        yield f"```py\n{name}: {type(thing).__name__}\n```"
        yield documented(name, type(thing))
    else:
        yield f"```py\n{name} = {re.sub(r'[a-z][a-z_.]*[.](?=[A-Z])', '', str(thing))}\n```"
        yield _text_below(path, name)


def _is_made_by_callers(kind: type) -> bool:
    return not getattr(kind, "_is_protocol", False) and not inspect.isabstract(kind)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that doteval defines, those of base classes too."""
    seen = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("doteval"):
            continue
        for name, member in vars(base).items():
            is_member = isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)
            if is_member and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, member


def _member(name: str, member: Any) -> Iterator[str]:
    yield f"#### `{name}`"
    if isinstance(member, property):
        yield documented(name, member)
        return
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    yield signature(name, function)
    yield documented(name, function)


def _fixture(name: str, thing: Any) -> str:
    return f"### `{name}`\n\n{documented(name, thing)}"


def _exit_code(kind: type[errors.DotEvalError]) -> object:
    return kind.exit_code if kind.exit_code != 1 else ""


def _first_sentence(name: str, thing: Any) -> str:
    return documented(name, thing).split("\n\n")[0]


def _text_below(path: str, name: str) -> str:
    """The string below the assignment of a name, wherever it is imported from: the docstring of what is no class."""
    module = importlib.import_module(path.rpartition(".")[0])
    statements = ast.parse(inspect.getsource(module)).body
    for each, below in itertools.pairwise([*statements, ast.Pass()]):
        if isinstance(each, ast.ImportFrom) and each.module and name in {alias.name for alias in each.names}:
            return _text_below(f"{each.module}.{name}", name)
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        if name in {getattr(target, "id", None) for target in targets} and isinstance(below, ast.Expr):
            return docstring(ast.literal_eval(below.value))
    raise MissingTextError(f"{path} has no string below its assignment")
