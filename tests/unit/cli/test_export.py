"""`doteval export`: formats, columns, standard output and errors."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import ipc, parquet

from tests.support.cli import CommandLine

pytestmark = pytest.mark.usefixtures("without_settings")


def test_a_file_of_each_format(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet", "arrow"):
        ran = doteval_("export", "alpha", str(tmp_path / f"r.{suffix}"), "--storage", results)
        assert (ran.code, ran.out) == (0, "")
        assert f"Wrote 7 results to {tmp_path}/r.{suffix}" in ran.err
        assert "2 rows without a result: doteval status alpha" in ran.err
    with (tmp_path / "r.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["score.exact_match"] for line in lines] == ["true", "true", "false", "", "", "", ""]
    assert [line["score.mean_length"] for line in lines] == [""] * 5 + ["2.5"] * 2
    assert lines[0]["row.text"] == "word 0"
    tables = [parquet.read_table(tmp_path / "r.parquet"), ipc.open_file(tmp_path / "r.arrow").read_all()]
    assert tables[0].to_pylist() == tables[1].to_pylist()
    assert tables[0]["cost"].to_pylist() == [0.5] * 3 + [None] * 4
    documents = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert documents[3]["error"]["traceback"] == "Traceback: line 7"
    assert documents[0]["scores"] == {"exact_match": True, "label": "noun"}


def test_columns_and_one_evaluation(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    doteval_(
        *("export", "alpha", str(path), "--format", "csv", "--columns", "key, score.mean_length"),
        *("--evaluation", "eval_more", "--storage", results),
    )
    assert path.read_text() == "key,score.mean_length\nkey0,2.5\nkey1,2.5\n"


def test_a_filter(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    ran = doteval_(
        *("export", "alpha", str(path), "--where", "score.exact_match = 0 or status = 'failed'"),
        *("--columns", "index,status", "--storage", results),
    )
    assert ran.err == f"Wrote 2 results to {path}\n"
    assert path.read_text() == "index,status\n2,done\n3,failed\n"


def test_what_was_written_as_json(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    path = str(tmp_path / "r.csv")
    ran = doteval_("export", "alpha", path, "--storage", results, "--json")
    document = json.loads(ran.out)
    assert (ran.err, document["experiment"]["name"]) == ("", "alpha")
    assert [document[key] for key in ("file", "format", "results", "pending")] == [path, "csv", 7, 2]
    chosen = doteval_("export", "alpha", path, "--where", "index < 2", "--storage", results, "--json")
    assert json.loads(chosen.out)["pending"] is None


def exported(results: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "doteval", "export", "alpha", "-", "--storage", results, *args]
    return subprocess.run(command, capture_output=True, check=False)


def test_standard_output(results: str) -> None:
    ran = exported(results)
    assert ran.returncode == 0
    assert [json.loads(line)["row"] for line in ran.stdout.splitlines()] == [0, 1, 2, 3, 4, 0, 1]
    ran = exported(results, "--columns", "key,cost")
    assert json.loads(ran.stdout.splitlines()[0]) == {"key": "key0", "cost": 0.5}
    ran = exported(results, "--format", "parquet")
    assert parquet.read_table(io.BytesIO(ran.stdout)).num_rows == 7


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("alpha", "r.xlsx"), "'xlsx' is not an export format"),
        (("alpha", "r"), "the name 'r' does not tell the export format"),
        (("beta", "r.csv"), "'beta'"),
        (("alpha", "r.csv", "--columns", "nothing"), "there is no column 'nothing'"),
        (("alpha", "r.csv", "--evaluation", "nothing"), "contains 'nothing'"),
        (("alpha", "r.csv", "--where", "colour = 1"), "colour"),
        (("alpha", "no/r.csv"), "no/r.csv cannot be written: No such file or directory"),
    ],
)
def test_mistakes(
    doteval_: CommandLine, results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    ran = doteval_("export", *args, "--storage", results)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
    assert sorted(tmp_path.iterdir()) == before
