"""The start of a server: failing commands, its environment, and which settings identify it."""

from __future__ import annotations

import asyncio
import socket
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from doteval.core.client_config import CacheMode, ClientConfig, configure_clients
from doteval.core.results import ErrorClass
from doteval.errors import ResourceError, UsageError
from doteval.providers.server.keeper import ports
from doteval.providers.server.provider import ServerProvider
from doteval.runner.error_classes import classify
from tests.support.model_servers import MOCK
from tests.support.processes import is_alive
from tests.support.project import wait_until

pytestmark = pytest.mark.usefixtures("runtime")


def failing(command: list[str], **settings: Any) -> str:
    with pytest.raises(ResourceError) as raised:
        asyncio.run(ServerProvider().setup("m", command=command, **settings))
    message = str(raised.value)
    assert classify(raised.value) is ErrorClass.INFRASTRUCTURE
    assert len(message.splitlines()) < 25
    assert all(len(line) < 250 for line in message.splitlines())
    return message


def test_a_command_that_exits_at_once() -> None:
    script = """
    import sys
    for number in range(1000):
        print(f"\\x1b[31mline {number}\\x1b[0m", "x" * 1000)
    print("progress 1%\\rprogress 2%")
    sys.exit("CUDA out of memory")
    """
    message = failing([sys.executable, "-c", textwrap.dedent(script), "{port}"])
    assert "exited with code 1 before it answered http://127.0.0.1:" in message
    assert message.splitlines()[-2].strip() == "CUDA out of memory"
    assert message.splitlines()[-3].strip() == "progress 2%"
    assert "\x1b" not in message
    output = Path(message.rpartition(" is in ")[2].rstrip("."))
    assert "line 0" in output.read_text()


def test_a_program_that_does_not_exist_and_a_directory_that_does_not() -> None:
    assert "the server nonesuch cannot be started: nonesuch: No such file" in failing(["nonesuch", "{port}"])
    assert "/nowhere: No such file" in failing(MOCK, directory="/nowhere")


def test_a_server_that_never_answers() -> None:
    message = failing(["sh", "-c", "echo loading; sleep 1000 # {port}"], start_timeout=0.5)
    assert "the server sh did not answer http://127.0.0.1:" in message
    assert "within 0.5 s" in message
    assert "loading" in message


def test_a_health_url_that_answers_with_an_error_is_not_ready() -> None:
    """The mock server has no /health and answers with 404."""
    message = failing(MOCK, start_timeout=3.0)
    assert "/health within 3 s" in message


@pytest.mark.parametrize("command", ["vllm serve m", [], ["vllm", 8000], ["vllm", "--port", "8000"]])
def test_invalid_commands_are_refused(command: Any) -> None:
    with pytest.raises(UsageError, match=r"list of strings|where the port goes"):
        asyncio.run(ServerProvider().setup("m", command=command))


def test_a_cancelled_setup_leaves_no_server(tmp_path: Path) -> None:
    async def give_up() -> None:
        command = ["sh", "-c", "echo $$ > started; exec sleep 1000 # {port}"]
        waiting = asyncio.create_task(ServerProvider().setup("m", command=command, directory=tmp_path))
        await asyncio.to_thread(wait_until, lambda: (tmp_path / "started").exists())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(give_up())
    assert not is_alive(int((tmp_path / "started").read_text()))


def test_another_command_or_environment_is_another_server(tmp_path: Path) -> None:
    async def compare() -> None:
        provider = ServerProvider()
        common: dict[str, Any] = {"health": "/v1/models", "directory": tmp_path}
        handles = [
            await provider.setup("m", command=MOCK, **common),
            await provider.setup("m", command=[*MOCK, "--reply", "{word} of {port}"], **common),
            await provider.setup("m", command=MOCK, environment={"LIGHT": "on"}, **common),
            await provider.setup("another name", command=MOCK, **common),
        ]
        urls = [handle.model.base_url for handle in handles]
        assert len(set(urls)) == 3
        assert urls[3] == urls[0]
        # Only {port} is replaced; other braces are part of the command.
        reply = await handles[1].model.chat("hello")
        assert reply.choices[0].message.content == "{word} of " + urls[1].rpartition(":")[2].removesuffix("/v1")
        for handle in handles:
            (servers,) = handle.get_stats()["servers"]
            assert str(handle.model.status.pid) in servers
            await handle.teardown()

    asyncio.run(compare())


def test_the_environment_of_a_server_has_no_settings_of_doteval(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOTEVAL_BROKER", "redis://:secret@host")
    monkeypatch.setenv("HF_HOME", "/models")
    message = failing(["sh", "-c", "env | grep -E 'DOTEVAL_|HF_HOME|OWN'; exit 1 # {port}"], environment={"OWN": "x"})
    assert "HF_HOME=/models" in message
    assert "OWN=x" in message
    assert "secret" not in message


def test_the_cache_tells_servers_on_the_same_port_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The replies of the same command are reused, on any port."""
    configure_clients(ClientConfig(cache=CacheMode.ON, cache_path=str(tmp_path / "cache.db")))
    monkeypatch.setattr(ports, "PORTS", 1)

    async def ask(word: str) -> tuple[str, int]:
        handle = await ServerProvider().setup(
            "m", command=[*MOCK, "--reply", word], health="/v1/models", directory=tmp_path
        )
        reply = await handle.model.chat("hello", temperature=0)
        port = handle.model.status.port
        await handle.teardown()
        return str(reply.choices[0].message.content), port

    try:
        replies = [asyncio.run(ask(word)) for word in ("red", "blue", "red")]
    finally:
        configure_clients(ClientConfig())
    assert [text for text, _ in replies] == ["red", "blue", "red"]
    # The port was the same each time, so the test compares what it should.
    assert len({port for _, port in replies}) == 1


def test_a_port_in_use_is_avoided(tmp_path: Path) -> None:
    async def port_of() -> int:
        handle = await ServerProvider().setup("m", command=MOCK, health="/v1/models", directory=tmp_path)
        port = int(handle.model.status.port)
        await handle.teardown()
        return port

    first = asyncio.run(port_of())
    assert asyncio.run(port_of()) == first
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert asyncio.run(port_of()) != first
