"""A terminal that is closed: what is written to it is lost, and nothing else happens."""

from __future__ import annotations

import errno
import os
import pty
from pathlib import Path

import pytest

from doteval.core.standard_streams import _Terminal, terminal_writer


@pytest.mark.parametrize("text", ["a line\n", "no newline", "ünïcödé \ud800\n" * 10_000])
def test_writing_to_a_closed_terminal_is_no_error(text: str) -> None:
    master, slave = pty.openpty()
    stream = terminal_writer(slave)
    stream.write("shown\n")
    assert os.read(master, 100) == b"shown\r\n"
    assert stream.isatty()
    os.close(master)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.write(slave, b"x")
    stream.write(text)
    stream.flush()
    assert not stream.isatty()
    os.close(slave)


def test_other_errors_stay_errors() -> None:
    with Path("/dev/full").open("wb") as full:
        terminal = _Terminal(full.fileno(), "w", closefd=False)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            terminal.write(b"x")
