"""Starts a keeper: listens on the socket, detaches from the calling process, and serves."""

import json
import os
import socket
import sys
from pathlib import Path

if not __package__:
    # Run by its path, with -I and -S: make this directory importable as the package `keeper`, which is what the
    # relative imports below resolve against (PEP 366).
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    __package__ = "keeper"

from .files import ERRORS, SOCKET
from .keeper import Keeper


def main() -> None:
    """Run a keeper in the directory that the command line names.

    The calling process exits with code 0 as soon as users can connect; the keeper goes on in a child of it.
    """
    settings = json.load(sys.stdin)
    # Relative paths from here on: the path of a socket is limited to about 100 bytes.
    os.chdir(sys.argv[1])
    Path(SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen(128)
    if os.fork():
        os._exit(0)
    with Path(ERRORS).open("wb") as errors, Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    Keeper(settings, listener).serve()


if __name__ == "__main__":
    main()
