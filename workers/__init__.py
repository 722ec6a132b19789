"""What a worker process does. ``celery -A workers worker`` starts one.

`tasks` is the row task, `process` the worker process behind it, `lifecycle` ties it to Celery's
signals.
"""

from workers.tasks import app

__all__ = ["app"]
