"""Runs Flower with settings that suit row tasks."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from doteval.broker.celery_app import celery_app
from doteval.broker.flower_pages import install
from doteval.broker.publisher import Publisher
from doteval.core.addresses import is_loopback
from doteval.core.broker_url import Broker
from doteval.errors import UsageError

# Flower keeps 5 KB of each task, and its memory fragments as tasks come and go: with the newest 10,000 tasks its
# process took 330 MB after 200,000 tasks (`make bench ARGS=flower`), with 20,000 it took 400 MB.
MOST_TASKS = 10_000
# The arguments of a row task show its range and its experiment, the result shows counts.
COLUMNS = "name,args,state,received,runtime,result,worker,uuid"
# How often Flower writes its file. It loses as much when it is killed.
_SAVE_MILLISECONDS = 60_000
# Flower stops showing a worker process so many seconds after it has left.
_PURGE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class FlowerOptions:
    """The options of ``doteval flower``.

    auth: ``user:password``, None for no password.
    view: the URL of `doteval view`, to which pages link.
    state: the file in which Flower keeps its tasks, None to lose them when it ends.

    Raises UsageError: for an address that other machines reach, without `auth`.
    """

    broker: Broker
    queue: str = "doteval"
    address: str = "127.0.0.1"
    port: int = 5555
    auth: str | None = None
    state: Path | None = None
    max_tasks: int = MOST_TASKS
    url_prefix: str | None = None
    view: str | None = None

    def __post_init__(self) -> None:
        if self.auth is not None:
            user, colon, password = self.auth.partition(":")
            # Flower splits several users at commas.
            if not (user and colon and password) or "," in self.auth:
                raise UsageError(
                    "Flower's user and password cannot be used",
                    remedy="DOTEVAL_FLOWER_AUTH should look like user:password, without a comma.",
                )
        elif not is_loopback(self.address):
            raise UsageError(
                f"Flower would let everyone who reaches {self.address} stop your workers",
                remedy="Set DOTEVAL_FLOWER_AUTH=user:password, or keep the address 127.0.0.1.",
            )


def serve_flower(options: FlowerOptions) -> None:
    """Run Flower in this process until SIGTERM or Ctrl-C.

    Raises BrokerError: the broker does not answer now. Flower itself would try again for ever, and show nothing.
    """
    with contextlib.closing(Publisher(options.broker, options.queue)) as publisher:
        publisher.connect(with_rights=False)
        install(options.broker, publisher)
        if options.auth is not None:
            # In the environment, since every user can read a command line.
            os.environ["FLOWER_BASIC_AUTH"] = options.auth
        if options.view is not None:
            from flower.urls import settings

            from doteval.broker.flower_link import link_to_view

            link_to_view(settings, options.view)
        celery_app(options.broker, options.queue).start(argv=["--quiet", "flower", *flower_arguments(options)])


def flower_arguments(options: FlowerOptions) -> list[str]:
    """Flower's command line, which holds no password."""
    arguments = [
        f"--address={options.address}",
        f"--port={options.port}",
        f"--max_tasks={options.max_tasks}",
        f"--tasks_columns={COLUMNS}",
        f"--purge_offline_workers={_PURGE_SECONDS}",
    ]
    if options.state is not None:
        arguments += ["--persistent=True", f"--db={options.state}", f"--state_save_interval={_SAVE_MILLISECONDS}"]
    if options.url_prefix:
        arguments.append(f"--url_prefix={options.url_prefix}")
    return arguments
