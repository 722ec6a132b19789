"""``/v1/files``: what was uploaded and what batches wrote, in a temporary directory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from doteval.mock_openai.errors import RequestError, missing, unsupported_value
from doteval.mock_openai.paging import page

_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_CHUNK_BYTES = 2**18
_KEPT_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. Times are in seconds since 1970."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None

    def to_json(self) -> dict[str, Any]:
        """The file object of the API."""
        return {"object": "file", **asdict(self), "status": "processed", "status_details": None}


class FileStore:
    """Keeps files under their ids.

    limit: the most bytes of a file for a batch.
    """

    def __init__(self, directory: Path, seed: int, limit: int) -> None:
        self._directory = directory
        self._seed = seed
        self._limit = limit
        self._serial = 0
        self._files: dict[str, StoredFile] = {}

    def _new_id(self) -> str:
        self._serial += 1
        return "file-" + hashlib.blake2b(f"{self._seed} {self._serial}".encode(), digest_size=12).hexdigest()

    def path(self, file_id: str) -> Path:
        """Where the content is."""
        return self._directory / file_id

    def get(self, file_id: str, param: str = "id", status: int = 404) -> StoredFile:
        """The file. Raises RequestError if there is none."""
        try:
            return self._files[file_id]
        except KeyError:
            raise RequestError(f"No such File object: {file_id}", status=status, param=param) from None

    def listed(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of files, newest first."""
        purpose = query.get("purpose")
        found = [file.to_json() for file in self._files.values() if purpose in (None, file.purpose)]
        return page(found, query, at_most=10_000, default=10_000)

    def delete(self, file_id: str) -> dict[str, Any]:
        """Delete a file. Raises RequestError if there is none."""
        self.get(file_id)
        del self._files[file_id]
        self.path(file_id).unlink()
        return {"id": file_id, "object": "file", "deleted": True}

    def new_path(self) -> tuple[str, Path]:
        """An id and the path to write its content to; `add` makes it a file."""
        file_id = self._new_id()
        return file_id, self.path(file_id)

    def add(self, file_id: str, filename: str, purpose: str, expires_after: int | None = None) -> StoredFile:
        """Keep the content that was written to the path of an id."""
        created = int(time.time())
        kept = expires_after or (_KEPT_SECONDS if purpose == "batch" else None)
        expires = None if kept is None else created + kept
        stored = StoredFile(file_id, filename, purpose, self.path(file_id).stat().st_size, created, expires)
        self._files[file_id] = stored
        return stored

    async def upload(self, request: web.BaseRequest) -> dict[str, Any]:
        """Keep what a request uploads as ``multipart/form-data``. Raises RequestError for a wrong form."""
        if request.content_type != "multipart/form-data":
            raise RequestError(
                f"Invalid Content-Type header ({request.content_type}), expected multipart/form-data.", status=415
            )
        file_id, path = self.new_path()
        fields: dict[str, str] = {}
        filename: str | None = None
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    raise RequestError("A part of the form is itself in parts.")
                if part.name == "file":
                    filename = part.filename or "upload"
                    with path.open("wb") as file:
                        while chunk := await part.read_chunk(_CHUNK_BYTES):
                            file.write(chunk)
                else:
                    fields[part.name or ""] = await part.text()
            if filename is None:
                raise missing("file")
            self._check(filename, fields, path)
            seconds = int(fields.get("expires_after[seconds]", 0)) or None
        except (RequestError, ValueError) as error:
            path.unlink(missing_ok=True)
            raise error if isinstance(error, RequestError) else RequestError(str(error)) from error
        return self.add(file_id, filename, fields["purpose"], seconds).to_json()

    def _check(self, filename: str, fields: Mapping[str, str], path: Path) -> None:
        purpose = fields.get("purpose")
        if purpose is None:
            raise missing("purpose")
        if purpose not in _PURPOSES:
            raise unsupported_value("purpose", purpose, _PURPOSES)
        if purpose == "batch":
            if not filename.endswith(".jsonl"):
                raise RequestError("Invalid file format for Batch API. Must be .jsonl", param="file")
            if path.stat().st_size > self._limit:
                raise RequestError(
                    f"File is too large: the maximum size of a file for a batch is {self._limit} bytes.",
                    status=413,
                    param="file",
                )
