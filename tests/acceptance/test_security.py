"""Messages on the broker can start only evaluations that workers have, and logs contain only ids."""

from __future__ import annotations

import functools
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kombu
import pytest
import redis
from sqlalchemy import make_url

from doteval.broker.messages import TASK_NAME, RowTask
from doteval.broker.publisher import Publisher
from doteval.core.broker_url import Broker
from tests.support.project import Project, wait_until

EVALUATION = """
from doteval import Score, foreach
@foreach("text,number", [(f"secret text {i}", i) for i in range(40)])
async def eval_it(text, number):
    if number == 7:
        raise ValueError(f"cannot read {text}")
    return Score("ok", True, ["accuracy"])
"""


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def allow(client: redis.Redis, user: str, password: str) -> None:
    """Create a user with a password and all rights."""
    client.acl_setuser(user, enabled=True, passwords=[f"+{password}"], categories=["+@all"], keys=["*"], channels=["*"])


def send(broker: str, body: object, *, serializer: str, headers: dict[str, Any]) -> None:
    connected = kombu.Connection(broker)  # type: ignore[attr-defined, no-untyped-call] # kombu has no types
    with connected as connection, connection.Producer(serializer=serializer) as producer:
        producer.publish(body, routing_key="doteval", exchange="", headers=headers)


def test_foreign_messages_are_refused_and_logged(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION)
    unpickled = project.path / "unpickled"
    task = {"lang": "py", "task": TASK_NAME, "id": "1", "argsrepr": "", "kwargsrepr": "", "root_id": "1"}
    with project.started("worker", ".", "--processes", "1"):
        wait_until(lambda: any(worker.state == "ready" for worker in project.workers()), what="a ready worker process")
        send(redis_url, [[Bomb(unpickled)], {}, {}], serializer="pickle", headers=task)
        send(redis_url, [["private body"], {}, {}], serializer="json", headers={**task, "task": "os.system", "id": "2"})
        send(redis_url, {"neither": "private body"}, serializer="json", headers={})
        send(redis_url, [["../../etc/passwd", "a", None], {}, {}], serializer="json", headers={**task, "id": "3"})
        send(redis_url, [["private body"], {}, {}], serializer="json", headers={**task, "id": "4"})
        publisher = Publisher(Broker(redis_url), "doteval")
        publisher.publish([RowTask("0123456789abcdef", 0, 5)], experiment="x", evaluation="eval_it")
        publisher.close()
        project.run("submit", "eval_it.py", "--experiment", "x")
        (worker,) = project.workers()
        assert worker.left_at is None, worker.reason
        wait_until(lambda: "no such evaluation" in project.output(), what="the dropped row task in the log")
    assert not unpickled.exists()
    assert len(project.records("x")["eval_it"]) == 40
    assert "private body" not in project.output()
    assert project.output().count("a message was refused") == 5


def test_a_service_logs_json_lines_with_ids_and_without_contents(project: Project, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "logger", enabled=True, passwords=["+hush-hush"], categories=["+@all"], keys=["*"], channels=["*"]
        )
    parts = urlsplit(redis_url)
    project.environment["DOTEVAL_BROKER"] = f"redis://logger:hush-hush@{parts.netloc}/0"
    project.write("eval_it.py", EVALUATION)
    with project.started("worker", ".", "--processes", "1", "--name", "judges"):
        project.run("submit", "eval_it.py", "--experiment", "a 'name'")
        os.kill(project.workers()[0].info.pid, 9)
        wait_until(lambda: "SIGKILL" in project.output(), what="the killed process in the log")
    lines = [json.loads(line) for line in project.output().splitlines()]
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    ended = [line for line in lines if line["event"].startswith("row task ended")]
    (evaluation,) = project.json("show", "a 'name'")["evaluations"]
    assert sum(line["last_row"] - line["first_row"] + 1 for line in ended) == 40
    assert {line["experiment"] for line in ended} == {"a 'name'"}
    assert {line["evaluation"] for line in ended} == {f"{evaluation['path']}::{evaluation['name']}"}
    assert "secret text" not in project.output()
    assert "hush-hush" not in project.output()


def test_the_log_is_plain_text_on_request(project: Project, redis_url: str) -> None:
    project.environment |= {"DOTEVAL_BROKER": redis_url, "DOTEVAL_LOG_FORMAT": "text"}
    project.write("eval_it.py", EVALUATION)
    with project.started("worker", ".", "--processes", "1"):
        project.run("submit", "eval_it.py", "--experiment", "x")
    assert "INFO MainProcess" in project.output()
    assert "row task ended: " in project.output()
    assert "secret text" not in project.output()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no openssl to make a certificate with")
    return made, key


Connect = Callable[[], socket.socket]


@contextmanager
def tls_in_front(
    connect: Connect, certificate: tuple[Path, Path], *, greet: Callable[[socket.socket], None] | None = None
) -> Iterator[int]:
    """Terminate TLS in front of a server, because the servers of the tests have no TLS. Yields the port.

    `connect` reaches the server; `greet` does what the protocol does before the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def accept() -> None:
        while True:
            try:
                raw, _ = listening.accept()
            except OSError:
                return
            try:
                if greet is not None:
                    greet(raw)
                outside = context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                raw.close()
                continue
            inside = connect()
            for ends in ((outside, inside), (inside, outside)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def test_redis_with_tls_and_a_password(project: Project, redis_url: str, certificate: tuple[Path, Path]) -> None:
    parts = urlsplit(redis_url)
    assert parts.port is not None
    connect = functools.partial(socket.create_connection, ("127.0.0.1", parts.port))
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "worker", enabled=True, passwords=["+p@ss/w:rd"], categories=["+@all"], keys=["*"], channels=["*"]
        )
    password = quote("p@ss/w:rd", safe="")
    project.write("eval_it.py", EVALUATION)
    with tls_in_front(connect, certificate) as port:
        trusted = f"rediss://worker:{password}@127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate[0]}"
        project.environment["DOTEVAL_BROKER"] = trusted
        with project.started("worker", ".", "--processes", "1"):
            project.run("submit", "eval_it.py", "--experiment", "x")
            found = project.json("doctor")["findings"]
            assert all(finding["well"] for finding in found), found
        untrusted = f"rediss://worker:{password}@127.0.0.1:{port}/0?ssl_cert_reqs=required"
        done = project.run("submit", "eval_it.py", "--experiment", "x", "--broker", untrusted, check=3)
        assert password not in done.stdout + done.stderr
        wrong = trusted.replace(password, "wrong")
        done = project.run("submit", "eval_it.py", "--experiment", "x", "--broker", wrong, check=3)
        assert "wrong@" not in done.stdout + done.stderr
    assert len(project.records("x")["eval_it"]) == 40
    assert password not in project.output()


def ask_for_tls(connection: socket.socket) -> None:
    """Read what PostgreSQL's clients send first, eight bytes that ask for TLS, and answer with one letter."""
    if connection.recv(8, socket.MSG_WAITALL) != struct.pack("!II", 8, 80877103):
        raise ConnectionError("a client that does not ask for TLS")
    connection.sendall(b"S")


def connection_to(postgres_url: str) -> socket.socket:
    """A connection to the PostgreSQL of the tests, which may listen on a Unix socket only."""
    url = make_url(postgres_url)
    host, port = url.host or str(url.query.get("host", "")), url.port or int(str(url.query.get("port", 5432)))
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(f"{host}/.s.PGSQL.{port}")
    return connected


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, tuple[Path, Path]]:
    """A certificate authority, and a certificate for 127.0.0.1 that it has signed, with its key."""
    authority, authority_key = tmp_path / "ca.pem", tmp_path / "ca-key.pem"
    made, key, request = tmp_path / "server.pem", tmp_path / "server-key.pem", tmp_path / "server.csr"
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    commands: list[list[str | Path]] = [
        [*new, "-x509", "-days", "1", "-subj", "/CN=authority", "-keyout", authority_key, "-out", authority],
        [*new, "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", request],
        [
            *("openssl", "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial"),
            *("-days", "1", "-copy_extensions", "copy", "-out", made),
        ],
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no openssl to make certificates with")
    return authority, (made, key)


def test_postgresql_with_tls(
    project: Project,
    redis_url: str,
    postgres_url: str,
    signed: tuple[Path, tuple[Path, Path]],
    certificate: tuple[Path, Path],
) -> None:
    authority, server = signed
    url = make_url(postgres_url)
    user = f"{url.username or 'postgres'}:{quote(url.password or 'p@ss/w:rd', safe='')}"
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION)
    with tls_in_front(functools.partial(connection_to, postgres_url), server, greet=ask_for_tls) as port:
        url_with_tls = f"postgresql://{user}@127.0.0.1:{port}/{url.database}?sslmode=verify-full"
        project.environment["DOTEVAL_STORAGE"] = f"{url_with_tls}&sslrootcert={authority}"
        with project.started("worker", ".", "--processes", "1"):
            project.run("submit", "eval_it.py", "--experiment", "x")
            found = project.json("doctor")["findings"]
            assert all(finding["well"] for finding in found), found
        assert len(project.records("x")["eval_it"]) == 40
        assert user not in project.output()
        # A different authority, and a host name that the certificate does not name.
        wrong_authority = f"{url_with_tls}&sslrootcert={certificate[0]}"
        wrong_name = f"{url_with_tls}&sslrootcert={authority}".replace("@127.0.0.1:", "@localhost:")
        for storage, reason in ((wrong_authority, "certificate verify failed"), (wrong_name, "does not match")):
            for command in (["submit", "eval_it.py", "--experiment", "y"], ["worker", ".", "--processes", "1"]):
                refused = project.run(*command, "--storage", storage, check=4)
                assert reason in refused.stderr
                assert "Traceback" not in refused.stderr
                assert len(refused.stderr.splitlines()) <= 6, refused.stderr
                assert user not in refused.stdout + refused.stderr
