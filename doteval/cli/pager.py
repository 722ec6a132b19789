"""Shows long output through a pager, on a terminal only."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def paged() -> Iterator[Console]:
    """Give a console whose output goes through `$PAGER`, or `less` if that is not set; an empty one turns it off.

    Output that fits the screen is only printed. Without a terminal, or without such a program, there is no pager.
    """
    from doteval.cli import terminal

    command = shlex.split(os.environ.get("PAGER", "less"))
    if not sys.stdout.isatty() or not command or shutil.which(command[0]) is None:
        yield terminal.console()
        return
    # less: quit if it fits the screen, show colours, leave the text on the screen.
    environment = {**os.environ, "LESS": os.environ.get("LESS", "FRX")}
    sys.stdout.flush()
    pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, encoding="utf-8", errors="replace")
    assert pager.stdin is not None
    try:
        console = terminal.console()
        yield terminal.console(file=pager.stdin, force_terminal=True, width=console.width)
        pager.stdin.close()
    except BrokenPipeError:
        # The reader has seen enough.
        pass
    finally:
        _wait(pager)


def _wait(pager: subprocess.Popen[str]) -> None:
    while True:
        try:
            pager.communicate()
        except KeyboardInterrupt:
            # The pager decides what Ctrl-C means.
            continue
        except (BrokenPipeError, ValueError):
            # It has left without reading everything, or its input is closed already.
            pager.wait()
        return
