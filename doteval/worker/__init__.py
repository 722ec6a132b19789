"""What a worker process does. ``celery -A workers worker`` starts one; services do it by `fork_server` and `__main__`.

`tasks` is the row task, `process` the worker process behind it, `lifecycle` ties it to Celery's signals. Of the
process, `matching` knows its evaluations, `hands` the row tasks in hand, `flights` the rows in flight, `gates` the
budgets; `landing` is where rows arrive, and `refusals` says why some are not run.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doteval.worker.tasks import app

__all__ = ["app"]


def __getattr__(name: str) -> object:
    # The app is made from the options of one process, which a fork server does not know when it imports the rest.
    if name == "app":
        from doteval.worker.tasks import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
