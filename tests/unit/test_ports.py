"""Each port that `tests.support.ports` gives out belongs to one test."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ports

ROOT = Path(__file__).parents[2]


def take_the_only(port: int) -> str:
    """What another process gets if this is the only port there is: the port, or an error."""
    script = f"from tests.support import ports; ports._PORTS = range({port}, {port + 1}); print(ports.free_port())"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or ran.stderr.splitlines()[-1]


def test_no_test_gets_a_port_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free_port()
    assert take_the_only(port) == "OSError: every port is taken"
    monkeypatch.setattr(ports, "_PORTS", range(port, port + 1))
    with pytest.raises(OSError, match="every port is taken"):
        ports.free_port()


def test_nobody_listens_on_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert take_the_only(port) == "OSError: every port is taken"
    assert take_the_only(port) == str(port)


def test_the_kernel_gives_such_a_port_to_nobody() -> None:
    """It chooses ports of connections, and those of programs that ask for any port, from another range."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert ports._PORTS.stop <= lowest
