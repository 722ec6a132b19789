"""The Celery application of a doteval worker: ``celery -A workers worker``.

What an operator deploys lives in this directory; the code of a worker process is `doteval.worker`.
"""

from doteval.worker.tasks import app

__all__ = ["app"]
