"""What worker processes share of the imports of evaluations."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from doteval.submission.submit import _use_openai


@pytest.mark.parametrize(
    ("fixtures", "expected"), [([], False), (["model", "request"], False), (["model", "async_openai_client"], True)]
)
def test_fixtures_say_that_openai_is_used(monkeypatch: pytest.MonkeyPatch, fixtures: list[str], expected: bool) -> None:
    monkeypatch.delitem(sys.modules, "openai", raising=False)
    items: list[Any] = [SimpleNamespace(fixturenames=[]), SimpleNamespace(fixturenames=fixtures)]
    assert _use_openai(items) == expected


def test_files_that_import_openai_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", ModuleType("openai"))
    items: list[Any] = [SimpleNamespace(fixturenames=[])]
    assert _use_openai(items)
