"""Exports: the content of each format, reading it back, and that a file is complete or absent."""

from __future__ import annotations

import csv
import io
import json
import math
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.export import FORMATS, export, to_cells, to_document, write_csv, write_jsonl, write_parquet
from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.errors import UsageError

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)

DONE = Record(
    Row(0, "k0", {"text": 'a, "b"\nc', "n": 1, "tags": ["x", "y"]}),
    Outcome(
        RowStatus.DONE,
        1000.5,
        0.25,
        scores=(Score("right", True, ("accuracy",), {"why": "same"}), Score("length", 12)),
        prompt="ä?",
        model_response={"text": "b", "at": MOMENT},
        metadata={"m": (1, 2)},
        usage=(
            Usage("small", requests=1, prompt_tokens=10, completion_tokens=5, cost=0.5),
            Usage("large", requests=2, prompt_tokens=20, completion_tokens=6),
        ),
    ),
    worker="w1",
)
FAILED = Record(
    Row(1, "k1", {"text": None, "n": 2.5, "more": True}, sample=3),
    Outcome(RowStatus.FAILED, 1001.0, 0.5, error=RowError("ValueError", "no", ErrorClass.TIMEOUT, "Traceback")),
)
RECORDS = [("eval_a", DONE), ("eval_b", FAILED)]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


def written(write, records=RECORDS):
    file = io.BytesIO()
    return write(file, records), file.getvalue()


def table(content):
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


class TestJsonLines:
    def test_everything_is_read_back(self):
        count, content = written(write_jsonl)
        first, second = map(decode, content.decode().splitlines())
        assert count == 2
        assert first == to_document("eval_a", DONE)
        assert first["values"] == DONE.row.values
        assert first["model_response"]["at"] == MOMENT
        assert first["metadata"] == {"m": (1, 2)}
        assert first["scores"] == {"right": True, "length": 12}
        assert first["score_metadata"] == {"right": {"why": "same"}}
        assert [usage["model"] for usage in first["usage"]] == ["small", "large"]
        assert first["error"] is None
        assert second["error"] == {
            "type": "ValueError",
            "message": "no",
            "error_class": "timeout",
            "traceback": "Traceback",
        }
        assert (second["evaluation"], second["row"], second["sample"], second["status"]) == ("eval_b", 1, 3, "failed")

    def test_each_line_is_plain_json(self):
        for line in written(write_jsonl)[1].splitlines():
            assert json.loads(line)["key"].startswith("k")


class TestCsv:
    def test_the_columns_of_all_records(self):
        count, content = written(write_csv)
        first, second = table(content)
        assert count == 2
        names = list(first)
        assert names[:5] == ["evaluation", "row", "key", "sample", "status"]
        assert names[5:11] == ["row.text", "row.n", "row.tags", "row.more", "score.right", "score.length"]
        assert first["row.text"] == 'a, "b"\nc'
        assert json.loads(first["row.tags"]) == ["x", "y"]
        assert decode(first["model_response"])["at"] == MOMENT
        assert (first["score.right"], first["score.length"], first["prompt"]) == ("true", "12", "ä?")
        assert (first["requests"], first["prompt_tokens"], first["completion_tokens"], first["cost"]) == (
            "3",
            "30",
            "11",
            "0.5",
        )
        assert (first["row.more"], second["row.more"]) == ("", "true")
        assert (second["score.right"], second["error_type"], second["cost"]) == ("", "ValueError", "")

    def test_no_records_leave_a_header(self):
        count, content = written(write_csv, [])
        assert count == 0
        assert content.decode().startswith("evaluation,row,key")
        assert table(content) == []

    @given(st.lists(TEXT, min_size=1, max_size=5))
    def test_any_text_is_read_back(self, texts):
        records = [
            ("e", Record(Row(n, "k", {"text": text}), Outcome(RowStatus.DONE, 0.0, 0.0)))
            for n, text in enumerate(texts)
        ]
        assert [line["row.text"] for line in table(written(write_csv, records)[1])] == texts

    def test_a_lone_surrogate_does_not_stop_the_export(self):
        record = Record(Row(0, "k", {"text": "a\ud800"}), Outcome(RowStatus.DONE, 0.0, 0.0))
        for write in (write_csv, write_jsonl):
            assert written(write, [("e", record)])[0] == 1
        assert table(written(write_csv, [("e", record)])[1])[0]["row.text"] == "a?"

    def test_numbers_that_are_not_finite(self):
        record = Record(Row(0, "k", {"x": math.nan, "y": math.inf, "z": 2**70}), Outcome(RowStatus.DONE, 0.0, 0.0))
        line = table(written(write_csv, [("e", record)])[1])[0]
        assert (line["row.x"], line["row.y"], line["row.z"]) == ("nan", "inf", str(2**70))


class TestParquet:
    def test_types(self):
        pytest.importorskip("pyarrow")
        from pyarrow import parquet

        count, content = written(write_parquet)
        read = parquet.read_table(io.BytesIO(content))
        types = {field.name: str(field.type) for field in read.schema}
        assert count == 2
        assert types["row"] == types["score.length"] == types["sample"] == "int64"
        assert types["row.n"] == types["cost"] == types["seconds"] == "double"
        assert types["score.right"] == types["row.more"] == "bool"
        assert types["row.text"] == types["row.tags"] == types["worker"] == "string"
        lines = read.to_pylist()
        assert lines[0] == {**dict.fromkeys(types), **to_cells("eval_a", DONE), "row.n": 1.0}
        assert (lines[1]["row.n"], lines[1]["row.text"], lines[1]["error_type"]) == (2.5, None, "ValueError")

    def test_a_column_of_mixed_values_is_text(self):
        pytest.importorskip("pyarrow")
        from pyarrow import parquet

        values = [1, "a", True, None, [1], 2**70]
        records = [
            ("e", Record(Row(n, "k", {"x": value}), Outcome(RowStatus.DONE, 0.0, 0.0)))
            for n, value in enumerate(values)
        ]
        read = parquet.read_table(io.BytesIO(written(write_parquet, records)[1]))
        assert read["row.x"].to_pylist() == ["1", "a", "true", None, "[1]", str(2**70)]

    def test_no_records(self):
        pytest.importorskip("pyarrow")
        from pyarrow import parquet

        read = parquet.read_table(io.BytesIO(written(write_parquet, [])[1]))
        assert read.num_rows == 0
        assert str(read.schema.field("row").type) == "int64"

    def test_more_than_one_batch(self):
        pytest.importorskip("pyarrow")
        from pyarrow import parquet

        records = (("e", Record(Row(n, "k", {"n": n}), Outcome(RowStatus.DONE, 0.0, 0.0))) for n in range(2500))
        read = parquet.read_table(io.BytesIO(written(write_parquet, records)[1]))
        assert read["row.n"].to_pylist() == list(range(2500))

    def test_without_pyarrow(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(UsageError, match="needs pyarrow") as raised:
            written(write_parquet)
        assert raised.value.remedy == "Install it: pip install pyarrow"


class TestFiles:
    @pytest.mark.parametrize("name", ["r.csv", "r.JSONL"])
    def test_the_suffix_determines_the_format(self, tmp_path, name):
        path = tmp_path / name
        assert export(RECORDS, path) == 2
        assert path.read_bytes() == written(FORMATS[path.suffix[1:].lower()])[1]
        assert list(tmp_path.iterdir()) == [path]

    def test_a_format_by_name(self, tmp_path):
        assert export(RECORDS, tmp_path / "out.txt", "csv") == 2
        assert (tmp_path / "out.txt").read_bytes() == written(write_csv)[1]

    @pytest.mark.parametrize(
        ("name", "problem"), [("r.xlsx", "'xlsx' is not an export format"), ("r", "does not tell the export format")]
    )
    def test_unknown_formats(self, tmp_path, name, problem):
        with pytest.raises(UsageError, match=problem) as raised:
            export(RECORDS, tmp_path / name)
        assert raised.value.remedy == "The formats are csv, jsonl, parquet."

    def test_an_error_keeps_the_existing_file(self, tmp_path):
        path = tmp_path / "r.jsonl"
        path.write_text("before")

        def broken():
            yield RECORDS[0]
            raise RuntimeError("the store is gone")

        with pytest.raises(RuntimeError):
            export(broken(), path)
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_directory_that_cannot_be_written(self, tmp_path):
        with pytest.raises(UsageError, match=r"cannot be written: No such file or directory"):
            export(RECORDS, tmp_path / "no" / "such" / "r.csv")


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_memory_does_not_grow_with_the_records(write):
    def records(n):
        for index in range(n):
            row = Row(index, f"k{index}", {"text": f"{index} " * 100})
            yield "e", Record(row, Outcome(RowStatus.DONE, 0.0, 0.0))

    class Sink(io.RawIOBase):
        written = 0

        def write(self, content):
            self.written += len(content)
            return len(content)

    sink = Sink()
    write(sink, records(10))
    tracemalloc.start()
    try:
        assert write(sink, records(5_000)) == 5_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.written > 2_000_000
    assert peak < 500_000
