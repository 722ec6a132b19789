"""A worker process: receives row tasks from the broker, runs their rows, and stores the results.

A worker service starts ``python -m doteval.worker``; operators start the same with ``celery -A workers worker``.
`tasks` holds the Celery application and its one task. `lifecycle` runs the `process.WorkerProcess`, which holds the
embedded pytest session, on the main thread, and Celery on a thread beside it; `shutdown_signals` ends both. What
happens to a row task:

- `celery_consumer` and `prefetch` decide when a message is fetched; `priority_pool` sorts messages that a broker sends
  unasked.
- `row_task_runner.RowTaskRunner` runs it: `code_match` finds the evaluation, `budget_guards` admits its calls, and
  `completion` waits until all rows are stored.
- `held_tasks` notes it meanwhile and detects redelivered ones; `journals` survive the process if it dies.
- `giving_back` publishes its rows again if they do not begin soon, behind rows that hang or take long.
- `heartbeat_duties` reports all this to the store, renews leases, and stands in for a submitter that has left.

`context` holds what these share, `recycling` the limits after which a fresh process takes over, `log_setup` the logs,
`control_commands` the commands over the broker, and `fork_server_main` runs in the fork server. The layer above
`supervision`, `coordination` and `pytest_runtime`; it may import everything but `cli`, `submission` and `local`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doteval.worker.tasks import app

__all__ = ["app"]


def __getattr__(name: str) -> object:
    # The app is made from the options of one process. The fork server, which imports this package, has none.
    if name == "app":
        from doteval.worker.tasks import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
