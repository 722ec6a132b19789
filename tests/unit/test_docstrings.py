"""The examples in docstrings are executed, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

from docs.generate.api import COMPATIBLE
from docs.generate.api import MODULES as DOCUMENTED
from doteval.errors import DotEvalError

ROOT = Path(__file__).parents[2]
# The modules that authors import from: those of the reference, those of files written for dotevals, and those that
# pages name.
PUBLIC = sorted(
    {
        "doteval",
        "doteval.clients",
        "doteval.clients.fast",
        "doteval.errors",
        "doteval.evaluators.base",
        "doteval.foreach",
        "doteval.metrics.reducers",
        "doteval.metrics.registry",
        "doteval.providers.registry",
        "doteval.settings",
        *DOCUMENTED,
        *COMPATIBLE,
    }
)
# What authors read: pages, examples and new projects.
READ = ["README.md", "docs/**/*.md", "examples/**/*.md", "examples/**/*.py", "doteval/project_templates/*/*.py"]
IMPORT = re.compile(r"^ *(?:from (doteval[\w.]*) import|import (doteval\.[\w.]+))", re.MULTILINE)
# Packages from which registered names are imported too.
REGISTRIES = ("doteval.evaluators", "doteval.metrics")
# Names without an example, and why.
WITHOUT_EXAMPLE = {
    "doteval.__version__": "a text",
    "doteval.concurrency.Strategy": "a union of the strategies, for type hints; each of them has an example",
    "doteval.metrics.reducers.Reducer": "the type of a function, for type hints; `reducer` shows one",
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


def test_pages_and_examples_import_public_names_only() -> None:
    texts = [path.read_text(encoding="utf-8") for pattern in READ for path in ROOT.glob(pattern)]
    named = {first or second for text in texts for first, second in IMPORT.findall(text)}
    assert {"doteval", "doteval.evaluators", "doteval.clients.fast"} <= named
    assert sorted(named - set(PUBLIC)) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_dir_of_a_public_package_shows_its_public_names(name: str) -> None:
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        # Evaluators and metrics that installed packages and earlier tests have registered are public too.
        registered = getattr(module, "available", tuple)() if name in REGISTRIES else ()
        assert dir(module) == sorted({*module.__all__, *registered})


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    without = {f"{name}.{each}" for each in module.__all__ if not has_example(getattr(module, each))}
    allowed = {each for each in WITHOUT_EXAMPLE if each.rpartition(".")[0] == name}
    assert sorted(without) == sorted(allowed)


def has_example(thing: object) -> bool:
    """Whether its docstring has an example; of an object, that of its class or of its call."""
    if inspect.ismodule(thing):
        return thing.__name__ in PUBLIC
    if isinstance(thing, type) and issubclass(thing, DotEvalError) and thing is not DotEvalError:
        # Errors are raised, and differ in what they mean: the docstring says it, and that of the base shows the use.
        return bool(thing.__doc__)
    described = [thing] if isinstance(thing, type) or inspect.isroutine(thing) else [thing, type(thing).__call__]
    return any(">>> " in (getattr(each, "__doc__", None) or "") for each in described)
