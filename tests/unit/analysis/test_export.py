"""Exports: the content of each format, reading it back, and that a file is complete or absent."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from doteval.analysis.export import (
    FORMATS,
    CellTable,
    cell,
    complete_file,
    format_of,
    to_arrow,
    to_document,
    write_arrow,
    write_csv,
    write_documents,
    write_jsonl,
    write_parquet,
)
from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.errors import UsageError

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
PAGES: list[dict[str, Sequence[Any]]] = [
    {"key": ["k0", "k1"], "row.text": ['a, "b"\nc', None], "row.n": [1, 2], "started_at": [MOMENT, MOMENT]},
    {"key": ["k2"], "row.text": ["ä"], "row.n": [2.5], "score.right": [True], "started_at": [MOMENT]},
]
COLUMNS = ("key", "row.text", "row.n", "score.right", "cost", "started_at")

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
CELL = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT


def table(pages: Sequence[dict[str, Sequence[Any]]] = PAGES, columns: Sequence[str] = COLUMNS) -> CellTable:
    return CellTable(columns, pages)


def column(values: Sequence[Any], name: str = "row.x") -> CellTable:
    """A table of one column, in pages of two cells."""
    pages = [{name: values[first : first + 2]} for first in range(0, len(values), 2)]
    return CellTable([name], pages)


def written(write: Callable[[IO[bytes], CellTable], int], what: CellTable) -> tuple[int, bytes]:
    file = io.BytesIO()
    return write(file, what), file.getvalue()


def lines_of_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def as_text(value: Any) -> str | None:
    """The text of a cell in a column of mixed values."""
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


class TestDocuments:
    DONE = Record(
        Row(0, "k0", {"text": "b", "tags": ["x", "y"]}),
        Outcome(
            RowStatus.DONE,
            1000.5,
            0.25,
            scores=(Score("right", True, ("accuracy",), {"why": "same"}), Score("length", 12)),
            prompt="ä?",
            model_response={"text": "b", "at": MOMENT},
            metadata={"m": (1, 2)},
            usage=(Usage("small", requests=1, cost=0.5), Usage("large", requests=2)),
        ),
        worker="w1",
    )
    FAILED = Record(
        Row(1, "k1", {"text": None}, sample=3),
        Outcome(RowStatus.FAILED, 1001.0, 0.5, error=RowError("ValueError", "no", ErrorClass.TIMEOUT, "Traceback")),
    )

    def test_everything_is_read_back(self) -> None:
        file = io.BytesIO()
        documents = [to_document("e", "eval_a", self.DONE), to_document("e", "eval_b", self.FAILED)]
        assert write_documents(file, documents) == 2
        first, second = map(decode, file.getvalue().decode().splitlines())
        assert first == documents[0]
        assert (first["experiment"], first["evaluation"], first["worker"]) == ("e", "eval_a", "w1")
        assert first["values"] == self.DONE.row.values
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
        assert (second["row"], second["sample"], second["status"]) == (1, 3, "failed")

    def test_each_line_is_plain_json(self) -> None:
        file = io.BytesIO()
        write_documents(file, [to_document("e", "eval_a", self.DONE)])
        assert [json.loads(line)["key"] for line in file.getvalue().splitlines()] == ["k0"]


class TestCells:
    @pytest.mark.parametrize("value", [None, True, -3, 2.5, "text", 2**63 - 1])
    def test_what_a_table_can_hold_stays(self, value: Any) -> None:
        assert cell(value) is value

    @pytest.mark.parametrize("value", [[1, 2], {"a": None}, (1,), MOMENT, b"\x00"])
    def test_anything_else_is_json_that_can_be_read_back(self, value: Any) -> None:
        assert decode(cell(value)) == value

    def test_a_lone_surrogate_does_not_stop_the_export(self) -> None:
        assert cell("a\ud800") == "a?"

    def test_an_integer_that_no_column_can_hold_is_text(self) -> None:
        assert cell(2**63) == "9223372036854775808"


class TestCsv:
    def test_a_table(self) -> None:
        count, content = written(write_csv, table())
        assert count == 3
        assert lines_of_csv(content) == [
            {
                "key": "k0",
                "row.text": 'a, "b"\nc',
                "row.n": "1",
                "score.right": "",
                "cost": "",
                "started_at": "2026-01-02T03:04:05.600000+00:00",
            },
            {
                "key": "k1",
                "row.text": "",
                "row.n": "2",
                "score.right": "",
                "cost": "",
                "started_at": "2026-01-02T03:04:05.600000+00:00",
            },
            {
                "key": "k2",
                "row.text": "ä",
                "row.n": "2.5",
                "score.right": "true",
                "cost": "",
                "started_at": "2026-01-02T03:04:05.600000+00:00",
            },
        ]

    def test_no_rows_leave_a_header(self) -> None:
        assert written(write_csv, table([])) == (0, b"key,row.text,row.n,score.right,cost,started_at\r\n")

    @given(st.lists(TEXT, min_size=1, max_size=5))
    def test_any_text_is_read_back(self, texts: list[str]) -> None:
        read = lines_of_csv(written(write_csv, CellTable(["key", "row.x"], [{"key": texts, "row.x": texts}]))[1])
        assert [(line["key"], line["row.x"]) for line in read] == [(text, text) for text in texts]

    def test_numbers_that_are_not_finite(self) -> None:
        read = lines_of_csv(written(write_csv, column([math.nan, math.inf]))[1])
        assert [line["row.x"] for line in read] == ["nan", "inf"]


class TestJsonLines:
    def test_one_flat_object_a_line(self) -> None:
        count, content = written(write_jsonl, table())
        assert count == 3
        assert json.loads(content.splitlines()[2]) == {
            "key": "k2",
            "row.text": "ä",
            "row.n": 2.5,
            "score.right": True,
            "cost": None,
            "started_at": "2026-01-02T03:04:05.600000+00:00",
        }


class TestParquet:
    def test_types(self) -> None:
        count, content = written(write_parquet, table())
        read = parquet.read_table(io.BytesIO(content))
        assert count == 3
        assert {field.name: str(field.type) for field in read.schema} == {
            "key": "large_string",
            "row.text": "large_string",
            "row.n": "double",
            "score.right": "bool",
            "cost": "double",
            "started_at": "timestamp[us, tz=UTC]",
        }
        assert read["row.n"].to_pylist() == [1.0, 2.0, 2.5]
        assert read["score.right"].to_pylist() == [None, None, True]
        assert read["started_at"].to_pylist() == [MOMENT] * 3

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ([1, 2, None, 4], "int64"),
            ([None, None, 1, 2.5], "double"),
            ([True, None, False], "bool"),
            (["a", None, "b"], "large_string"),
            ([None, None], "large_string"),
            ([MOMENT, None, MOMENT], "timestamp[us, tz=UTC]"),
        ],
    )
    def test_a_column_has_the_type_of_its_cells(self, values: list[Any], kind: str) -> None:
        read = to_arrow(column(values))["row.x"]
        assert (str(read.type), read.to_pylist()) == (kind, values)

    def test_a_column_of_mixed_values_is_text(self) -> None:
        read = to_arrow(column([1, "a", True, None, "[1]", 2.5, 1e300]))["row.x"]
        assert read.to_pylist() == ["1", "a", "true", None, "[1]", "2.5", "1e+300"]

    def test_a_large_integer_among_numbers_does_not_lose_its_digits(self) -> None:
        assert to_arrow(column([2**53 + 1, 1, 0.5]))["row.x"].to_pylist() == ["9007199254740993", "1", "0.5"]

    @given(st.lists(CELL, max_size=7))
    def test_what_is_read_is_what_was_written_or_its_text(self, values: list[Any]) -> None:
        read = to_arrow(column(values))["row.x"].to_pylist()
        assert read in (values, [as_text(value) for value in values])

    def test_no_rows(self) -> None:
        read = parquet.read_table(io.BytesIO(written(write_parquet, table([]))[1]))
        assert read.num_rows == 0
        assert str(read.schema.field("cost").type) == "double"

    def test_many_pages(self) -> None:
        count, content = written(write_parquet, column(list(range(2_501))))
        read = parquet.ParquetFile(io.BytesIO(content))
        assert count == 2_501
        assert read.read()["row.x"].to_pylist() == list(range(2_501))
        # Groups of few rows would be slow to read.
        assert read.num_row_groups == 1

    def test_without_pyarrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(UsageError, match="needs pyarrow") as raised:
            written(write_parquet, table())
        assert raised.value.remedy == "Install it: pip install 'doteval[parquet]'"


def test_arrow_has_what_parquet_has() -> None:
    count, content = written(write_arrow, table())
    assert count == 3
    assert ipc.open_file(io.BytesIO(content)).read_all() == to_arrow(table())


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "given_format", "found"),
        [("r.csv", None, "csv"), ("r.JSONL", None, "jsonl"), ("a.b.arrow", None, "arrow"), ("r.txt", "csv", "csv")],
    )
    def test_the_format(self, name: str, given_format: str | None, found: str) -> None:
        assert format_of(Path(name), given_format) == found
        assert found in FORMATS

    @pytest.mark.parametrize(
        ("name", "problem"), [("r.xlsx", "'xlsx' is not an export format"), ("r", "does not tell the export format")]
    )
    def test_unknown_formats(self, name: str, problem: str) -> None:
        with pytest.raises(UsageError, match=problem) as raised:
            format_of(Path(name))
        assert raised.value.remedy == "The formats are csv, jsonl, parquet, arrow."

    def test_an_error_keeps_the_existing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "r.jsonl"
        path.write_text("before")

        def pages() -> Iterator[dict[str, Sequence[Any]]]:
            yield PAGES[0]
            raise RuntimeError("the store is gone")

        with pytest.raises(RuntimeError), complete_file(path) as file:
            write_jsonl(file, CellTable(COLUMNS, pages()))
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_is_no_file_is_written_to(self, tmp_path: Path) -> None:
        pipe, link, file = tmp_path / "pipe.csv", tmp_path / "link.csv", tmp_path / "file.csv"
        os.mkfifo(pipe)
        link.symlink_to(file)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            for path in (pipe, link):
                with complete_file(path) as opened:
                    opened.write(b"all of it")
            assert os.read(reader, 100) == b"all of it"
        finally:
            os.close(reader)
        assert (pipe.is_fifo(), link.is_symlink(), file.read_bytes()) == (True, True, b"all of it")
        assert sorted(tmp_path.iterdir()) == [file, link, pipe]

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        path = tmp_path / "no" / "such" / "r.csv"
        with pytest.raises(UsageError, match=r"cannot be written: No such file or directory"), complete_file(path):
            pytest.fail("there is no such file")


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_memory_does_not_grow_with_the_rows(write: Callable[[IO[bytes], CellTable], int]) -> None:
    def pages(n: int) -> Iterator[dict[str, Sequence[Any]]]:
        for page in range(n):
            yield {"key": [f"{page} {row} " * 50 for row in range(10)], "row": list(range(10))}

    class Sink(io.RawIOBase):
        size = 0

        def writable(self) -> bool:
            return True

        def write(self, content: Any) -> int:
            self.size += len(content)
            return len(content)

    sink = Sink()
    write(sink, CellTable(["key", "row"], pages(10)))  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        assert write(sink, CellTable(["key", "row"], pages(500))) == 5_000  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000
