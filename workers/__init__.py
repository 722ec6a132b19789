"""The Celery application of a worker, for operators who start Celery themselves.

    DOTEVAL_BROKER=redis://host DOTEVAL_STORAGE=postgresql://host/db DOTEVAL_PATH=evals celery -A workers worker

This directory holds what is deployed, and no library code. The installed package does not contain it: where only that
is at hand, or where a project has modules called `workers` of its own, ``celery -A doteval.worker worker`` is the same.
Nobody imports this package.
"""

from doteval.worker.tasks import app

__all__ = ["app"]
