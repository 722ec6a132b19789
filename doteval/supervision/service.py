"""The worker service: what ``doteval worker PATH`` runs until it is asked to leave."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from doteval.broker.celery_app import VISIBILITY_TIMEOUT
from doteval.broker.publisher import Publisher
from doteval.core.broker_url import Broker
from doteval.core.client_config import ClientConfig
from doteval.core.log_format import LogFormat, resolve
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.core.stop_signals import StopSignals, rows_finish_first
from doteval.core.wording import counted
from doteval.errors import EvaluationFileError, UsageError
from doteval.monitoring.service_endpoints import Health, figures_directory, service_endpoints
from doteval.settings import load_settings
from doteval.store import Store
from doteval.supervision.fork_server import start_fork_server
from doteval.supervision.left_usage import store_left_usage
from doteval.supervision.reaper import reap_orphans
from doteval.supervision.supervisor import Supervisor
from doteval.supervision.worker_config import WorkerOptions, slots_for

# Between two searches for zombies, as PID 1 of a container.
_REAP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """The options of ``doteval worker``. None means the default; a `broker` must be named.

    queues: where row tasks come from.
    devices: each worker process sees one of them.
    processes: by default one for each device, or for each core if there are no devices.
    address, health_port, metrics_port: where the service answers health checks and serves its metrics.
    max_memory_per_process: megabytes.
    """

    paths: tuple[str, ...]
    broker: Broker | None
    storage: str | None = None
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    processes: int | None = None
    devices: tuple[str, ...] = ()
    concurrency: int | None = None
    visibility_timeout: int = VISIBILITY_TIMEOUT
    name: str = "worker"
    log_level: str = "INFO"
    log_format: LogFormat = "auto"
    address: str = "127.0.0.1"
    health_port: int | None = None
    metrics_port: int | None = None
    max_rows_per_process: int | None = None
    max_memory_per_process: int | None = None
    client_config: ClientConfig = field(default_factory=ClientConfig)


def serve(options: ServiceOptions, on_message: Callable[[str], None]) -> None:
    """Serve row tasks for the evaluation files below the paths, until SIGTERM, SIGINT or SIGHUP.

    Then the rows in flight finish and are stored, within the setting `drain_timeout`, session fixtures are torn down,
    and it returns. A second signal kills the worker processes. A worker process that dies is restarted.

    on_message: called with each line meant for the operator.

    Raises UsageError, EvaluationFileError, BrokerError or StoreError: if it cannot start.
    Raises WorkerError: if worker processes had to be killed at the end.
    Raises KeyboardInterrupt: at the second signal.
    """
    if options.broker is None:
        raise UsageError(
            "a worker needs to know which broker to listen to",
            remedy="Name it with --broker URL, DOTEVAL_BROKER or [tool.doteval] in pyproject.toml.",
        )
    for path in options.paths:
        if not Path(path.partition("::")[0]).exists():
            raise EvaluationFileError(f"no such file or directory: {path}")
    publisher = Publisher(options.broker, options.queues[0])
    publisher.connect()
    publisher.close()
    processes = options.processes or len(options.devices) or os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        # This comes first: a signal during the start is obeyed once the service runs.
        leaving = threading.Event()
        stack.enter_context(StopSignals(leaving.set))
        store = stack.enter_context(contextlib.closing(Store.open(options.storage)))
        store_left_usage(store)
        figures = stack.enter_context(figures_directory(wanted=options.metrics_port is not None))
        worker_options = _worker_options(options, options.broker, store, figures)
        fork_server = stack.enter_context(start_fork_server(worker_options.to_environment()))
        supervisor = Supervisor(
            worker_options,
            processes,
            store,
            on_message=on_message,
            log_level=options.log_level,
            devices=options.devices,
            fork_server=fork_server,
        )
        addresses = stack.enter_context(
            service_endpoints(
                options.address,
                Health(options.name, supervisor, store),
                supervisor,
                health_port=options.health_port,
                metrics_port=options.metrics_port,
                figures=figures,
            )
        )
        supervisor.start()
        on_message(f"{counted(processes, 'worker process')} on {_queues(options.queues)}; results go to {store.url}")
        if options.devices:
            on_message(_devices_line(options.devices, processes))
        for address in addresses:
            on_message(f"listening on {address}")
        while not leaving.wait(_REAP_SECONDS):
            reap_orphans([*supervisor.pids(), *([fork_server.pid] if fork_server else [])])
        settings = load_settings()
        on_message(f"leaving: {rows_finish_first(settings.drain_timeout)}")
        supervisor.stop(timeout=settings.leave_timeout)


def _worker_options(options: ServiceOptions, broker: Broker, store: Store, figures: Path | None) -> WorkerOptions:
    return WorkerOptions(
        paths=options.paths,
        storage=store.raw_url,
        broker=broker,
        queues=options.queues,
        concurrency=options.concurrency,
        slots=slots_for(options.concurrency),
        service=options.name,
        visibility_timeout=options.visibility_timeout,
        max_rows=options.max_rows_per_process,
        max_memory=options.max_memory_per_process,
        figures=None if figures is None else str(figures),
        client_config=options.client_config,
        log_format=resolve(options.log_format),
    )


def _queues(names: tuple[str, ...]) -> str:
    return f"the queue{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _devices_line(devices: tuple[str, ...], processes: int) -> str:
    unused = ", ".join(devices[processes:])
    dealt = f"each gets one of the devices {', '.join(devices[:processes])} in turn"
    return f"{dealt}; no process uses {unused}" if unused else dealt
