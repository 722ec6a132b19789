"""The directory of a server: it is private, identifies what is left of a killed server, and stays small."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from doteval.errors import ResourceError
from doteval.providers.server import directory
from doteval.providers.server.directory import ServerDirectory
from doteval.providers.server.keeper import files, processes
from doteval.providers.server.provider import ServerProvider

pytestmark = pytest.mark.usefixtures("runtime")


def test_a_directory_that_others_can_access_is_refused(runtime: Path) -> None:
    place = runtime / "doteval-servers"
    place.symlink_to(tempfile.gettempdir())
    with pytest.raises(ResourceError, match="does not belong to you"):
        ServerDirectory("key")
    place.unlink()
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(ResourceError, match=r"others have access[\s\S]*chmod 700"):
        ServerDirectory("key")


def test_a_path_too_long_for_a_socket_is_avoided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    assert directory._parent() == Path(f"/tmp/doteval-servers-{os.getuid()}")


def test_a_process_group_is_killed_only_if_it_is_that_of_the_server(runtime: Path) -> None:
    place = ServerDirectory("key")
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    known = {"pid": process.pid, "started": "1"}
    (place.path / files.STATUS).write_text(json.dumps(known))
    place.kill_remains()
    assert process.poll() is None
    assert place.status() is None
    (place.path / files.STATUS).write_text(json.dumps({**known, "started": processes.started_at(process.pid)}))
    place.kill_remains()
    assert process.wait(120) == -signal.SIGKILL
    # If nothing is left, nothing happens.
    place.kill_remains()


def test_the_log_of_a_server_with_much_output_stays_small(runtime: Path, tmp_path: Path) -> None:
    chatter = """
    import runpy, sys, threading
    def talk():
        for _ in range(300):
            sys.stderr.write("x" * 100_000 + "\\n")
    talk()
    runpy.run_module("doteval.mock_openai", run_name="__main__", alter_sys=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(chatter), "--port", "{port}"]

    async def measure() -> int:
        handle = await ServerProvider().setup("m", command=command, health="/v1/models", directory=tmp_path)
        size = sum(path.stat().st_size for path in files())
        await handle.teardown()
        return size

    def files() -> list[Path]:
        return list(runtime.rglob("output.log*"))

    assert 1_000_000 < asyncio.run(measure()) < 20_000_000
