"""Every kind of dataset that `@foreach` takes, in pytest."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.plugin.conftest import Evaluate, Records

ROWS = [{"text": "good", "label": "positive"}, {"text": "bad", "label": "negative"}]


def test_every_kind_of_dataset(evaluate: Evaluate, records: Records, pytester: pytest.Pytester) -> None:
    # Imported here, and not by every xdist worker at its start.
    import pyarrow
    import pyarrow.parquet

    data = pytester.mkdir("data")
    (data / "rows.csv").write_text("label,text,other\npositive,good,1\nnegative,bad,2\n")
    (data / "rows.csv.gz").write_bytes(gzip.compress((data / "rows.csv").read_bytes()))
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (data / "rows.json").write_text(json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), data / "rows.parquet")
    # Paths are relative to the evaluation file, not to the current directory.
    folder = pytester.mkdir("evals")
    data.rename(folder / "data")
    result = evaluate(
        """
from doteval.datasets import register

rows = [("good", "positive", "ignored"), ("bad", "negative", "ignored")]

class HuggingFace:
    column_names = ["label", "text", "more"]
    features = {}
    num_rows = 2
    def __iter__(self):
        return iter([{"label": label, "text": text, "more": None} for text, label, _ in rows])

class Reviews:
    name = "reviews"
    columns = ["text", "label"]
    splits = ["train", "test"]
    num_rows = 2
    def __init__(self, split="train", limit=None):
        self.split = split
    def __iter__(self):
        assert self.split == "test"
        return iter(rows)

register("reviews", Reviews)

def function():
    return rows

def generator():
    yield from rows

def function_of_generator():
    return generator()

SOURCES = {
    "tuples": rows,
    "lists": [list(row) for row in rows],
    "dicts": [{"text": text, "label": label, "x": 1} for text, label, _ in rows],
    "generator": generator(),
    "function": function,
    "generator_function": generator,
    "function_of_generator": function_of_generator,
    "iterator": iter(rows),
    "csv": "data/rows.csv",
    "jsonl": "data/rows.jsonl",
    "json": "data/rows.json",
    "parquet": "data/rows.parquet",
    "packed": "data/rows.csv.gz",
    "hugging_face": HuggingFace(),
}

def judge(text, label):
    return Result(exact_match({"good": "positive", "bad": "negative"}[text], label), prompt=text)

for name, source in SOURCES.items():
    globals()[f"eval_{name}"] = foreach(" text , label ", source)(judge)

@foreach.reviews("test")
def eval_registered(text, label):
    return judge(text, label)

@foreach.reviews(split="test", limit=3)
async def eval_registered_by_keyword(text, label):
    return judge(text, label)

@foreach("one", ["a", "b"])
def eval_scalars(one):
    return Score("ok", one in "ab", ["accuracy"])

@foreach("lable", "data/rows.jsonl")
def eval_misspelt(lable):
    return Score("ok", lable is None, ["accuracy"])

@foreach("a, b", [(1, 2), (1,), {"b": 2}, 5])
def eval_odd_rows(a, b):
    return Score("ok", (a, b), [])
""",
        "--fail-under=exact_match.accuracy=1",
        name="evals/eval_it.py",
    )
    result.assert_outcomes(passed=19)
    result.stdout.fnmatch_lines(
        ["eval_misspelt: the column 'lable' is missing from every row * None in all of them. Did you mean 'label'?"]
    )
    for name in ("tuples", "csv", "parquet", "hugging_face", "registered", "generator_function"):
        stored = records(f"eval_{name}")
        assert [record.outcome.prompt for record in stored] == ["good", "bad"], name
        assert stored[1].row.values == {"text": "bad", "label": "negative"}
    odd = records("eval_odd_rows")
    assert [record.outcome.status for record in odd] == ["done", "failed", "done", "failed"]
    assert odd[1].outcome.error.type == "ValueError"
    assert odd[2].outcome.scores[0].value == (None, 2)


def test_datasets_of_packages_and_unknown_names(
    evaluate: Evaluate, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A package as pip installs it.
    site = pytester.mkdir("site")
    (site / "shop.py").write_text(
        "class Shop:\n    name = 'shop'\n    columns = ['text']\n    splits = ['all']\n"
        "    def __init__(self, split): self.split = split\n"
        "    def __iter__(self): return iter([(self.split,), ('x',)])\n"
    )
    info = site / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[doteval.datasets]\nshop = shop:Shop\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    result = evaluate(
        '@foreach.shop("all")\ndef eval_shop(text):\n    return Score("ok", text in ("all", "x"), ["accuracy"])',
        "--fail-under=ok.accuracy=1",
    )
    result.assert_outcomes(passed=1)
    result = evaluate('@foreach.shpo("all")\ndef eval_shop(text): ...')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no dataset named 'shpo'*", "*shop*"])
