"""`doteval query`: where queries come from, formats, limits and errors."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.support.cli import CommandLine

pytestmark = pytest.mark.usefixtures("without_settings")

RECORDS = "SELECT index, scores['exact_match'] AS exact, row, response FROM records WHERE evaluation LIKE '%words%'"


def test_a_table(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("query", f"{RECORDS} ORDER BY index", "--limit", "2", "--storage", results)
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[:5] for line in ran.out.splitlines()[2:4]] == [
        ["0", "1", '{"text":"word', '0"}', "noun"],
        ["1", "1", '{"text":"word', '1"}', "noun"],
    ]
    assert "\x1b" not in ran.out
    assert ran.out.splitlines()[4] == "These are the first 2; --limit N shows N, --limit 0 all, and -o FILE writes all"
    everything = doteval_("query", "SELECT i, i / 2 AS half FROM range(150) t(i)", "--limit", "0", "--storage", results)
    assert everything.out.splitlines()[-1].split() == ["149", "74.5"]
    assert "the first" not in everything.out
    none = doteval_("query", f"{RECORDS} AND index > 99", "--storage", results)
    assert "The query has no rows." in none.out


def test_files_and_json(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet", "arrow"):
        ran = doteval_("query", RECORDS, "-o", str(tmp_path / f"r.{suffix}"), "--storage", results)
        assert (ran.code, ran.out, ran.err) == (0, "", f"Wrote 5 rows to {tmp_path}/r.{suffix}\n")
    assert (tmp_path / "r.csv").read_text().splitlines()[1] == '0,1.0,"{""text"":""word 0""}",noun \x1b[31m'
    first = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])
    assert first == {"index": 0, "exact": 1.0, "row": {"text": "word 0"}, "response": "noun \x1b[31m"}
    assert parquet.read_table(tmp_path / "r.parquet").column("exact").to_pylist() == [1.0, 1.0, 0.0, None, None]
    document = json.loads(doteval_("query", RECORDS, "--json", "--limit", "1", "--storage", results).out)
    assert document["columns"][:3] == [
        {"name": "index", "type": "BIGINT"},
        {"name": "exact", "type": "DOUBLE"},
        {"name": "row", "type": "JSON"},
    ]
    assert [row["row"] for row in document["rows"]] == [{"text": "word 0"}]


def test_a_query_from_a_file_and_from_stdin(
    doteval_: CommandLine, results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "q.sql"
    file.write_text("SELECT 'é' AS a -- a comment\n;\n", encoding="utf-8")
    assert doteval_("query", "--file", str(file), "--format", "csv", "--storage", results).out == "a\r\né\r\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 7 AS b"))
    assert doteval_("query", "-", "--format", "jsonl", "--storage", results).out == '{"b":7}\n'
    missing = doteval_("query", "--file", str(tmp_path / "none.sql"), "--storage", results)
    assert (missing.code, missing.err) == (2, f"Error: {tmp_path}/none.sql cannot be read: No such file or directory\n")
    file.write_bytes(b"SELECT '\xff'")
    assert "is not UTF-8" in doteval_("query", "--file", str(file), "--storage", results).err


def test_mistakes(doteval_: CommandLine, results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = doteval_("query", "SELECT inde FROM records", "--storage", results)
    assert (ran.code, ran.out) == (2, "")
    assert "LINE 1: SELECT inde FROM records\n               ^" in ran.err
    assert "doteval docs reading-results" in ran.err
    twice = doteval_("query", "SELECT 1 AS a, 2 AS a", "--json", "--storage", results)
    assert (twice.code, twice.err.splitlines()[0]) == (2, "Error: two columns of the answer have the name 'a'")
    assert doteval_("query", "--storage", results).code == 2
    assert doteval_("query", "SELECT 1", "-o", str(tmp_path / "r.txt"), "--storage", results).code == 2
    assert doteval_("query", "SELECT 1", "-o", str(tmp_path / "r"), "--format", "table", "--storage", results).code == 2
    assert doteval_("query", "SELECT 1", "--json", "--format", "csv", "--storage", results).code == 2
    assert doteval_("query", "SELECT 1", "--storage", str(tmp_path / "none.db")).code == 2
    monkeypatch.setitem(sys.modules, "duckdb", None)
    without = doteval_("query", "SELECT 1", "--storage", results)
    assert (without.code, without.err) == (
        2,
        "Error: queries need duckdb, which is not installed\nInstall it: pip install 'doteval[query]'\n",
    )
