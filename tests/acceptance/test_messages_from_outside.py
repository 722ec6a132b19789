"""A stranger who reaches the broker can send messages and commands. No worker process hangs or runs more for it."""

from __future__ import annotations

import json
import re
from typing import Any

from celery import Celery
from kombu import Connection

from doteval.broker.messages import TASK_NAME
from tests.acceptance.test_worker_service import EVALUATION, ready
from tests.support.project import Project, wait_until

UID = "0123456789abcdef"
LONG = "x" * 2_000_000
NOTHING: dict[str, Any] = {}

FORGED = [
    (["a\x00b", 0, 3], {}, "names no evaluation"),
    (["\ud800", 0, 3], {}, "names no evaluation"),
    ([{"a": 1}, 0, 5], {}, "names no evaluation"),
    ([10**30, 0, 3], {}, "names no evaluation"),
    ([UID, 0, 2**80], {}, "no range"),
    ([UID, -5, -1], {}, "no range"),
    ([UID, 50, 2], {}, "no range"),
    ([UID, 0.5, 3.5], {}, "no range"),
    ([UID, float("nan"), 4], {}, "no range"),
    ([UID, False, True], {}, "no range"),
    ([UID, None, None], {}, "no range"),
    ([UID, 0], {}, "not those of a row task"),
    ([LONG, 0, 5], {}, "body has 2,0"),
    ([UID, 0, 5], {"shadow": LONG}, "header is too long"),
    ([UID, 0, 5], {"eta": "2030-01-01T00:00:00"}, "another time"),
    ([UID, 0, 5], {"id": 7}, "no id"),
]


def send(broker: str, arguments: object, headers: dict[str, Any], further: dict[str, Any] = NOTHING) -> None:
    given = {"lang": "py", "task": TASK_NAME, "id": "f", "root_id": "f", "argsrepr": "", "kwargsrepr": ""} | headers
    with Connection(broker) as connection, connection.Producer(serializer="json") as producer:
        producer.publish([arguments, {}, further], routing_key="doteval", exchange="", headers=given)


def test_a_worker_process_works_on(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION)
    with project.started("worker", ".", "--processes", "1", "--log-format", "json") as service:
        wait_until(lambda: ready(project, 1), what="a ready worker process")
        for arguments, headers, _ in FORGED:
            send(redis_url, arguments, headers)
        send(redis_url, [UID, 0, 5], {}, {"callbacks": [{"task": "other", "args": [], "options": {}}]})

        def refusals() -> list[str]:
            return re.findall(r"a message was refused: ([^\"]*)", project.output())

        wait_until(lambda: len(refusals()) > len(FORGED), what="a refusal of each message")
        assert len(refusals()) == len(FORGED) + 1
        for _, _, why in FORGED:
            assert any(why in refusal for refusal in refusals()), why
        assert "asks for more than to run rows" in refusals()[-1]
        assert "xxxx" not in project.output()

        app = Celery(broker=redis_url)
        for name, given in (
            ("cancel_consumer", {"queue": "doteval"}),
            ("rate_limit", {"task_name": TASK_NAME, "rate_limit": "1/h"}),
            ("time_limit", {"task_name": TASK_NAME, "hard": 1, "soft": 1}),
            ("pool_restart", {"modules": ["antigravity"], "reload": True}),
            ("pool_shrink", {"n": 500}),
            ("disable_events", {}),
            ("revoke", {"task_id": "f"}),
            ("hello", {"from_node": "x", "revoked": {"f": 1}}),
        ):
            (answer,) = app.control.broadcast(name, arguments=given, reply=True, timeout=30, limit=1)
            (reply,) = answer.values()
            assert f"do not accept {name}" in reply["error"]
        (answer,) = app.control.broadcast("ping", reply=True, timeout=30, limit=1)
        assert next(iter(answer.values())) == {"ok": "pong"}
        app.close()

        project.run("submit", "eval_it.py", "--experiment", "one")
        assert service.poll() is None
    assert project.counts()["begin"] == 300
    assert len(project.records("one")["eval_remote"]) == 300
    lines = [json.loads(text) for text in project.output().splitlines() if text.startswith("{")]
    assert not [each for each in lines if each["level"] == "error"]
