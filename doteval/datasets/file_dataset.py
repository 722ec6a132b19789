"""What datasets in files have in common: reading, decompressing, hashing, and errors that name the line."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from doteval.datasets.base import Dataset
from doteval.errors import DatasetError

# A file is hashed in parts of 32 MiB, four at a time, each of which is read in blocks of 1 MiB.
_PART_BYTES = 1 << 25
_HASHERS = 4
_BLOCK_BYTES = 1 << 20


class FileDataset(Dataset):
    """The rows of a file. The fingerprint is a hash of its content.

    `wanted`: the columns that rows must have, all of them for None. The others need not be decoded.
    """

    # Whether rows have their values by the names in `columns`, so that a missing name is found before any row.
    by_name = True

    def __init__(self, path: Path, wanted: Sequence[str] | None = None) -> None:
        self.path = path
        self.wanted = wanted
        self.description = path.name

    @functools.cached_property
    def fingerprint(self) -> str:
        # Parts are hashed in parallel, so that submitting gigabytes again does not wait for one processor.
        starts = range(0, max(1, self.path.stat().st_size), _PART_BYTES)
        whole = hashlib.blake2b(digest_size=16)
        with ThreadPoolExecutor(_HASHERS) as pool:
            for part in pool.map(self._hash_part, starts):
                whole.update(part)
        return f"blake2b-parts:{whole.hexdigest()}"

    def _hash_part(self, start: int) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            left = _PART_BYTES
            while left and (block := file.read(min(_BLOCK_BYTES, left))):
                digest.update(block)
                left -= len(block)
        return digest.digest()

    @contextlib.contextmanager
    def _bytes(self) -> Iterator[BinaryIO]:
        """The file's content, decompressed if its name ends with .gz. Raises DatasetError if it cannot be read."""
        try:
            if is_compressed(self.path):
                with gzip.open(self.path) as unpacked:
                    yield cast(BinaryIO, unpacked)
            else:
                with self.path.open("rb") as file:
                    yield file
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DatasetError(
                f"{self.path.name} cannot be read: {reason}", remedy="Make or download the file again."
            ) from error

    @contextlib.contextmanager
    def _text(self, errors: str = "strict") -> Iterator[TextIO]:
        with self._bytes() as file:
            # utf-8-sig removes the byte order mark that spreadsheets write, which would become part of a column's name.
            yield io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline="")

    def _broken(self, line: int, problem: str, remedy: str | None = None) -> DatasetError:
        return DatasetError(f"{self.path.name}, line {line}: {problem}", remedy=remedy)


def is_compressed(path: Path) -> bool:
    """Whether the file is one that gzip has compressed, by its name."""
    return path.suffix.lower() == ".gz"


def format_suffix(path: Path) -> str:
    """The suffix that tells the format of a file: ``.csv`` for ``a.csv`` and ``a.csv.gz``."""
    return Path(path.stem if is_compressed(path) else path.name).suffix.lower()
