"""Connections that go silent: those that are open carry nothing any more, and nobody closes them; new ones work.

So it is after a firewall or NAT has forgotten its table, or after a failover of a network address. `SilentNetwork`
drops packets, as they do: the kernel at each end sees that nothing is acknowledged. It needs root. `SilentProxy` needs
nothing; the kernels at both ends see a healthy connection, whose other side never answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

_T = TypeVar("_T")
_Ends = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class SilentNetwork:
    """A network namespace for clients, and another between it and this machine that can drop packets like a firewall.

    As a context manager. `prefix` before a command runs it in the namespace of the clients, with the id of the process
    that was started. A server on this machine listens on `server` (or 0.0.0.0), and the clients connect to that.
    """

    def __init__(self) -> None:
        name = f"dv{secrets.token_hex(3)}"
        self._clients, self._firewall, self._link = f"{name}c", f"{name}f", f"{name}o"
        subnet = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(256)}"
        self.server, self._outside = f"{subnet}.1", f"{subnet}.2"
        self._inside, self.client = f"{subnet}.5", f"{subnet}.6"
        self._clients_subnet = f"{subnet}.4/30"

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self._clients]

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def silence(self, port: int) -> int:
        """Drop the packets of all connections from the clients to `port` that are open. Returns how many these are."""
        shown = _ip(*self.prefix[1:], "ss", "-tnH", "state", "established", "dport", "=", f":{port}")
        # Columns: received, sent, local address, peer. With an IPv4 address in IPv6 the port comes last, too.
        ours = [line.split()[2].rpartition(":")[2] for line in shown.splitlines()]
        rules = [f"-A FORWARD -p tcp --sport {own} --dport {port} -j DROP" for own in ours]
        rules += [f"-A FORWARD -p tcp --sport {port} --dport {own} -j DROP" for own in ours]
        self._filter(rules)
        return len(ours)

    def restore(self) -> None:
        """Drop nothing any more: what both ends still hold goes on."""
        _ip("netns", "exec", self._firewall, "iptables", "-F")

    def _filter(self, rules: list[str]) -> None:
        # All at once: a connection that is silent one way only would be another fault.
        table = "\n".join(("*filter", *rules, "COMMIT", ""))
        restore = ["ip", "netns", "exec", self._firewall, "iptables-restore", "--noflush"]
        subprocess.run(restore, input=table, check=True, text=True)

    def _make(self) -> None:
        clients, firewall = self._clients, self._firewall
        for name in (clients, firewall):
            _ip("netns", "add", name)
            _ip("-netns", name, "link", "set", "lo", "up")
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "outside", "netns", firewall)
        _ip("address", "add", f"{self.server}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        _ip("route", "add", self._clients_subnet, "via", self._outside)
        _ip("-netns", firewall, "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", clients)
        for name, device, address in (
            (firewall, "outside", self._outside),
            (firewall, "inside", self._inside),
            (clients, "eth0", self.client),
        ):
            _ip("-netns", name, "address", "add", f"{address}/30", "dev", device)
            _ip("-netns", name, "link", "set", device, "up")
        _ip("-netns", clients, "route", "add", "default", "via", self._inside)
        _ip("netns", "exec", firewall, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def _remove(self) -> None:
        # The kernel takes its time to delete a namespace, and waits for the processes in it.
        if Path("/sys/class/net", self._link).exists():
            _ip("link", "delete", self._link)
        for name in (self._clients, self._firewall):
            if Path("/run/netns", name).exists():
                _ip("netns", "delete", name)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
def silent_network() -> Iterator[SilentNetwork]:
    """A network whose connections can be silenced. Skips without root, but not on CI."""
    missing = [name for name in ("ip", "ss", "iptables") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"no {', '.join(missing)} on the PATH" if missing else "only root may make network namespaces"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, on CI")
        pytest.skip(reason)
    with SilentNetwork() as network:
        yield network


class SilentProxy:
    """A TCP proxy before a server, as a context manager; it can silence the connections that are open.

    server: the port of a server on this machine, or the path of its Unix socket. Set it to another one, and connections
        that come later are carried there.
    host: the address that it listens on; `port` is where.
    """

    def __init__(self, server: int | Path, *, host: str = "127.0.0.1") -> None:
        self.server = server
        self._host = host
        self.port = 0
        # Each connection by its two ends.
        self._open: set[_Ends] = set()
        self._silent: set[_Ends] = set()
        self._carrying: set[asyncio.Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="silent-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def silence(self) -> int:
        """Carry nothing any more between the two ends of the connections that are open. Returns how many these are."""
        return self._do(self._silence())

    def _do(self, action: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(60)

    async def _listen(self) -> int:
        self._listener = await asyncio.start_server(self._serve, self._host, 0)
        return int(self._listener.sockets[0].getsockname()[1])

    async def _silence(self) -> int:
        newly = self._open - self._silent
        self._silent |= newly
        return len(newly)

    async def _close(self) -> None:
        self._listener.close()
        serving = asyncio.all_tasks() - {asyncio.current_task(), *self._carrying}
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self.server, Path):
                far_reader, far_writer = await asyncio.open_unix_connection(self.server)
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.server)
        except OSError:
            writer.close()
            return
        ends = (writer, far_writer)
        self._open.add(ends)
        carrying = {asyncio.ensure_future(self._carry(reader, far_writer, ends))}
        carrying.add(asyncio.ensure_future(self._carry(far_reader, writer, ends)))
        self._carrying |= carrying
        try:
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The proxy ends. asyncio would report that as an error of the stream.
            return
        finally:
            for task in carrying:
                task.cancel()
            for end in ends:
                end.close()
            self._carrying -= carrying
            self._open.discard(ends)
            self._silent.discard(ends)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, ends: _Ends) -> None:
        """Carry one direction until it ends. Of a silent connection nothing is carried, not even its end."""
        data = b"some"
        while data:
            try:
                data = await source.read(65536)
            except OSError:
                data = b""
            if ends in self._silent:
                await asyncio.Event().wait()
            if data:
                sink.write(data)
                with contextlib.suppress(OSError):
                    await sink.drain()
