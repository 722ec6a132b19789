"""Chooses the port that a server listens on."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator

# Below the ports that the kernel gives to outgoing connections (32768 and more on Linux).
FIRST_PORT, PORTS = 20_000, 12_000


def reserve_port(first: int) -> tuple[int, int]:
    """Find a port that nobody listens on, and lock it against other keepers.

    `first` is tried first: it belongs to the command, so that a server mostly has the port it had last time.
    Returns the port and the descriptor of the locked file, which must stay open.

    Raises OSError if every port is taken.
    """
    for port in _ports_from(first):
        reservation = os.open(f"../port-{port}", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(reservation, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(reservation)
            continue
        return port, reservation
    raise OSError("every port is taken")


def _ports_from(first: int) -> Iterator[int]:
    for step in range(PORTS):
        yield FIRST_PORT + (first - FIRST_PORT + step) % PORTS
