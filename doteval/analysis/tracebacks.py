"""Finds what in a traceback is about the author's own code."""

from __future__ import annotations

import re
from pathlib import Path

_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line \d+')
# Frames of libraries: installed packages, Python's own modules, code without a file, and doteval itself.
_LIBRARY = re.compile(r"[\\/](?:site-packages|dist-packages)[\\/]|[\\/]lib[\\/]python\d|^<")
_OWN_PACKAGE = str(Path(__file__).parents[1])


def own_frames(traceback: str) -> str:
    """The part of a traceback that is about the author's own code: their frames, and the last line.

    Empty if all frames are theirs, or none is.
    """
    blocks: list[list[str]] = []
    rest: list[str] = []
    for line in traceback.splitlines():
        if _FRAME.match(line):
            blocks.append([line])
        elif blocks and line.startswith("    ") and not rest:
            blocks[-1].append(line)
        elif blocks:
            rest = [line] if line.strip() and not line.startswith(" ") else rest
    own = [block for block in blocks if not _is_of_library(block[0])]
    if not own or len(own) == len(blocks):
        return ""
    last = [line for line in traceback.splitlines() if line.strip()][-1]
    return "\n".join([line for block in own for line in block] + [last])


def _is_of_library(frame: str) -> bool:
    found = _FRAME.match(frame)
    assert found is not None
    file = found["file"]
    return _LIBRARY.search(file) is not None or file.startswith(_OWN_PACKAGE)
