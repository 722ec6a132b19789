"""Runs the view until a signal ends it."""

from __future__ import annotations

import contextlib
import errno
import getpass
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn

from doteval.core.file_descriptors import remedy_for
from doteval.core.stop_signals import StopSignals
from doteval.errors import UsageError
from doteval.store import Store
from doteval.store.row_labels import RowLabelWriter
from doteval.view.access import AccessRules, needs_token
from doteval.view.application import make_application
from doteval.view.calculations import Calculations
from doteval.view.labelling import Labelling

# Seconds that a transaction of a page may take, and of what is computed in the background.
PAGE_SECONDS = 5.0
CALCULATION_SECONDS = 120.0
# Seconds that requests may take after the signal that ends the view.
_LEAVING_SECONDS = 2


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """The options of ``doteval view``.

    port: 0 for a free one.
    token: what visitors have to show, None for a new one where one is needed.
    trust_header, hosts: see `AccessRules`.
    flower: the URL of Flower, to which pages link.
    takes_labels: whether visitors may label rows, for which the store is opened for writing, too.
    """

    storage: str | None
    host: str = "127.0.0.1"
    port: int = 7575
    token: str | None = None
    trust_header: str | None = None
    hosts: tuple[str, ...] = ()
    flower: str | None = None
    opens_browser: bool = False
    takes_labels: bool = False

    def rules(self) -> AccessRules:
        """Who may see the view: on an address that others reach, only who shows a token or comes by the proxy."""
        token = self.token
        if token is None and self.trust_header is None and needs_token(self.host):
            token = secrets.token_urlsafe(24)
        return AccessRules(token, self.trust_header, (*self.hosts, self.host))


def serve(options: ViewOptions, on_start: Callable[[str, str], None]) -> None:
    """Serve the view until SIGTERM or Ctrl-C.

    on_start: called with the URL to open and with that of the store.

    Raises UsageError: the address cannot be listened on.
    Raises StoreError, NotFoundError: the store cannot be read, or cannot be written though labels are to be taken;
    StoreVersionError: it has to be upgraded first.
    """
    rules = options.rules()
    leaving = threading.Event()
    with (
        _listening(options.host, options.port) as listener,
        Store.open_read_only(options.storage, seconds=PAGE_SECONDS) as store,
        Store.open_read_only(options.storage, seconds=CALCULATION_SECONDS) as patient,
        contextlib.closing(Calculations(patient)) as calculations,
        _labelling(options, rules) as labelling,
        StopSignals(leaving.set),
    ):
        application = make_application(store, calculations, rules, flower=options.flower, labelling=labelling)
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=_LEAVING_SECONDS,
            )
        )

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                leaving.set()

        # On the main thread uvicorn would take the signals, and raise them again at its end.
        thread = threading.Thread(target=run, name="doteval-view")
        url = f"http://{_shown_host(options.host)}:{listener.getsockname()[1]}/"
        thread.start()
        try:
            whole = url if rules.token is None else f"{url}?token={rules.token}"
            # Who has chosen the token knows it, and logs must not.
            on_start(whole if options.token is None else f"{url}?token=***", store.url)
            if options.opens_browser:
                webbrowser.open(whole)
            leaving.wait()
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                f"this machine has no address {host}",
                remedy="Give one of its own with --host, 0.0.0.0 for all of them, or 127.0.0.1 for this machine alone.",
            ) from None
        raise UsageError(
            # create_server adds the address in its own words.
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).partition(' (')[0]}",
            remedy=remedy_for(error, "Choose another one with --port, or 0 for any that is free."),
            page="troubleshooting#port-taken",
        ) from None
    with listener:
        yield listener


@contextlib.contextmanager
def _labelling(options: ViewOptions, rules: AccessRules) -> Iterator[Labelling | None]:
    if not options.takes_labels:
        yield None
        return
    with contextlib.closing(RowLabelWriter(options.storage)) as writer:
        yield Labelling(writer, rules, None if needs_token(options.host) else _own_name())


def _own_name() -> str | None:
    """The name of this process's user, None where the system has none for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


def _shown_host(host: str) -> str:
    """The host in a URL: this machine's own name for all of its addresses."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
