"""Finds the files of stored evaluations again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from doteval.core.experiments import Evaluation
from doteval.errors import EvaluationFileError, UsageError


def common_root(evaluations: Sequence[Evaluation]) -> Path:
    """The root directory that the evaluations were begun from; the current one if that is not known.

    Raises UsageError if they have several.
    """
    roots = {str(evaluation.config.root or Path.cwd()) for evaluation in evaluations}
    if len(roots) > 1:
        raise UsageError(
            f"these evaluations come from several root directories: {', '.join(sorted(roots))}",
            remedy="Choose those of one of them: --evaluation TEXT",
        )
    root = Path(roots.pop())
    return root if root.is_dir() else Path.cwd()


def file_of(evaluation: Evaluation, root: Path, remedy: str) -> Path:
    """The file of an evaluation below a root directory.

    Raises EvaluationFileError with a `remedy` if it is not there.
    """
    file = root / evaluation.spec.path
    if not file.is_file():
        raise EvaluationFileError(
            f"the evaluation file {evaluation.spec.path} is not below {root}",
            remedy=remedy,
            page="troubleshooting#files-differ",
        )
    return file


def with_evaluation_files(evaluations: Sequence[Evaluation], body: Callable[[], None]) -> None:
    """Call `body` while the files of evaluations are loaded, so that their metrics are known. No row runs.

    A script that calls `run` is not loaded, since that would run it.

    Raises what `body` raises.
    Raises EvaluationFileError: such a file is not there or cannot be loaded.
    Raises UsageError: the files are in several root directories.
    """
    collectable = [each for each in evaluations if each.config.root is not None]
    if not collectable:
        body()
        return
    root = common_root(collectable)
    files = [
        file_of(each, root, "Run the command from the directory that it was run from before.") for each in collectable
    ]
    from doteval.pytest_runtime.embedded_session import with_collected

    with_collected(tuple(dict.fromkeys(map(str, files))), lambda _collected: body(), root=str(root))
