"""A server runs as long as one process uses it, even if processes die or hang in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from doteval.errors import ResourceError
from doteval.providers.server.keeper import files
from doteval.providers.server.provider import ServerProvider
from tests.support.model_servers import MOCK, MakeUser, User
from tests.support.processes import is_alive, is_stopped
from tests.support.project import wait_until

pytestmark = pytest.mark.usefixtures("runtime")


def test_two_processes_share_a_server_and_the_last_one_stops_it(user: MakeUser, runtime: Path) -> None:
    first, second = user(), user()
    # At the same time.
    first.ask("setup")
    second.ask("setup")
    url = first.answer()
    assert url == second.answer()
    assert url.startswith("http://127.0.0.1:")
    server = first.pid
    assert second.pid == server
    assert first("chat") == second("chat")
    (place,) = (runtime / "doteval-servers").glob("*/")
    status = json.loads((place / files.STATUS).read_text())
    assert sorted(status["users"]) == sorted([first.process.pid, second.process.pid])
    assert (status["state"], status["pid"], status["restarts"]) == ("ready", server, 0)
    for directory in (place, place.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    assert first("close") is None
    assert is_alive(server)
    assert second("chat").startswith("mock reply")
    assert second("close") is None
    # The teardown has waited for the end of the server.
    assert not is_alive(server)
    assert [path.name for path in place.iterdir()] == [files.LOCK]


def status_when_ready(user: User) -> list[Any]:
    """The status once it is ready: the server may answer requests before its keeper has reported that."""
    status: list[Any] = wait_until(lambda: (status := user("status"))[0] == "ready" and status)
    return status


@pytest.mark.faults
def test_a_server_that_dies_is_restarted_on_the_same_port(user: MakeUser) -> None:
    first, second = user(), user()
    url = first("setup")
    assert second("setup") == url
    server = first.pid
    os.kill(server, signal.SIGKILL)
    assert first("chat").startswith("mock reply")
    assert second("chat").startswith("mock reply")
    assert status_when_ready(first) == status_when_ready(second)
    state, again, restarts = status_when_ready(first)
    assert (state, restarts) == ("ready", 1)
    assert again != server
    assert first("client").rstrip("/") == url


@pytest.mark.faults
def test_a_server_that_keeps_dying_fails_for_good(user: MakeUser, tmp_path: Path) -> None:
    """It starts twice, and then exits with an error."""
    script = """
    import pathlib, runpy, sys
    count = pathlib.Path("count")
    count.write_text(count.read_text() + "x" if count.exists() else "x")
    print("I was started", len(count.read_text()), flush=True)
    if len(count.read_text()) > 2:
        sys.exit("no memory left on the device")
    runpy.run_module("doteval.mock_openai", run_name="__main__", alter_sys=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "--port", "{port}"]
    one = user(command=command, max_restarts=3)
    one("setup")
    os.kill(one.pid, signal.SIGKILL)
    assert one("chat").startswith("mock reply")
    os.kill(one.pid, signal.SIGKILL)
    error = one("chat")["error"]
    assert "was restarted 3 times, and exited with code 1" in error
    assert "no memory left on the device" in error
    assert (tmp_path / "count").read_text() == "xxxx"
    assert len(error.splitlines()) < 25
    # The next row fails at once, without waiting for a connection.
    assert "was restarted 3 times" in one("client")["error"]
    assert one("close") is None


@pytest.mark.faults
def test_a_server_that_hangs_is_restarted(user: MakeUser) -> None:
    one = user(hang_timeout=3.0, stop_timeout=0.5)
    url = one("setup")
    server = one.pid
    # From now on it accepts connections, which the kernel does, and never answers.
    os.kill(server, signal.SIGSTOP)
    assert one("chat").startswith("mock reply")
    state, again, restarts = status_when_ready(one)
    assert (state, restarts) == ("ready", 1)
    assert again != server
    assert not is_alive(server)
    assert one("client").rstrip("/") == url


@pytest.mark.faults
def test_a_server_that_keeps_hanging_fails_for_good(user: MakeUser, tmp_path: Path) -> None:
    """After each start it answers one health check and then hangs."""
    script = """
    import http.server, sys, time
    class Well(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    with open("starts", "a") as starts:
        starts.write("x")
    with http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Well) as server:
        server.handle_request()
        print("thinking about it", flush=True)
    time.sleep(1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "{port}"]
    one = user(command=command, hang_timeout=2.0, max_restarts=2)
    one("setup")
    error = wait_until(lambda: "error" in (answer := one("client")) and answer["error"])
    assert "was restarted 2 times, and did not answer http://127.0.0.1:" in error
    assert "for 2 s" in error
    assert "thinking about it" in error
    assert (tmp_path / "starts").read_text() == "xxx"


@pytest.mark.faults
def test_the_server_survives_a_killed_user_and_ends_with_the_last_one(user: MakeUser) -> None:
    first, second = user(), user()
    first("setup")
    second("setup")
    server = second.pid
    first.kill()
    assert second("chat").startswith("mock reply")
    assert second("status") == ["ready", server, 0]
    second.kill()
    wait_until(lambda: not is_alive(server))


@pytest.mark.faults
def test_a_killed_keeper_is_replaced_and_the_server_keeps_its_port(user: MakeUser, runtime: Path) -> None:
    """This happens when the systemd service ends whose worker process started the keeper."""
    users = [user() for _ in range(3)]
    urls = {each("setup") for each in users}
    assert len(urls) == 1
    for restarts in (1, 2):
        server = users[0].pid
        (status,) = runtime.glob(f"doteval-servers/*/{files.STATUS}")
        os.kill(json.loads(status.read_text())["keeper"], signal.SIGKILL)
        assert {each("chat")[:10] for each in users} == {"mock reply"}
        # The first user that noticed the keeper's end killed the server, which may take a moment.
        wait_until(lambda: not is_alive(server))  # noqa: B023 - called here only
        assert len({each.pid for each in users}) == 1
        assert [status_when_ready(each)[::2] for each in users] == [["ready", restarts]] * 3
    assert {each("client").rstrip("/") for each in users} == urls


WITH_CHILD = """
import subprocess, sys, runpy, signal
child = subprocess.Popen(["sleep", "1000"])
open("child", "w").write(str(child.pid))
runpy.run_module("doteval.mock_openai", run_name="__main__", alter_sys=True)
"""


def child_of(tmp_path: Path) -> int:
    return int((tmp_path / "child").read_text())


@pytest.mark.parametrize(
    "how",
    ["closed", *(pytest.param(f"{who} killed", marks=pytest.mark.faults) for who in ("user", "keeper", "server"))],
)
def test_the_whole_process_group_ends(user: MakeUser, tmp_path: Path, runtime: Path, how: str) -> None:
    one = user(command=[sys.executable, "-c", WITH_CHILD, "--port", "{port}"], max_restarts=0)
    one("setup")
    server, child = one.pid, child_of(tmp_path)
    assert is_alive(child)
    (status,) = runtime.glob(f"doteval-servers/*/{files.STATUS}")
    match how:
        case "closed":
            assert one("close") is None
        case "user killed":
            one.kill()
        case "keeper killed":
            os.kill(json.loads(status.read_text())["keeper"], signal.SIGKILL)
        case "server killed":
            os.kill(server, signal.SIGKILL)
    wait_until(lambda: not is_alive(server) and not is_alive(child))
    if how == "keeper killed":
        # The user learns of it from a connection that breaks, perhaps after the server has ended.
        wait_until(lambda: "its keeper was killed" in str(one("client")))
    if how == "server killed":
        assert "was ended by signal 9" in one("chat")["error"]


@pytest.mark.faults
def test_the_next_user_kills_what_is_left_if_keeper_and_users_are_killed_at_once(
    user: MakeUser, tmp_path: Path, runtime: Path
) -> None:
    settings = {"command": [sys.executable, "-c", WITH_CHILD, "--port", "{port}"]}
    one = user(**settings)
    one("setup")
    server, child = one.pid, child_of(tmp_path)
    (status,) = runtime.glob(f"doteval-servers/*/{files.STATUS}")
    keeper = json.loads(status.read_text())["keeper"]
    # Neither of the two may react to the death of the other.
    os.kill(one.process.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(one.process.pid))
    os.kill(keeper, signal.SIGKILL)
    os.kill(one.process.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(server))
    assert is_alive(child)
    another = user(**settings)
    another("setup")
    assert not is_alive(child)
    assert another.pid != server
    assert another("chat").startswith("mock reply")


@pytest.mark.faults
def test_a_server_that_ignores_sigterm_is_killed(user: MakeUser) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(
        """
        import asyncio, runpy
        asyncio.BaseEventLoop.add_signal_handler = lambda *_: None
        from asyncio import unix_events
        unix_events._UnixSelectorEventLoop.add_signal_handler = lambda *_: None
        runpy.run_module("doteval.mock_openai", run_name="__main__", alter_sys=True)
        """
    )
    one = user(command=[sys.executable, "-c", script, "--port", "{port}"], stop_timeout=0.5)
    one("setup")
    server = one.pid
    start = time.monotonic()
    assert one("close") is None
    assert 0.5 <= time.monotonic() - start < 8
    assert not is_alive(server)


@pytest.mark.faults
def test_a_user_that_connects_while_the_last_one_leaves_gets_a_server(user: MakeUser) -> None:
    """At any moment, either the old server ends before the new one starts, or it stays."""
    one = user()
    one("setup")
    for moment in range(0, 8, 2):
        server = one.pid
        two = user()
        two.ask("setup")
        # The other process takes about half a second to start.
        time.sleep(0.1 * moment)
        assert one("close") is None
        assert two.answer().startswith("http://127.0.0.1:")
        assert two("chat").startswith("mock reply")
        assert two.pid == server or not is_alive(server)
        one.end()
        one = two


@pytest.mark.faults
def test_a_fork_does_not_hold_the_server(tmp_path: Path) -> None:
    """Such as the processes of a prefork pool or of multiprocessing."""
    script = """
    import asyncio, json, os, sys, time
    from doteval.providers.server.provider import ServerProvider
    settings = json.loads(sys.argv[1])
    handle = asyncio.run(ServerProvider().setup(**settings))
    print(handle.model.status.pid, flush=True)
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
    """
    given = {"spec": "m", "command": MOCK, "health": "/v1/models", "directory": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), json.dumps(given)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    server = int(process.stdout.readline())
    process.wait(120)
    try:
        wait_until(lambda: not is_alive(server))
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.faults
def test_the_teardown_ends_the_wait_for_a_restart(user: MakeUser, tmp_path: Path) -> None:
    """A row that waits for a restart must not delay the end of the session."""
    # The second start never becomes ready.
    script = """
    import os, pathlib, runpy, time
    if pathlib.Path("started").exists():
        time.sleep(1000)
    pathlib.Path("started").touch()
    runpy.run_module("doteval.mock_openai", run_name="__main__", alter_sys=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "--port", "{port}"]

    async def wait_and_tear_down() -> None:
        handle = await ServerProvider().setup("m", command=command, health="/v1/models", directory=tmp_path)
        model = handle.model
        os.kill(model.status.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: model.status.state != "ready")
        waiting = asyncio.create_task(model.ready())
        await asyncio.sleep(0)
        await handle.teardown()
        with pytest.raises(ResourceError, match="has been torn down"):
            await waiting

    asyncio.run(wait_and_tear_down())
    assert not [thread for thread in threading.enumerate() if thread.name == "doteval-server"]
