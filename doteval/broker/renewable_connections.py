"""Connections to Redis that any thread can have made anew, also while another one waits for an answer.

A connection whose packets are dropped on the way says nothing: it neither answers nor ends. All connections of a
process go silent together, and a thread that waits on one would wait on the next one after it.
"""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any

_connected: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


class RenewableConnection:
    """Notes a connection of redis-py as it connects: the part of its class that comes first."""

    def on_connect_check_health(self, check_health: bool = True) -> None:
        # From here on this waits for answers: to its handshake first.
        with _lock:
            _connected.add(self)
        super().on_connect_check_health(check_health=check_health)  # type: ignore[misc] # redis-py's class follows


def renewable(connection_class: type) -> type:
    """The class of redis-py's connections `connection_class`, whose connections `renew_connections` ends."""
    return type(connection_class.__name__, (RenewableConnection, connection_class), {})


def renew_connections() -> int:
    """End all connections of this process to a Redis broker. Returns how many were open.

    Threads that wait on one get redis.exceptions.ConnectionError at once, and the next command connects anew.
    """
    with _lock:
        connections = list(_connected)
    return sum(_shut_down(connection._sock) for connection in connections)


def _shut_down(sock: socket.socket | None) -> bool:
    if sock is None:
        return False
    try:
        # Only this ends the wait of another thread. Of TLS it leaves the state to the thread that uses the connection.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        # It is closed already.
        return False
    return True
