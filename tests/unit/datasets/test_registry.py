"""Datasets by name: registered in this process, or announced by an installed package."""

from __future__ import annotations

import importlib.metadata

import pytest

from doteval.datasets import Dataset, available, get_dataset_info, list_available, open_dataset, register, registered
from doteval.datasets import registry as datasets_registry
from doteval.datasets.well_known import WELL_KNOWN
from doteval.errors import NotFoundError, UsageError


class Squares(Dataset):
    name = "squares"
    splits = ("train", "test")
    columns = ("n", "square")

    def __init__(self, split, limit=3):
        self.split = split
        self.num_rows = limit
        # The attributes of a dataset may have any names.
        self.length = "mine"
        self.fingerprint = "squares-v1"
        self.rows = [(n, n * n) for n in range(limit)]

    def __iter__(self):
        return iter(self.rows)


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(datasets_registry.plugins, "_registered", {})
    monkeypatch.setattr(datasets_registry.plugins, "_announced", {})
    return datasets_registry.plugins


class TestRegistry:
    def test_registered(self, clean_registry):
        register("squares", Squares)
        assert registered("squares") is Squares
        assert set(available()) - set(WELL_KNOWN) == {"squares"}
        assert list_available() == sorted({*WELL_KNOWN, "squares"})
        dataset = open_dataset(registered("squares")("test", limit=2))
        assert (dataset.columns, dataset.length, dataset.fingerprint) == (("n", "square"), 2, "squares-v1")
        assert list(dataset.rows()) == [(0, 0), (1, 1)]

    def test_information_is_read_without_an_instance(self, clean_registry):
        register("squares", Squares)
        assert get_dataset_info("squares") == {
            "name": "squares",
            "splits": ["train", "test"],
            "columns": ["n", "square"],
            "num_rows": None,
            "needs_extra": None,
        }

    def test_one_that_is_registered_takes_precedence_over_one_of_the_hub(self, clean_registry):
        assert get_dataset_info("gsm8k")["needs_extra"] == "hf"
        register("gsm8k", Squares)
        assert registered("gsm8k") is Squares
        assert get_dataset_info("gsm8k")["needs_extra"] is None

    def test_an_unknown_name(self, clean_registry):
        register("squares", Squares)
        with pytest.raises(NotFoundError, match="no dataset named 'sqares'") as raised:
            registered("sqares")
        assert raised.value.remedy == "Did you mean 'squares'?"
        with pytest.raises(NotFoundError) as raised:
            registered("zebra")
        assert raised.value.remedy == f"There are: {', '.join(sorted({*WELL_KNOWN, 'squares'}))}."

    def announce(self, monkeypatch, plugins, *points):
        entries = [importlib.metadata.EntryPoint(name, value, "doteval.datasets") for name, value in points]
        monkeypatch.setattr(
            "doteval.core.plugins.entry_points", lambda group: entries if group == "doteval.datasets" else []
        )
        plugins.refresh()

    def test_a_package_announces_one(self, clean_registry, monkeypatch):
        self.announce(monkeypatch, clean_registry, ("squared", f"{__name__}:Squares"), ("broken", "no_such_module:X"))
        assert set(available()) - set(WELL_KNOWN) == {"broken", "squared"}
        # By the name of the entry point, and by the name of the class.
        assert registered("squared").name == "squares"
        assert registered("squares").name == "squares"
        with pytest.raises(UsageError, match="no_such_module cannot be loaded"):
            registered("broken")
        with pytest.raises(NotFoundError):
            registered("unknown")
