"""A real RabbitMQ for the tests, private to the test session, on random ports of this machine.

It is Debian's package rabbitmq-server, started by hand; its files are below a temporary directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from tests.support.ports import free_port

_START_SECONDS = 180.0
_HOSTS_AT_ONCE = 12
# Not the script on PATH, which needs root and switches to another user.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")


class RabbitService:
    """A server that a test may also break. Each test gets a virtual host of its own by `rabbitmq_url`."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="rabbit"))
        port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}"
        (self._directory / "plugins").write_text("[].\n")
        self._environment = {
            **os.environ,
            "HOME": str(self._directory),
            "RABBITMQ_NODENAME": f"doteval{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self._data),
            "RABBITMQ_LOG_BASE": str(self._directory / "log"),
            # The file does not exist: parsing one takes a third of the server's start.
            "RABBITMQ_CONFIG_FILE": str(self._directory / "none"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG": "warning",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "plugins"),
            "RABBITMQ_PID_FILE": str(self._directory / "pid"),
            # Erlang's schedulers busy-wait on all cores by default.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self._process: subprocess.Popen[bytes] | None = None
        # Virtual hosts that no test has used yet.
        self._unused: list[str] = []

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def start(self) -> None:
        """Start the server, with the data that it kept if it ran before, and wait until it answers."""
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [_PROGRAMS / "rabbitmq-server"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with Connection(f"{self.url}//") as connection:
                    connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
                return
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self._directory / "output").read_text(errors="replace")
                    self.stop()
                    raise RuntimeError(f"RabbitMQ did not start\n{said[-2000:]}") from error
                time.sleep(0.2)

    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its child processes."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        if number is signal.SIGKILL:
            self._process.wait()

    def forget(self) -> None:
        """Remove its data, so that the next start is on an empty disk."""
        shutil.rmtree(self._data)
        self._unused.clear()

    def empty_host(self) -> str:
        """The name of a virtual host that no test has used yet."""
        if not self._unused:
            self._make_hosts([f"test{time.monotonic_ns()}" for _ in range(_HOSTS_AT_ONCE)])
        return self._unused.pop()

    def _make_hosts(self, names: list[str]) -> None:
        listed = ", ".join(f'<<"{name}">>' for name in names)
        # Each command takes a second to start, so one command makes them all.
        self.evaluate(
            '[begin ok = rabbit_vhost:add(Name, <<"test">>), '
            'rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name, '
            '<<".*">>, <<".*">>, <<".*">>, <<"test">>) '
            f"end || Name <- [{listed}]]."
        )
        self._unused += names

    def evaluate(self, expression: str) -> None:
        """Have the server evaluate an Erlang expression."""
        self.control("eval", expression)

    def control(self, *words: str) -> str:
        """Run rabbitmqctl. Returns its output."""
        return subprocess.run(
            [_PROGRAMS / "rabbitmqctl", "--quiet", "--node", self._environment["RABBITMQ_NODENAME"], *words],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
            # It starts an Erlang VM: two seconds on an idle machine, over a minute on a busy one.
            timeout=_START_SECONDS,
        ).stdout

    def stop(self) -> None:
        if self._process is not None and self.is_up():
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
        # Erlang's port mapper, which outlives the server that started it.
        subprocess.run(["epmd", "-kill"], env=self._environment, capture_output=True, timeout=30, check=False)
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="session")
def rabbitmq_service() -> Iterator[RabbitService]:
    """One server for the test session. Tests take `rabbitmq_url`."""
    if not (_PROGRAMS / "rabbitmq-server").exists():
        reason = "Debian's package rabbitmq-server is not installed"
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    service = RabbitService()
    service.start()
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def rabbitmq_url(rabbitmq_service: RabbitService) -> str:
    """``amqp://…`` of an empty virtual host, which is there as long as the server."""
    return f"{rabbitmq_service.url}/{rabbitmq_service.empty_host()}"
