"""The silent connections of the tests: what is open carries nothing any more, and what comes later does."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.silent_connections import SilentNetwork, SilentProxy

# Says for each line of its input what comes back on the first connection, and what on one that is new. Data that is not
# acknowledged for half a second ends a connection here.
CLIENT = """
import socket, sys
def connected():
    made = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    return made
def echo(connection, text):
    try:
        connection.sendall(text.encode())
        return connection.recv(100).decode()
    except OSError as error:
        return type(error).__name__
first = connected()
for line in sys.stdin:
    print(echo(first, line.strip()), echo(connected(), line.strip()), flush=True)
"""


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(100):
            self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def echo_port() -> Iterator[int]:
    """The port of a server on all addresses that sends back what it gets."""
    with _Server(("0.0.0.0", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.slow("it needs root; the proxy below shows the same")
def test_a_network_drops_the_packets_of_open_connections_only(silent_network: SilentNetwork, echo_port: int) -> None:
    command = [*silent_network.prefix, sys.executable, "-c", CLIENT, silent_network.server, str(echo_port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        said, heard = client.stdin, client.stdout
        assert said is not None
        assert heard is not None

        def answers(text: str) -> list[str]:
            said.write(f"{text}\n")
            said.flush()
            return heard.readline().split()

        assert answers("before") == ["before", "before"]
        # The second connection of the client is closed, or still in its list of those that are open.
        assert silent_network.silence(echo_port) >= 1
        assert answers("after") == ["TimeoutError", "after"]
        said.close()
        assert client.wait(60) == 0


@pytest.mark.slow("it needs root; no test in `make test` makes a network")
def test_a_network_leaves_nothing_behind(silent_network: SilentNetwork) -> None:
    """The fixture has checked that networks can be made here."""
    with SilentNetwork() as another:
        name = another.prefix[-1]
        assert Path("/run/netns", name).exists()
        assert another.server in subprocess.check_output(["ip", "address"], text=True)
    assert not Path("/run/netns", name).exists()
    assert another.server not in subprocess.check_output(["ip", "address"], text=True)


def test_a_proxy_silences_open_connections_only(echo_port: int) -> None:
    with SilentProxy(echo_port) as proxy:
        address = ("127.0.0.1", proxy.port)
        with socket.create_connection(address, 20) as first, socket.create_connection(address, 20) as second:
            for connection in (first, second):
                connection.sendall(b"before")
                assert connection.recv(100) == b"before"
            assert proxy.silence() == 2
            for connection in (first, second):
                connection.sendall(b"after")
                connection.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    connection.recv(100)
            with socket.create_connection(address, 20) as third:
                third.sendall(b"later")
                assert third.recv(100) == b"later"
                assert proxy.silence() == 1
        assert proxy.silence() == 0


def test_a_proxy_passes_an_end_on_while_a_connection_is_not_silent(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with SilentProxy(path) as proxy:
            address = ("127.0.0.1", proxy.port)
            with socket.create_connection(address, 20) as near:
                far, _ = listener.accept()
                with far:
                    near.sendall(b"x" * 200_000)
                    near.shutdown(socket.SHUT_WR)
                    received = b"".join(iter(lambda: far.recv(65536), b""))
            assert received == b"x" * 200_000
            with socket.create_connection(address, 20) as near:
                far, _ = listener.accept()
                # What was carried shows that the connection is in the list of the open ones.
                near.sendall(b"x")
                assert far.recv(1) == b"x"
                proxy.silence()
                far.close()
                near.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    near.recv(1)
