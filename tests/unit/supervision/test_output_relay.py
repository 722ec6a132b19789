"""What worker processes print is passed on line by line."""

from __future__ import annotations

import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from doteval.supervision.output_relay import OutputFile


def test_lines_are_whole_however_they_were_written(tmp_path: Path) -> None:
    lines: list[str] = []
    output = OutputFile(lines.append, tmp_path)
    for piece in (b"one\ntw", b"", b"o", b"\n\nthr", b"ee"):
        output.file.write(piece)
        output.pass_on()
    assert lines == ["one", "two"]
    output.close()
    assert lines == ["one", "two", "three"]


@pytest.mark.parametrize("size", [8, 1_000_000])
def test_a_megabyte_without_an_end_of_line_is_cut_and_read_in_linear_time(tmp_path: Path, size: int) -> None:
    """If every piece were added to the line before it, this would take minutes."""
    lines: list[str] = []
    output = OutputFile(lines.append, tmp_path)
    for _ in range(1_000_000 // size):
        output.file.write(b"." * size)
        output.pass_on()
    assert lines == []
    output.file.write(b"\nnext\n")
    output.pass_on()
    assert lines == [f"{'.' * 100_000}... (1,000,000 bytes in this line)", "next"]
    output.close()


def test_a_line_that_never_ends_takes_no_memory(tmp_path: Path) -> None:
    lines: list[str] = []
    output = OutputFile(lines.append, tmp_path)
    tracemalloc.start()
    try:
        for _ in range(20):
            output.file.write(b"." * 1_000_000)
            output.pass_on()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1_000_000
    output.close()
    assert [line[-35:] for line in lines] == ["... (20,000,000 bytes in this line)"]


def test_one_call_reads_a_bounded_part_of_what_was_printed(tmp_path: Path) -> None:
    lines: list[str] = []
    output = OutputFile(lines.append, tmp_path)
    line = b"." * 1023 + b"\n"
    for _ in range(17):
        output.file.write(line * 1024)
    output.pass_on()
    assert len(lines) == 16 * 1024
    output.close()
    assert len(lines) == 17 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives parts of a file back")
def test_what_was_passed_on_takes_no_place_on_the_disk(tmp_path: Path) -> None:
    lines: list[str] = []
    output = OutputFile(lines.append, tmp_path)
    for number in range(60):
        output.file.write(f"{number} ".encode() + b"." * 1_000_000 + b"\n")
        output.pass_on()
    assert os.fstat(output.file.fileno()).st_blocks * 512 < 20_000_000
    output.close()
    assert [int(line.split()[0]) for line in lines] == list(range(60))
