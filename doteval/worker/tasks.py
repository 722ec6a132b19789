"""The Celery application of a worker process, with the task that runs rows."""

from __future__ import annotations

import logging
import os
from typing import Any

from celery.backends.base import DisabledBackend
from celery.exceptions import Reject

from doteval.broker.celery_app import celery_app
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.core.broker_url import Broker
from doteval.core.error_leaves import for_logs
from doteval.settings import load_settings
from doteval.supervision.worker_config import WorkerOptions, slots_for
from doteval.worker import control_commands, lifecycle, log_setup
from doteval.worker.celery_consumer import RowTaskConsumer
from doteval.worker.priority_pool import SPARE, PriorityPool
from doteval.worker.process import current_process
from doteval.worker.row_task_errors import GiveBackError, RowTaskFailedError
from doteval.worker.row_task_strategy import row_tasks_only

logger = logging.getLogger("doteval.worker")


def _options() -> WorkerOptions:
    given = WorkerOptions.from_environment()
    if given is not None:
        return given
    # Celery was started by hand: everything comes from DOTEVAL_* and [tool.doteval].
    settings = load_settings()
    return WorkerOptions(
        paths=tuple(os.environ.get("DOTEVAL_PATH", ".").split(os.pathsep)),
        storage=settings.storage,
        broker=settings.message_broker or Broker("redis://127.0.0.1:6379/0"),
        queues=settings.queues,
        concurrency=settings.concurrency,
        slots=slots_for(settings.concurrency),
        visibility_timeout=settings.visibility_timeout,
        client_config=settings.client_config(),
        log_format=settings.log_format,
    )


options = _options()
app = celery_app(options.broker, options.queues[0], options.visibility_timeout, also=options.queues[1:])
_PRIORITY_POOL = f"{PriorityPool.__module__}:{PriorityPool.__qualname__}"
# Celery uses these where its command line says nothing.
app.conf.worker_pool = "threads" if options.broker.has_priorities else _PRIORITY_POOL
app.conf.worker_concurrency = options.slots if options.broker.has_priorities else options.slots + SPARE
app.conf.worker_consumer = f"{RowTaskConsumer.__module__}:{RowTaskConsumer.__qualname__}"
log_setup.connect(options.log_format)
lifecycle.connect(app, options)
control_commands.connect(options)


# Results are in the store. Without this, Celery searches all installed packages for a result backend, once a thread.
@app.task(  # type: ignore[untyped-decorator] # Celery has no types
    name=TASK_NAME,
    bind=True,
    backend=DisabledBackend(app=app),
    Strategy=f"{row_tasks_only.__module__}:{row_tasks_only.__qualname__}",
)
def run_rows(task: Any, evaluation_uid: str, first: int, last: int) -> str:
    """Run the pending rows of a range. Returns counts, which Flower shows as the result."""
    process = current_process()
    if process is None:
        raise Reject("this worker process has not started", requeue=True)
    row_task = RowTask(evaluation_uid, first, last)
    try:
        # The broker's tag of this message; None where it has none.
        lease = (task.request.properties or {}).get("delivery_tag")
        redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
        ended = process.run_rows(row_task, lease, redelivered=redelivered)
        logger.info("row task ended: %s", ended, extra=process.runner.log_ids(row_task))
        return ended
    except GiveBackError as error:
        logger.info("row task given back: %s", error, extra=process.runner.log_ids(row_task))
        raise Reject(str(error), requeue=True) from error
    except Exception as error:
        # The rows stay pending; a dispatcher publishes them again when the queue has drained.
        logger.exception("row task could not be run", extra=process.runner.log_ids(row_task))
        # Flower shows what is raised here, and its stack.
        raise RowTaskFailedError(for_logs(error)).with_traceback(error.__traceback__) from None
