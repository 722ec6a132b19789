"""A real PgBouncer in transaction mode before the PostgreSQL of the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.support.project import wait_until
from tests.support.redis import free_port

_CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
logfile = {directory}/log
pidfile = {directory}/pid
"""


@pytest.fixture
def pgbouncer_url(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database by way of PgBouncer."""
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
            host=host, port=server.port or 5432, user=server.username or "postgres", listen=port, directory=directory
        )
    )
    command = [binary, str(config)]
    if os.geteuid() == 0:
        # PgBouncer refuses to run as root. The server's socket belongs to its user.
        owner = pwd.getpwuid(Path(str(host)).stat().st_uid).pw_name if str(host).startswith("/") else "nobody"
        owner = "nobody" if owner == "root" else owner
        shutil.chown(directory, owner)
        command = ["runuser", "-u", owner, "--", *command]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"postgresql://{server.username or 'postgres'}@127.0.0.1:{port}/{server.database}"
    try:
        wait_until(lambda: _answers(url), what="PgBouncer")
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False
