"""Free ports for servers that are given their port and bind it later."""

from __future__ import annotations

import random
import socket

# Below the ports that the kernel gives to connections and to programs that bind port 0 (32768 and more on Linux). Any
# connection may take one of those between the choice and the server's start, or while the server restarts.
_PORTS = range(10_000, 20_000)
# One for each port that was given out, bound for as long as this process lives, to a name in the kernel's abstract
# namespace. So no two test processes of this machine choose the same port.
_claims: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on, and that no other test will be given."""
    for port in random.sample(_PORTS, len(_PORTS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0doteval-test-port-{port}")
            with socket.socket() as probe:
                # A connection of an earlier server may linger there.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise OSError("every port is taken")
