"""``python -m doteval.worker NODENAME LOGLEVEL`` starts a worker process of a service.

``celery -A workers worker`` starts the same process without a service.

This does not go through Celery's command line, which imports Flower and an interactive shell: a sixth of all that a
worker process imports.
"""

from __future__ import annotations

import sys

from celery.concurrency import get_implementation
from celery.utils.nodenames import default_nodename, host_format

from doteval.worker.tasks import app


def main() -> None:
    """Run a worker process until it is asked to leave."""
    name, level = sys.argv[1:]
    worker = app.Worker(
        hostname=host_format(default_nodename(name)),
        loglevel=level,
        pool_cls=get_implementation(app.conf.worker_pool),
        quiet=True,
        task_events=True,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


main()
