"""The examples in docstrings are executed, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from docs.generate.api import COMPATIBLE
from docs.generate.api import MODULES as DOCUMENTED
from doteval.errors import DotEvalError

ROOT = Path(__file__).parents[2]
# The modules that authors import from: those of the reference, and those of files written for dotevals.
PUBLIC = sorted(
    {"doteval", "doteval.errors", "doteval.evaluators.base", "doteval.metrics.registry", *DOCUMENTED, *COMPATIBLE}
)
# Names without an example, and why.
WITHOUT_EXAMPLE = {
    "doteval.__version__": "a text",
    "doteval.concurrency.Strategy": "a union of the strategies, for type hints; each of them has an example",
    "doteval.metrics.Metric": "the type of a function, for type hints; `metric` shows one",
    "doteval.models.Metric": "the same",
}
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "doteval").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_public_modules_say_what_is_public() -> None:
    assert [name for name in PUBLIC if not hasattr(importlib.import_module(name), "__all__")] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    without = {f"{name}.{each}" for each in module.__all__ if not has_example(getattr(module, each))}
    allowed = {each for each in WITHOUT_EXAMPLE if each.rpartition(".")[0] == name}
    assert sorted(without) == sorted(allowed)


def has_example(thing: object) -> bool:
    """Whether its docstring has an example; of an object, that of its class or of its call."""
    if isinstance(thing, type) and issubclass(thing, DotEvalError) and thing is not DotEvalError:
        # Errors are raised, and differ in what they mean: the docstring says it, and that of the base shows the use.
        return bool(thing.__doc__)
    described = [thing] if isinstance(thing, type) or inspect.isroutine(thing) else [thing, type(thing).__call__]
    return any(">>> " in (getattr(each, "__doc__", None) or "") for each in described)
