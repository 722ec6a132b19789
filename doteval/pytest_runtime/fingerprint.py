"""Hashes the code that an evaluation consists of: its file, the conftest files above it, and what they import.

Only files below pytest's root directory count, and none of an installed package.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from doteval.core.experiments import EvaluationSpec
from doteval.core.run_config import RunConfig
from doteval.pytest_runtime.items import EvaluationItem, batch_of, queue_of
from doteval.pytest_runtime.pytest_internals import strict_expected_failure
from doteval.runner.concurrency_windows import window_for

# A checkout of doteval may lie below the root directory; it is no user code even then.
_OWN_PACKAGE = Path(__file__).parents[1]


def fingerprint(item: EvaluationItem) -> dict[str, str]:
    """The hash of every user file that the evaluation consists of, by its path below the root directory.

    Imports are followed as they are written, also inside functions, to modules that are imported by now. Submitter and
    worker process both call this right after collection, so that they find the same files.
    """
    root = item.config.rootpath
    found: dict[Path, None] = {}
    waiting = [item.path, *_conftests(item.path, root)]
    while waiting:
        path = waiting.pop()
        if path in found or not _is_users(path, root):
            continue
        found[path] = None
        waiting.extend(_imported_files(path))
    return {path.relative_to(root).as_posix(): _hash(path) for path in sorted(found)}


def differing_files(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """The files whose content differs, or that only one side has.

    The two sides may have different root directories, one inside the other. Paths are then compared below the inner
    one, and a file outside of it is one that only one side has.

    >>> differing_files({"project/eval_a.py": "1", "project/b.py": "2"}, {"eval_a.py": "1", "b.py": "3"})
    ['b.py']
    """
    folder_of_theirs, folder_of_ours = _folders(theirs, ours)
    mine = _below(ours, folder_of_ours)
    other = _below(theirs, folder_of_theirs)
    return sorted(path for path in mine.keys() | other.keys() if mine.get(path) != other.get(path))


def unread_files(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """The files of an evaluation that a process has not read, or with another content; it may have read more files.

    The root directories may differ as in `differing_files`.

    >>> unread_files({"eval_a.py": "1", "b.py": "2"}, {"eval_a.py": "1", "b.py": "3", "eval_c.py": "4"})
    ['b.py']
    """
    folder_of_theirs, folder_of_ours = _folders(theirs, ours)
    mine, other = _below(ours, folder_of_ours), _below(theirs, folder_of_theirs)
    return sorted(path for path in other if mine.get(path) != other[path])


def differing_on_disk(theirs: Mapping[str, str], path: str, folders: Iterable[Path]) -> list[str]:
    """The files of an evaluation that are not on the disk of this machine with the same content.

    path: the one of `theirs` that has the evaluation
    folders: what may be the root directory that the paths of `theirs` are relative to
    """
    found = [
        sorted(each for each, hashed in theirs.items() if _hash_on_disk(folder / each) != hashed)
        for folder in dict.fromkeys(folders)
        if (folder / path).is_file()
    ]
    return min(found, key=len, default=sorted(theirs))


def two_hashes(path: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, str]:
    """The hashes (ours, theirs) of a file that `differing_files` or `unread_files` named, cut for people to compare.

    >>> two_hashes("b.py", {"b.py": "0123456789"}, {"eval_a.py": "1"})
    ('01234567', 'missing')
    """
    folder_of_theirs, folder_of_ours = _folders(theirs, ours)
    mine, other = _below(ours, folder_of_ours), _below(theirs, folder_of_theirs)
    return mine.get(path, "missing")[:8], other.get(path, "missing")[:8]


def _hash_on_disk(path: Path) -> str | None:
    try:
        return _hash(path)
    except OSError:
        return None


def _folders(theirs: Mapping[str, str], ours: Mapping[str, str]) -> tuple[str, str]:
    """The folders of the inner root directory in (theirs, ours), of which at least one is empty.

    If several fit, since `conftest.py` is in many folders, it is the one with the most paths in common.
    """
    candidates = [("", "")]
    candidates += [(folder, "") for folder in sorted(_inner_folders(theirs, ours))]
    candidates += [("", folder) for folder in sorted(_inner_folders(ours, theirs))]
    return max(candidates, key=lambda pair: len(_below(theirs, pair[0]).keys() & _below(ours, pair[1]).keys()))


def _inner_folders(outer: Mapping[str, str], inner: Mapping[str, str]) -> set[str]:
    return {path[: -len(end)] for end in inner for path in outer if path.endswith("/" + end)}


def _below(files: Mapping[str, str], folder: str) -> dict[str, str]:
    # Files outside of the folder are kept apart from files of the same name inside.
    up = "../" * folder.count("/")
    return {path.removeprefix(folder) if path.startswith(folder) else up + path: value for path, value in files.items()}


def _conftests(path: Path, root: Path) -> Iterator[Path]:
    for folder in path.parents:
        conftest = folder / "conftest.py"
        if conftest.is_file():
            yield conftest
        if folder == root:
            return


def _is_users(path: Path, root: Path) -> bool:
    return (
        path.suffix == ".py"
        and path.is_relative_to(root)
        and not path.is_relative_to(_OWN_PACKAGE)
        and "site-packages" not in path.parts
    )


def _imported_files(path: Path) -> Iterator[Path]:
    package = _package_of(path)
    for name in _imported_names(path, package):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
        if file:
            yield Path(file)


def _package_of(path: Path) -> str:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return str(getattr(module, "__package__", "") or "")
    return ""


@functools.cache
def _imported_names(path: Path, package: str) -> tuple[str, ...]:
    # Importing a file imports the packages that it lies in.
    names = [package] if package else []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names.append(base)
            names.extend(f"{base}.{alias.name}" for alias in node.names)
    # An import of a.b.c also imports a and a.b.
    return tuple({".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)})


def _hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def specify(item: EvaluationItem, config: RunConfig | None = None) -> EvaluationSpec:
    """What identifies a collected evaluation in the store, and how its rows are run.

    `config` is what the command says of that; the item's own marks and decorator count more.
    """
    config, own, queue = config or RunConfig(), item.spec.concurrency, queue_of(item)
    in_batches = batch_of(item)
    return EvaluationSpec(
        path=item.evaluation_path,
        name=item.evaluation_name,
        columns=item.spec.columns,
        fingerprint=fingerprint(item),
        config=replace(
            config,
            root=str(item.config.rootpath),
            queue=queue or config.queue,
            queue_is_own=queue is not None,
            # Only worker processes send batches, and rescored rows ask nothing.
            batch=config.submitted
            and config.rescoring is None
            and (config.batch if in_batches is None else in_batches),
            own_batch=None if config.rescoring is not None else in_batches,
            batch_size=item.spec.batch_size,
            concurrency=window_for(own, None, is_async=item.is_async).size,
            concurrency_is_own=own is not None,
            strict_xfail=strict_expected_failure(item),
        ),
    )
