"""A Hugging Face hub on a loopback port, with the few endpoints that the `datasets` library asks for Parquet files.

The contract, as of huggingface_hub 2.4 and datasets 5.2: ``/api/datasets/REPO[/revision/REV]`` describes a dataset and
resolves a revision, ``.../tree/REV/PATH`` lists files, ``/datasets/REPO/resolve/REV/PATH`` has a file with an ETag; an
error is a status with the header X-Error-Code.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The commit that every dataset is at. Its branch is main.
COMMIT = "c0ffee" + "0" * 34
GATED = "you/gated"


@contextmanager
def serve_hub(datasets: Path) -> Iterator[str]:
    """Serve the datasets in directories OWNER/NAME. Yields the address, for HF_ENDPOINT."""

    class Handler(_HubHandler):
        root = datasets

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    root: Path

    def log_message(self, *_: object) -> None:
        """A test prints nothing of it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            self._describe("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self._send_file("/".join(parts[1:3]), "/".join(parts[5:]))
        else:
            self._refuse(404, "RepoNotFound")

    def _describe(self, repository: str, asked: list[str]) -> None:
        directory = self.root / repository
        if repository == GATED:
            self._refuse(403, "GatedRepo")
        elif not directory.is_dir():
            self._refuse(401, "RepoNotFound")
        elif asked[1:] and asked[1] not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif asked[:1] == ["tree"]:
            below = directory.joinpath(*asked[2:])
            files = [
                {"type": "file" if each.is_file() else "directory", "path": each.relative_to(directory).as_posix()}
                | {"size": each.stat().st_size, "oid": "0" * 40}
                for each in sorted(below.iterdir())
            ]
            self._send(json.dumps(files).encode())
        else:
            files = [{"rfilename": each.relative_to(directory).as_posix()} for each in directory.rglob("*.*")]
            about = {"id": repository, "sha": COMMIT, "private": False, "gated": False, "disabled": False}
            self._send(json.dumps(about | {"tags": [], "downloads": 0, "likes": 0, "siblings": files}).encode())

    def _send_file(self, repository: str, path: str) -> None:
        file = self.root / repository / path
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = file.read_bytes()
        self._send(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _refuse(self, status: int, code: str) -> None:
        self._send(b'{"error": "refused"}', {"X-Error-Code": code}, status)

    def _send(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
