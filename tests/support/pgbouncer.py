"""A real PgBouncer in transaction mode before the PostgreSQL of the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support.ports import free_port
from tests.support.project import wait_until

_CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
logfile = {directory}/log
pidfile = {directory}/pid
{settings}
"""


@pytest.fixture
def pgbouncer_url(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database by way of PgBouncer."""
    with pgbouncer(postgres_url) as url:
        yield url


@contextmanager
def pgbouncer(postgres_url: str, *settings: str, users: str = "") -> Iterator[str]:
    """A PgBouncer with these lines in its configuration, the last of which count, and with this file of users.

    Yields the URL of the database by way of it.
    """
    binary = shutil.which("pgbouncer")
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no PgBouncer on CI")
        pytest.skip("there is no pgbouncer on the PATH")
    server = make_url(postgres_url)
    host = server.query.get("host", server.host)
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="pgb"))
    config = directory / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            host=host,
            port=server.port or 5432,
            user=server.username or "postgres",
            listen=port,
            directory=directory,
            settings="\n".join(settings),
        )
    )
    (directory / "users").write_text(users)
    command = [binary, str(config)]
    if os.geteuid() == 0:
        # PgBouncer refuses to run as root. The server's socket belongs to its user.
        owner = pwd.getpwuid(Path(str(host)).stat().st_uid).pw_name if str(host).startswith("/") else "nobody"
        owner = "nobody" if owner == "root" else owner
        shutil.chown(directory, owner)
        command = ["runuser", "-u", owner, "--", *command]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), what="PgBouncer")
        yield f"postgresql://{server.username or 'postgres'}@127.0.0.1:{port}/{server.database}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
