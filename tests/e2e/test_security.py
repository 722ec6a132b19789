"""Who can write to the broker can start evaluations that workers have, and nothing else; logs tell ids only."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kombu
import pytest
import redis

from doteval.queue.publisher import Publisher
from doteval.queue.row_task import TASK_NAME, RowTask
from tests.e2e.project import Project, wait_until

EVALUATION = """
from doteval import Score, foreach
@foreach("text,number", [(f"secret text {i}", i) for i in range(40)])
async def eval_it(text, number):
    if number == 7:
        raise ValueError(f"cannot read {text}")
    return Score("ok", True, ["accuracy"])
"""


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def allow(client: redis.Redis, user: str, password: str) -> None:
    """A user with a password who may do everything."""
    client.acl_setuser(user, enabled=True, passwords=[f"+{password}"], categories=["+@all"], keys=["*"], channels=["*"])


def send(broker: str, body: object, *, serializer: str, headers: dict[str, Any]) -> None:
    connected = kombu.Connection(broker)  # type: ignore[attr-defined, no-untyped-call] # kombu has no types
    with connected as connection, connection.Producer(serializer=serializer) as producer:
        producer.publish(body, routing_key="doteval", exchange="", headers=headers)


def test_messages_that_are_none_of_ours_are_refused_and_logged(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION)
    trace = project.path / "unpickled"
    task = {"lang": "py", "task": TASK_NAME, "id": "1", "argsrepr": "", "kwargsrepr": "", "root_id": "1"}
    with project.started("worker", ".", "--processes", "1"):
        wait_until(lambda: any(worker.state == "ready" for worker in project.workers()), what="a ready worker process")
        send(redis_url, [[Bomb(trace)], {}, {}], serializer="pickle", headers=task)
        send(redis_url, [["private body"], {}, {}], serializer="json", headers={**task, "task": "os.system", "id": "2"})
        send(redis_url, {"neither": "private body"}, serializer="json", headers={})
        send(redis_url, [["../../etc/passwd", "a", None], {}, {}], serializer="json", headers={**task, "id": "3"})
        send(redis_url, [["private body"], {}, {}], serializer="json", headers={**task, "id": "4"})
        publisher = Publisher(redis_url, "doteval")
        publisher.publish([RowTask("../../etc/passwd", 0, 5)], experiment="x", evaluation="eval_it")
        publisher.close()
        project.run("submit", "eval_it.py", "--experiment", "x")
        (worker,) = project.workers()
        assert worker.left_at is None, worker.reason
        wait_until(lambda: "no such evaluation" in project.output(), what="the dropped row task in the log")
    assert not trace.exists()
    assert len(project.records("x")["eval_it"]) == 40
    assert "private body" not in project.output()
    assert project.output().count("a message was refused") == 3


def test_a_service_logs_one_json_object_a_line_with_ids_and_without_contents(project: Project, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "logger", enabled=True, passwords=["+hush-hush"], categories=["+@all"], keys=["*"], channels=["*"]
        )
    place = urlsplit(redis_url)
    project.environment["DOTEVAL_BROKER"] = f"redis://logger:hush-hush@{place.netloc}/0"
    project.write("eval_it.py", EVALUATION)
    with project.started("worker", ".", "--processes", "1", "--name", "judges"):
        project.run("submit", "eval_it.py", "--experiment", "a 'name'")
        os.kill(project.workers()[0].info.pid, 9)
        wait_until(lambda: "SIGKILL" in project.output(), what="the death in the log")
    lines = [json.loads(line) for line in project.output().splitlines()]
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    ended = [line for line in lines if line["event"].startswith("row task ended")]
    (evaluation,) = project.json("show", "a 'name'")["evaluations"]
    assert sum(line["last_row"] - line["first_row"] + 1 for line in ended) == 40
    assert {line["experiment"] for line in ended} == {"a 'name'"}
    assert {line["evaluation"] for line in ended} == {f"{evaluation['path']}::{evaluation['name']}"}
    assert "secret text" not in project.output()
    assert "hush-hush" not in project.output()


def test_text_for_people_on_request(project: Project, redis_url: str) -> None:
    project.environment |= {"DOTEVAL_BROKER": redis_url, "DOTEVAL_LOG_FORMAT": "text"}
    project.write("eval_it.py", EVALUATION)
    with project.started("worker", ".", "--processes", "1"):
        project.run("submit", "eval_it.py", "--experiment", "x")
    assert "INFO MainProcess" in project.output()
    assert "row task ended: " in project.output()
    assert "secret text" not in project.output()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
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


@contextmanager
def tls_in_front(port: int, certificate: tuple[Path, Path]) -> Iterator[int]:
    """A TLS end in front of a server on a port: the Redis of the tests has no TLS of its own."""
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
                outside = context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                raw.close()
                continue
            inside = socket.create_connection(("127.0.0.1", port))
            for ends in ((outside, inside), (inside, outside)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def test_redis_with_tls_and_a_password(project: Project, redis_url: str, certificate: tuple[Path, Path]) -> None:
    place = urlsplit(redis_url)
    assert place.port is not None
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "worker", enabled=True, passwords=["+p@ss/w:rd"], categories=["+@all"], keys=["*"], channels=["*"]
        )
    password = quote("p@ss/w:rd", safe="")
    project.write("eval_it.py", EVALUATION)
    with tls_in_front(place.port, certificate) as port:
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
