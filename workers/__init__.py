"""What a worker process does. ``celery -A workers worker`` starts one.

`tasks` is the row task, `process` the worker process behind it, `lifecycle` ties it to Celery's signals. Of the
process, `matching` knows its evaluations, `hands` the row tasks in hand, `flights` the rows in flight, `gates` the
budgets; `landing` is where rows arrive, and `refusals` says why some are not run.
"""

from workers.tasks import app

__all__ = ["app"]
