"""The provider "server", with the mock of OpenAI's API as the server, and real processes that use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from doteval.errors import ResourceError, UsageError
from doteval.execution.failures import classify
from doteval.providers import keeper, server_directory
from doteval.providers.server_directory import ServerDirectory
from doteval.providers.servers import ServerProvider
from doteval.resources.shared import close_shared
from doteval.results import ErrorClass
from doteval.sharing import CacheMode, Sharing, share

ROOT = Path(__file__).parents[2]
MOCK = [sys.executable, "-m", "doteval.resources.mock_openai", "--port", "{port}"]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own. No keeper and no server is left at the end."""
    directory = Path(tempfile.mkdtemp(prefix="dv"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # What tells the processes of this test from all others.
    monkeypatch.setenv("DOTEVALTEST", str(directory))
    yield directory
    left = wait_until(lambda: not relatives(directory), seconds=10, fail=False)
    shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in relatives(directory)]
    for pid in relatives(directory):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory)
    close_shared()
    assert left, shown


def relatives(directory: Path) -> list[int]:
    """All processes that were started in this test, by the environment that they began with."""
    mark = f"DOTEVALTEST={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], Any], *, seconds: float = 30, fail: bool = True) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            assert not fail, "the condition did not come true"
            return None
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class User:
    """A process that uses a server; see `server_user`."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        given = {"spec": "m", "command": MOCK, "health": "/v1/models", "max_retries": 1, **settings}
        given["directory"] = str(directory)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.server_user", json.dumps(given)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def answer(self, seconds: float = 60) -> Any:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        assert ready, "no answer"
        return json.loads(self.process.stdout.readline())

    def __call__(self, command: str) -> Any:
        self.ask(command)
        return self.answer()

    @property
    def pid(self) -> int:
        """The server's."""
        return int(self("status")[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


MakeUser = Callable[..., User]


@pytest.fixture
def user(tmp_path: Path) -> Iterator[MakeUser]:
    users: list[User] = []

    def make(**settings: Any) -> User:
        users.append(User(tmp_path, **settings))
        return users[-1]

    yield make
    for each in users:
        each.kill()


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
    status = json.loads((place / keeper.STATUS).read_text())
    assert sorted(status["users"]) == sorted([first.process.pid, second.process.pid])
    assert (status["state"], status["pid"], status["restarts"]) == ("ready", server, 0)
    for directory in (place, place.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    assert first("close") is None
    assert is_alive(server)
    assert second("chat").startswith("mock reply")
    assert second("close") is None
    # Its teardown waits for the end of the server.
    assert not is_alive(server)
    assert [path.name for path in place.iterdir()] == [keeper.LOCK]


def back(user: User) -> list[Any]:
    """The status once the server is ready: it may answer before its keeper has looked, and told."""
    status: list[Any] = wait_until(lambda: (status := user("status"))[0] == "ready" and status)
    return status


def test_a_server_that_dies_comes_back_where_it_was(user: MakeUser) -> None:
    first, second = user(), user()
    url = first("setup")
    assert second("setup") == url
    server = first.pid
    os.kill(server, signal.SIGKILL)
    assert first("chat").startswith("mock reply")
    assert second("chat").startswith("mock reply")
    assert back(first) == back(second)
    state, again, restarts = back(first)
    assert (state, restarts) == ("ready", 1)
    assert again != server
    assert first("client").rstrip("/") == url


def test_a_server_that_dies_again_and_again_is_given_up(user: MakeUser, tmp_path: Path) -> None:
    """It works the first two times, and then ends with a complaint."""
    script = """
    import pathlib, runpy, sys
    count = pathlib.Path("count")
    count.write_text(count.read_text() + "x" if count.exists() else "x")
    print("I was started", len(count.read_text()), flush=True)
    if len(count.read_text()) > 2:
        sys.exit("no memory left on the device")
    runpy.run_module("doteval.resources.mock_openai", run_name="__main__", alter_sys=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "--port", "{port}"]
    one = user(command=command, max_restarts=3)
    one("setup")
    os.kill(one.pid, signal.SIGKILL)
    assert one("chat").startswith("mock reply")
    os.kill(one.pid, signal.SIGKILL)
    error = one("chat")["error"]
    assert "was started again 3 times, and exited with code 1" in error
    assert "no memory left on the device" in error
    assert (tmp_path / "count").read_text() == "xxxx"
    assert len(error.splitlines()) < 25
    # The next row need not wait for a connection that cannot be.
    assert "was started again 3 times" in one("client")["error"]
    assert one("close") is None


def test_a_server_that_hangs_is_started_again(user: MakeUser) -> None:
    one = user(hang_timeout=0.5, stop_timeout=0.5)
    url = one("setup")
    server = one.pid
    # It takes connections from now on, as the kernel does that, and never answers.
    os.kill(server, signal.SIGSTOP)
    assert one("chat").startswith("mock reply")
    state, again, restarts = back(one)
    assert (state, restarts) == ("ready", 1)
    assert again != server
    assert not is_alive(server)
    assert one("client").rstrip("/") == url


def test_a_server_that_hangs_again_and_again_is_given_up(user: MakeUser, tmp_path: Path) -> None:
    """It answers that it is well, once each time, and never again."""
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
    one = user(command=command, hang_timeout=0.2, max_restarts=2)
    one("setup")
    error = wait_until(lambda: "error" in (answer := one("client")) and answer["error"])
    assert "was started again 2 times, and did not answer http://127.0.0.1:" in error
    assert "for 0.2 s" in error
    assert "thinking about it" in error
    assert (tmp_path / "starts").read_text() == "xxx"


def test_a_user_that_is_killed_leaves_the_server_to_the_others_and_the_last_takes_it_along(user: MakeUser) -> None:
    first, second = user(), user()
    first("setup")
    second("setup")
    server = second.pid
    first.kill()
    assert second("chat").startswith("mock reply")
    assert second("status") == ["ready", server, 0]
    second.kill()
    wait_until(lambda: not is_alive(server), seconds=5)


def test_a_keeper_that_is_killed_is_replaced_and_the_server_is_where_it_was(user: MakeUser, runtime: Path) -> None:
    """As by the end of the systemd service whose worker process was first."""
    users = [user() for _ in range(3)]
    urls = {each("setup") for each in users}
    assert len(urls) == 1
    for restarts in (1, 2):
        server = users[0].pid
        (status,) = runtime.glob(f"doteval-servers/*/{keeper.STATUS}")
        os.kill(json.loads(status.read_text())["keeper"], signal.SIGKILL)
        assert {each("chat")[:10] for each in users} == {"mock reply"}
        # It was killed when the keeper's end was seen, by whoever saw it: its end may take a moment.
        wait_until(lambda: not is_alive(server), seconds=5)  # noqa: B023 - called here only
        assert len({each.pid for each in users}) == 1
        assert [back(each)[::2] for each in users] == [["ready", restarts]] * 3
    assert {each("client").rstrip("/") for each in users} == urls


WITH_CHILD = """
import subprocess, sys, runpy, signal
child = subprocess.Popen(["sleep", "1000"])
open("child", "w").write(str(child.pid))
runpy.run_module("doteval.resources.mock_openai", run_name="__main__", alter_sys=True)
"""


def child_of(tmp_path: Path) -> int:
    return int((tmp_path / "child").read_text())


@pytest.mark.parametrize("how", ["closed", "user killed", "keeper killed", "server killed"])
def test_the_whole_process_group_goes(user: MakeUser, tmp_path: Path, runtime: Path, how: str) -> None:
    one = user(command=[sys.executable, "-c", WITH_CHILD, "--port", "{port}"], max_restarts=0)
    one("setup")
    server, child = one.pid, child_of(tmp_path)
    assert is_alive(child)
    (status,) = runtime.glob(f"doteval-servers/*/{keeper.STATUS}")
    match how:
        case "closed":
            assert one("close") is None
        case "user killed":
            one.kill()
        case "keeper killed":
            os.kill(json.loads(status.read_text())["keeper"], signal.SIGKILL)
        case "server killed":
            os.kill(server, signal.SIGKILL)
    wait_until(lambda: not is_alive(server) and not is_alive(child), seconds=10)
    if how == "keeper killed":
        assert "its keeper was killed" in one("client")["error"]
    if how == "server killed":
        assert "was ended by signal 9" in one("chat")["error"]


def test_keeper_and_users_killed_at_once_leave_nothing_that_the_next_user_meets(
    user: MakeUser, tmp_path: Path, runtime: Path
) -> None:
    settings = {"command": [sys.executable, "-c", WITH_CHILD, "--port", "{port}"]}
    one = user(**settings)
    one("setup")
    server, child = one.pid, child_of(tmp_path)
    (status,) = runtime.glob(f"doteval-servers/*/{keeper.STATUS}")
    watcher = json.loads(status.read_text())["keeper"]
    # None of the two may do anything for the other.
    os.kill(one.process.pid, signal.SIGSTOP)
    os.kill(watcher, signal.SIGKILL)
    os.kill(one.process.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(server), seconds=5)
    assert is_alive(child)
    another = user(**settings)
    another("setup")
    assert not is_alive(child)
    assert another.pid != server
    assert another("chat").startswith("mock reply")


def test_a_server_that_does_not_want_to_go_is_killed(user: MakeUser) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(
        """
        import asyncio, runpy
        asyncio.BaseEventLoop.add_signal_handler = lambda *_: None
        from asyncio import unix_events
        unix_events._UnixSelectorEventLoop.add_signal_handler = lambda *_: None
        runpy.run_module("doteval.resources.mock_openai", run_name="__main__", alter_sys=True)
        """
    )
    one = user(command=[sys.executable, "-c", script, "--port", "{port}"], stop_timeout=0.5)
    one("setup")
    server = one.pid
    start = time.monotonic()
    assert one("close") is None
    assert 0.5 <= time.monotonic() - start < 8
    assert not is_alive(server)


def test_who_comes_while_the_last_one_leaves_gets_a_server(user: MakeUser) -> None:
    """Whatever the moment: the old server is gone before the new one starts, or stays."""
    one = user()
    one("setup")
    for moment in range(0, 8, 2):
        server = one.pid
        two = user()
        two.ask("setup")
        # The other needs about half a second to come up.
        time.sleep(0.1 * moment)
        assert one("close") is None
        assert two.answer().startswith("http://127.0.0.1:")
        assert two("chat").startswith("mock reply")
        assert two.pid == server or not is_alive(server)
        one.end()
        one = two


def failing(command: list[str], **settings: Any) -> str:
    with pytest.raises(ResourceError) as raised:
        asyncio.run(ServerProvider().setup("m", command=command, **settings))
    message = str(raised.value)
    assert classify(raised.value) is ErrorClass.INFRASTRUCTURE
    assert len(message.splitlines()) < 25
    assert all(len(line) < 250 for line in message.splitlines())
    return message


def test_a_command_that_ends_at_once() -> None:
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


def test_a_health_url_that_is_not_well_is_waited_for() -> None:
    """Without /health the mock answers with 404."""
    message = failing(MOCK, start_timeout=3.0)
    assert "/health within 3 s" in message


@pytest.mark.parametrize("command", ["vllm serve m", [], ["vllm", 8000], ["vllm", "--port", "8000"]])
def test_a_command_that_cannot_be_one(command: Any) -> None:
    with pytest.raises(UsageError, match=r"list of texts|where the port goes"):
        asyncio.run(ServerProvider().setup("m", command=command))


def test_who_gives_up_leaves_no_server(tmp_path: Path) -> None:
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
        # Only {port} is filled in: other braces belong to the command.
        reply = await handles[1].model.chat("hello")
        assert reply.choices[0].message.content == "{word} of " + urls[1].rpartition(":")[2].removesuffix("/v1")
        for handle in handles:
            (servers,) = handle.get_stats()["servers"]
            assert str(handle.model.status.pid) in servers
            await handle.teardown()

    asyncio.run(compare())


def test_a_server_does_not_know_where_results_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOTEVAL_BROKER", "redis://:secret@host")
    monkeypatch.setenv("HF_HOME", "/models")
    message = failing(["sh", "-c", "env | grep -E 'DOTEVAL_|HF_HOME|OWN'; exit 1 # {port}"], environment={"OWN": "x"})
    assert "HF_HOME=/models" in message
    assert "OWN=x" in message
    assert "secret" not in message


def test_replies_of_another_server_on_the_same_port_are_not_its(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And those of the same command are, whatever the port."""
    share(Sharing(cache=CacheMode.ON, cache_path=str(tmp_path / "cache.db")))
    monkeypatch.setattr(keeper, "PORTS", 1)

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
        share(Sharing())
    assert [text for text, _ in replies] == ["red", "blue", "red"]
    # Without which it would show nothing.
    assert len({port for _, port in replies}) == 1


def test_a_port_that_is_taken_is_left_alone(tmp_path: Path) -> None:
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


def test_a_directory_that_others_could_have_made_is_not_used(runtime: Path) -> None:
    place = runtime / "doteval-servers"
    place.symlink_to(tempfile.gettempdir())
    with pytest.raises(ResourceError, match="is not a directory of yours"):
        ServerDirectory("key")
    place.unlink()
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(ResourceError, match=r"others have access[\s\S]*chmod 700"):
        ServerDirectory("key")


def test_a_path_too_long_for_a_socket_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    assert server_directory._parent() == Path(f"/tmp/doteval-servers-{os.getuid()}")


def test_remains_are_killed_only_if_they_are_the_servers(runtime: Path) -> None:
    place = ServerDirectory("key")
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    known = {"pid": process.pid, "started": "1"}
    (place.path / keeper.STATUS).write_text(json.dumps(known))
    place.kill_remains()
    assert process.poll() is None
    assert place.status() is None
    (place.path / keeper.STATUS).write_text(json.dumps({**known, "started": keeper.started_at(process.pid)}))
    place.kill_remains()
    assert process.wait(10) == -signal.SIGKILL
    # Without anything there, nothing happens.
    place.kill_remains()


def test_a_fork_does_not_hold_the_server(tmp_path: Path) -> None:
    """As the processes of a prefork pool, or of multiprocessing, would."""
    script = """
    import asyncio, json, os, sys, time
    from doteval.providers.servers import ServerProvider
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
    process.wait(30)
    try:
        wait_until(lambda: not is_alive(server), seconds=5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_the_log_of_a_server_that_talks_a_lot_stays_small(runtime: Path, tmp_path: Path) -> None:
    chatter = """
    import runpy, sys, threading
    def talk():
        for _ in range(300):
            sys.stderr.write("x" * 100_000 + "\\n")
    talk()
    runpy.run_module("doteval.resources.mock_openai", run_name="__main__", alter_sys=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(chatter), "--port", "{port}"]

    async def measure() -> int:
        handle = await ServerProvider().setup("m", command=command, health="/v1/models", directory=tmp_path)
        size = sum(path.stat().st_size for path in files())
        await handle.teardown()
        return size

    def files() -> list[Path]:
        return list(runtime.rglob("output.log*"))

    assert 1_000_000 < asyncio.run(measure()) < 20_000_000


def test_waiting_for_a_server_ends_with_the_teardown(user: MakeUser, tmp_path: Path) -> None:
    """A row that waits for a restart must not hold the session's end back."""
    # Comes back only when it may.
    script = """
    import os, pathlib, runpy, time
    if pathlib.Path("started").exists():
        time.sleep(1000)
    pathlib.Path("started").touch()
    runpy.run_module("doteval.resources.mock_openai", run_name="__main__", alter_sys=True)
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
