"""Addresses of the Hugging Face hub, and what a fresh install without its library says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from doteval import foreach
from doteval.datasets import open_dataset
from doteval.datasets.hub import HubAddress, is_hub_address
from doteval.errors import DatasetError


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("hf://squad?split=train", HubAddress("squad", "train")),
        ("hf://datasets/openai/gsm8k/?split=test", HubAddress("openai/gsm8k", "test")),
        ("hf://a/b", HubAddress("a/b")),
        ("HF://a/b?streaming=True&split=x%5B%3A10%5D", HubAddress("a/b", "x[:10]", streaming=True)),
        ("hf://a/b?config=c&revision=refs/pr/1", HubAddress("a/b", None, "c", "refs/pr/1")),
    ],
)
def test_an_address_is_taken_apart(address: str, parsed: HubAddress) -> None:
    assert is_hub_address(address)
    assert HubAddress.parse(address) == parsed
    # A Path has only one slash left.
    assert HubAddress.parse(str(Path(address.partition("?")[0]))).repository == parsed.repository


@pytest.mark.parametrize(
    ("address", "message", "remedy"),
    [
        ("hf://", "is no dataset of the hub", "hf://OWNER/NAME?split=SPLIT"),
        ("hf://a/b/c.parquet?split=x", "is no dataset of the hub", "hf://OWNER/NAME?split=SPLIT"),
        ("hf://a/b?spilt=test", "unknown parameter 'spilt'", "'split'"),
        ("hf://a/b?split=test&streaming=perhaps", "streaming is 'perhaps'", "streaming=true"),
    ],
)
def test_an_address_of_another_form_is_refused(address: str, message: str, remedy: str) -> None:
    with pytest.raises(DatasetError, match=message) as raised:
        open_dataset(address)
    assert remedy in str(raised.value.remedy)


def test_other_paths_are_no_addresses() -> None:
    assert not any(map(is_hub_address, ("hf/rows.csv", "c:/rows.csv", "https://hf.co/rows.csv", Path("rows.jsonl"))))


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in ("hf://openai/gsm8k?split=test", lambda: "hf://openai/gsm8k?split=test"):
        with pytest.raises(DatasetError, match="need the package datasets") as raised:
            open_dataset(source)
        assert raised.value.remedy == "Install it: pip install 'doteval[hf]'."

    # A file with it can be collected: nothing is loaded before the rows are read.
    @foreach.gsm8k("test")
    def eval_gsm8k(question: str, reasoning: str, answer: str) -> None: ...

    with pytest.raises(DatasetError, match="need the package datasets"):
        open_dataset(eval_gsm8k.__foreach__.dataset)  # type: ignore[attr-defined]


def test_a_registered_dataset_of_the_hub_knows_its_splits() -> None:
    with pytest.raises(DatasetError, match="gsm8k has no split 'tset'") as raised:
        foreach.gsm8k("tset")
    assert raised.value.remedy == "Did you mean 'test'?"
