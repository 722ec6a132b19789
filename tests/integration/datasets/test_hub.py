"""Datasets of the Hugging Face hub through the real `datasets` library, from a hub on a loopback port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.support.hub import COMMIT, GATED, serve_hub

PROBLEMS = [("2 + 2?", "Two and two.\n#### 4"), ("3 + 3?", "Three, twice.\n#### 6")]

# The library reads HF_ENDPOINT and HF_HUB_OFFLINE as it is imported, so it needs a process of its own.
OPEN = """
import json, sys
from doteval.datasets import open_dataset
from doteval.errors import DotEvalError

opened = {}
for address in sys.argv[1:]:
    try:
        dataset = open_dataset(address, columns=("question",))
        opened[address] = [list(dataset.rows()), dataset.length, dataset.fingerprint]
    except DotEvalError as error:
        opened[address] = str(error)
print(json.dumps(opened))
"""
EVALUATE = """
from doteval import foreach, run
from doteval.evaluators import exact_match
from doteval.store import Store

@foreach.gsm8k("test")
def eval_gsm8k(question, reasoning, answer):
    return exact_match(answer, "4")

for samples in (1, None):
    results = run(eval_gsm8k, experiment="hub", samples=samples, storage="results.db")
    print([record.row.values for record in results], results.summary()["exact_match"]["accuracy"])
    with Store.open("results.db") as store:
        print(store.evaluations.of(store.experiments.find("hub"))[0].dataset_source)
"""


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """Two datasets as they are on the hub: gsm8k, and one with two configurations."""
    root = tmp_path / "datasets"
    for repository, configs in (("openai/gsm8k", ["main"]), ("you/several", ["easy", "hard"])):
        head = ["---", "configs:"]
        for config in configs:
            directory = root / repository / config
            directory.mkdir(parents=True)
            questions, answers = zip(*PROBLEMS, strict=True)
            table = pyarrow.table({"question": questions, "answer": answers, "level": [config] * 2})
            head += [f"- config_name: {config}", "  data_files:"]
            for split in ("train", "test"):
                pyarrow.parquet.write_table(table, directory / f"{split}-0.parquet")
                head += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        (root / repository / "README.md").write_text("\n".join([*head, "---", ""]))
    return root


def python(tmp_path: Path, script: str, *arguments: str, endpoint: str, offline: bool = False) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=300
    ).stdout


def opened(tmp_path: Path, addresses: Sequence[str], endpoint: str, *, offline: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(python(tmp_path, OPEN, *addresses, endpoint=endpoint, offline=offline))
    return found


def test_addresses_are_opened_and_errors_say_what_to_do(tmp_path: Path, datasets: Path) -> None:
    rows = [{"question": question} for question, _ in PROBLEMS]
    good = {
        "hf://openai/gsm8k?split=test&config=main": f"hf://openai/gsm8k@{COMMIT}?config=main&split=test",
        f"hf://datasets/openai/gsm8k?split=train&revision={COMMIT}": f"hf://openai/gsm8k@{COMMIT}?split=train",
        "hf://you/several?split=test&config=hard&streaming=true": f"hf://you/several@{COMMIT}?config=hard&split=test",
    }
    bad = {
        "hf://openai/gsm8k": ("names no split", "Add one: ?split=train. There are: train, test."),
        "hf://openai/gsm8k?split=tests": ("has no split 'tests'", "There are: train, test."),
        "hf://you/several?split=test": ("has several configurations", "Add &config=NAME: easy, hard."),
        "hf://you/several?split=test&config=mid": ("has no configuration 'mid'", "There are: easy, hard."),
        "hf://openai/gsm8k?split=test&revision=v9": ("has no revision 'v9'", "leave revision= out"),
        "hf://you/missing?split=test": ("the hub has no dataset hf://you/missing", "hf auth login"),
        f"hf://{GATED}?split=test": ("is gated", "Accept its terms on its page"),
    }
    with serve_hub(datasets) as endpoint:
        found = opened(tmp_path, [*good, *bad], endpoint)
    for address, fingerprint in good.items():
        # How many rows a stream has is known only if the dataset says so, which these do not.
        assert found[address] == [rows, None if "streaming" in address else 2, fingerprint], address
    for address, words in bad.items():
        assert all(word in found[address] for word in words), found[address]
        assert "Traceback" not in found[address]


def test_a_registered_dataset_of_the_hub_is_evaluated_and_its_commit_recorded(tmp_path: Path, datasets: Path) -> None:
    with serve_hub(datasets) as endpoint:
        printed = python(tmp_path, EVALUATE, endpoint=endpoint).splitlines()
    first = "{'question': '2 + 2?', 'reasoning': 'Two and two.', 'answer': '4'}"
    second = "{'question': '3 + 3?', 'reasoning': 'Three, twice.', 'answer': '6'}"
    source = f"hf://openai/gsm8k@{COMMIT}?config=main&split=test"
    assert printed == [f"[{first}] 1.0", source, f"[{first}, {second}] 0.5", source]


@pytest.mark.slow("test_addresses_are_opened_and_errors_say_what_to_do, with a hub that answers")
def test_without_a_network_the_copy_in_the_cache_is_used_if_asked_for(tmp_path: Path, datasets: Path) -> None:
    address = "hf://openai/gsm8k?split=test&config=main"
    with serve_hub(datasets) as endpoint:
        online = opened(tmp_path, [address], endpoint)
    # The port is closed now.
    refused = opened(tmp_path, [address], endpoint)[address]
    assert "the Hugging Face hub does not answer for hf://openai/gsm8k" in refused
    assert "HF_HUB_OFFLINE=1" in refused

    at, elsewhere, never = (
        f"{address}&revision={COMMIT}",
        f"{address}&revision={'d' * 40}",
        "hf://you/several?split=test",
    )
    found = opened(tmp_path, [address, at, elsewhere, never], endpoint, offline=True)
    assert found[address] == found[at] == online[address]
    assert f"the cache has hf://openai/gsm8k at {COMMIT}, not at" in found[elsewhere]
    assert "is not in the cache" in found[never]
