"""Finds the files of stored evaluations again."""

from __future__ import annotations

from collections.abc import Sequence
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
        raise EvaluationFileError(f"the evaluation file {evaluation.spec.path} is not below {root}", remedy=remedy)
    return file
