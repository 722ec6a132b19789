"""One no-op task for each row, to measure Celery alone. The queue is empty when all tasks are done."""

import os

from celery import Celery

app = Celery("raw", broker=os.environ["BROKER"])
app.conf.update(
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=16,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(number):
    return number
