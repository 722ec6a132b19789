"""The page of what travels on the broker."""

from __future__ import annotations

import json

from docs.generate.markdown import code, documented, page_of, table
from doteval.broker.celery_app import celery_app
from doteval.broker.fair_queues import FAIR_QUEUES, fair_queue_name, priority_of
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.broker.remote_control import DRAIN
from doteval.core.broker_url import Broker

_EXAMPLE = RowTask("V1StGXR8Z5jdHi6B", 0, 99)


def page() -> str:
    conf = celery_app(Broker("redis://127.0.0.1:6379/0"), "doteval").conf
    return page_of(
        "Messages on the broker",
        "doteval sends one kind of message, a Celery task, and one remote-control command. Both carry ids and names, and no "
        "contents of rows, no code and no secrets: workers read rows and settings from the result store.",
        "## The row task",
        documented("RowTask", RowTask),
        table(
            ["part of the message", "is"],
            [
                ("name of the task", code(TASK_NAME)),
                ("arguments", "the `uid` of the evaluation, the first row and the last row, both included"),
                ("body", f"{conf.task_serializer}, the only content that workers accept"),
                ("`shadow`", "the evaluation, which Flower shows as the name"),
                ("`argsrepr`", f"{code(_EXAMPLE.summary('capitals'))}: the rows and the experiment, for Flower"),
                ("result", "none; Celery's result backend is off"),
                ("acknowledged", "after the results are committed to the store" if conf.task_acks_late else "at once"),
            ],
        ),
        "The body of one, as Celery's protocol 2 has it: arguments, keywords, and what follows the task.",
        f"```json\n{json.dumps([_EXAMPLE.arguments(), {}, {'callbacks': None, 'errbacks': None, 'chain': None, 'chord': None}])}\n```",
        "Any other message is refused: it is rejected without redelivery, and the log says what is wrong with it, without a "
        "word of its contents. Delivery is at least once; a row that is done already is left out.",
        "## Queues",
        "A queue, as `--queue` names it, is a fixed number of fair queues. A worker process takes row tasks from them in "
        "turn, those of high priority first.",
        table(
            ["name on the broker", "priority"],
            [(code(fair_queue_name("doteval", number)), priority_of(number).value) for number in range(FAIR_QUEUES)],
        ),
        "With `key_prefix` in the URL of a Redis, every name begins with it.",
        "## Remote control",
        f"`doteval drain` broadcasts the command `{DRAIN}` without arguments to the worker processes that it names, and "
        'waits for their replies, `{"ok": ...}`. Celery\'s own commands that only ask, such as `inspect active`, and `shutdown` work too; the others are refused, and the '
        "reply says what to use instead.",
        "## Events",
        "Workers send Celery's task and worker events, which Flower shows. They have ids, names, times and "
        "states, and no contents of rows and no secrets.",
    )
