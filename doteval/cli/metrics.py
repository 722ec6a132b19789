"""`doteval metrics`: the figures of the store for Prometheus."""

from __future__ import annotations

import threading

import click

from doteval.cli.options import storage_option
from doteval.cli.streams import say_aside


@click.command("metrics")
@storage_option
@click.option("--broker", metavar="URL", help="Message broker, for the depth of the queue.")
@click.option("--queue", metavar="NAME", help="Queue to measure besides those of evaluations.  [default: doteval]")
@click.option("--address", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", default=9540, show_default=True, help="Port to listen on."
)
def command(storage: str | None, broker: str | None, queue: str | None, address: str, port: int) -> None:
    """Serve the figures of the store to Prometheus, on /metrics, until SIGTERM or Ctrl-C.

    They are rows by status, errors by class, worker processes, queue depth, loads, tokens and cost, for
    evaluations that are running or ended within the last hour.
    """
    from contextlib import ExitStack, closing

    from prometheus_client import CollectorRegistry

    from doteval.broker.publisher import Publisher
    from doteval.core.stop_signals import StopSignals
    from doteval.monitoring.endpoint import Endpoint, HttpReply, metrics_reply
    from doteval.monitoring.store_figures import StoreFigures
    from doteval.settings import load_settings
    from doteval.store import Store
    from doteval.store.url import locate

    settings = load_settings(broker=broker, queue=queue, storage=storage)
    with ExitStack() as stack:
        # A service may start before the first evaluation; only a file has to be there.
        store = stack.enter_context(Store.open(settings.storage, create=locate(settings.storage).path is None))
        publisher = None
        if settings.message_broker is not None:
            publisher = stack.enter_context(closing(Publisher(settings.message_broker, settings.queues[0])))
        registry = CollectorRegistry()
        registry.register(StoreFigures(store, publisher, queues=settings.queues))
        # Before the first reply, so that every signal ends it in order.
        leaving = threading.Event()
        stack.enter_context(StopSignals(leaving.set))
        paths = {"/metrics": lambda: metrics_reply(registry), "/health": lambda: HttpReply(200, b"ok\n")}
        endpoint = stack.enter_context(Endpoint(address, port, paths))
        say_aside(f"Figures on http://{address}:{endpoint.port}/metrics for {store.url}")
        leaving.wait()
