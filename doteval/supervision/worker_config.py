"""The options of a worker process, which its service passes in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from doteval.concurrency import ASYNC_CONCURRENCY
from doteval.core.broker_url import Broker
from doteval.core.client_config import ClientConfig
from doteval.core.experiments import private_queue
from doteval.core.log_format import LogFormat
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.errors import UsageError
from doteval.monitoring import DIRECTORY_VARIABLE

# A variable and not arguments: a URL may hold a password, and every user can read arguments.
VARIABLE = "DOTEVAL_WORKER"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker process.

    paths: evaluation files, directories or nodes.
    queues: where row tasks come from.
    slots: how many row tasks the process holds at most.
    root: pytest's root directory, None to leave it to pytest.
    service: the name of the service in tables and in Flower.
    supervisor: the pid of the service, None for a process that was started on its own.
    supervisor_token: identifies the service among all that there are.
    parent: the pid of the process to leave with, None for a process that was started on its own.
    visibility_timeout: seconds after which Redis delivers the messages of a silent process again.
    journals: the directory of this one process for journals and start reports, None without a supervisor.
    max_rows, max_memory: rows stored, and megabytes used, after which a fresh process takes over.
    figures: the directory for the counts of Prometheus' multiprocess mode.
    client_config: where the clients find the cache and the rate limits that they share.
    """

    paths: tuple[str, ...]
    storage: str | None
    broker: Broker
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    concurrency: int | None = None
    slots: int = 12
    keyword: str | None = None
    root: str | None = None
    service: str = "worker"
    supervisor: int | None = None
    supervisor_token: str | None = None
    parent: int | None = None
    visibility_timeout: int = 3600
    journals: str | None = None
    max_rows: int | None = None
    max_memory: int | None = None
    figures: str | None = None
    log_format: LogFormat = "text"
    client_config: ClientConfig = field(default_factory=ClientConfig)

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The names of the queues as the user gave them."""
        suffix = private_queue("", self.broker.private)
        return tuple(queue.removesuffix(suffix) for queue in self.queues)

    def to_environment(self) -> dict[str, str]:
        variables = {VARIABLE: json.dumps(asdict(self))}
        return variables if self.figures is None else {**variables, DIRECTORY_VARIABLE: self.figures}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WorkerOptions | None:
        """Read the options from the environment; None if there are none.

        Raises UsageError: if they cannot be read.
        """
        text = environment.get(VARIABLE)
        if text is None:
            return None
        try:
            values = json.loads(text)
            client_config = ClientConfig.from_mapping(values["client_config"])
            lists = {name: tuple(values[name]) for name in ("paths", "queues")}
            return cls(**{**values, **lists, "broker": Broker(**values["broker"]), "client_config": client_config})
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"the variable {VARIABLE} cannot be read: {type(error).__name__}",
                remedy="It is written by `doteval worker`; do not set it by hand.",
            ) from error


def slots_for(concurrency: int | None) -> int:
    """How many row tasks a worker process may hold, so that a slow row never leaves it idle."""
    return max(4, min(200, (concurrency or ASYNC_CONCURRENCY) + 2))


def rows_in_flight(processes: int, concurrency: int | None) -> int:
    """How many rows `processes` worker processes run at the same time; 0 (those of others) counts as one."""
    return max(1, processes) * (concurrency or ASYNC_CONCURRENCY)
