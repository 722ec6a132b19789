"""What worker processes print is passed on line by line."""

from __future__ import annotations

from pathlib import Path

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


def test_a_megabyte_without_an_end_of_line_is_read_in_linear_time(tmp_path: Path) -> None:
    """If every piece were added to the line before it, this would take minutes."""
    lines: list[str] = []
    output = OutputFile(lines.append, tmp_path)
    for _ in range(125_000):
        output.file.write(b"........")
        output.pass_on()
    output.close()
    assert [len(line) for line in lines] == [1_000_000]
