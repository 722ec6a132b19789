"""A real RabbitMQ for the tests, private to the test session, on random ports of this machine.

It is Debian's package rabbitmq-server, started by hand; its files are below a temporary directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

_START_SECONDS = 120.0
# Not what is on PATH, which wants to be root and becomes another user.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")


class RabbitService:
    """A running server. Each test gets a virtual host of its own by `rabbitmq_url`."""

    def __init__(
        self, directory: Path, port: int, environment: dict[str, str], process: subprocess.Popen[bytes]
    ) -> None:
        self.url = f"amqp://guest:guest@127.0.0.1:{port}"
        self._directory = directory
        self._environment = environment
        self._process = process

    def control(self, *words: str) -> None:
        """Run rabbitmqctl."""
        subprocess.run(
            [_PROGRAMS / "rabbitmqctl", "--quiet", "--node", self._environment["RABBITMQ_NODENAME"], *words],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        # Erlang's port mapper, which outlives the server that started it.
        subprocess.run(["epmd", "-kill"], env=self._environment, capture_output=True, timeout=30, check=False)
        shutil.rmtree(self._directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start() -> RabbitService:
    directory = Path(tempfile.mkdtemp(prefix="rabbit"))
    port, distribution, mapper = _free_port(), _free_port(), _free_port()
    (directory / "rabbitmq.conf").write_text("log.console = true\nlog.console.level = warning\n")
    (directory / "plugins").write_text("[].\n")
    environment = {
        **os.environ,
        "HOME": str(directory),
        "RABBITMQ_NODENAME": f"doteval{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        # Erlang's schedulers would spin on all cores while they wait.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
    }
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [_PROGRAMS / "rabbitmq-server"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    service = RabbitService(directory, port, environment, process)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with Connection(f"{service.url}//") as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
            return service
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = (directory / "output").read_text(errors="replace")
                service.stop()
                raise RuntimeError(f"RabbitMQ did not start\n{said[-2000:]}") from error
            time.sleep(0.2)


@pytest.fixture(scope="session")
def rabbitmq_service() -> Iterator[RabbitService]:
    """One server for the test session. Tests take `rabbitmq_url`."""
    if not (_PROGRAMS / "rabbitmq-server").exists():
        reason = "Debian's package rabbitmq-server is not installed"
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    service = _start()
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def rabbitmq_url(rabbitmq_service: RabbitService) -> Iterator[str]:
    """``amqp://…`` of an empty virtual host, which is deleted after the test."""
    name = f"test{time.monotonic_ns()}"
    rabbitmq_service.control("add_vhost", name)
    rabbitmq_service.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    yield f"{rabbitmq_service.url}/{name}"
    rabbitmq_service.control("delete_vhost", name)
