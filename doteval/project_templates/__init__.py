"""New projects: folders with an evaluation that runs at once, which `doteval init` writes.

`create` is the entry point. The files of a project are those of its parts, each a folder here; a file of a later part
takes the place of an earlier one. This room imports `errors` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doteval.errors import UsageError

# By template: the folders whose files it has, and what it shows.
_PARTS = {
    "llm": ("common", "client", "reviews", "llm"),
    "local-model": ("common", "reviews", "local-model"),
    "judge": ("common", "client", "judge"),
    "agent": ("common", "client", "agent"),
}
TEMPLATES = tuple(_PARTS)
_HERE = Path(__file__).parent
# Tools pass over folders with a dot, also where a package is built.
_HIDDEN = {"github": ".github", "gitignore": ".gitignore"}


@dataclass(frozen=True, slots=True)
class Created:
    """What `create` has done, as paths relative to the folder.

    kept: files that were there already, and stay as they were
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def create(directory: Path, template: str) -> Created:
    """Write the files of a template into a folder, which is made if it is missing. Files that are there are kept.

    Raises UsageError if the folder holds evaluations or fixtures already, or cannot be written to.
    """
    written, kept = [], []
    try:
        # An evaluation would not find its fixtures in another conftest.py.
        there = [*directory.glob("conftest.py"), *sorted(directory.glob("eval_*.py"))] if directory.is_dir() else []
        if there:
            raise UsageError(
                f"{directory} holds evaluations or fixtures already: {', '.join(each.name for each in there)}",
                remedy="Name another folder: doteval init DIR",
            )
        for path, source in _files(template):
            target = directory / path
            if target.exists():
                kept.append(path)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not the permissions too: installed packages may be read-only.
            target.write_bytes(source.read_bytes())
            written.append(path)
    except OSError as error:
        raise UsageError(
            f"{error.filename or directory} cannot be written: {error.strerror}",
            remedy="Name a folder that you may write to: doteval init DIR",
        ) from error
    return Created(tuple(written), tuple(kept))


def _files(template: str) -> Iterator[tuple[Path, Path]]:
    """The files of a template: where each goes, and where its content is."""
    found: dict[Path, Path] = {}
    for part in _PARTS[template]:
        for source in (_HERE / part).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                first, *rest = source.relative_to(_HERE / part).parts
                found[Path(_HIDDEN.get(first, first), *rest)] = source
    yield from sorted(found.items())
