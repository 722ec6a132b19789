"""Finds the collected evaluation that a row task is for, and checks that its files are those of the submitter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from doteval.core.experiments import Evaluation
from doteval.errors import CodeMismatchError
from doteval.pytest_runtime.fingerprint import differing_files, differing_on_disk, fingerprint, two_hashes
from doteval.pytest_runtime.items import EvaluationItem


class CodeMatch:
    """The evaluations that this process has collected below `paths`; `add` adds them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._root = Path.cwd()
        self._items: dict[str, list[EvaluationItem]] = {}
        self._fingerprints: dict[EvaluationItem, dict[str, str]] = {}
        self._matched: dict[str, tuple[Evaluation, EvaluationItem]] = {}

    def add(self, items: Sequence[EvaluationItem], root: Path) -> None:
        """Add the collected evaluations, before fixtures import more files than the collection did."""
        self._root = root
        for item in items:
            self._items.setdefault(item.evaluation_name, []).append(item)
            self._fingerprints[item] = fingerprint(item)

    @property
    def files(self) -> Mapping[str, str]:
        """The hash of every file that the evaluations consist of, by its path below the root directory."""
        return {path: hashed for each in self._fingerprints.values() for path, hashed in each.items()}

    def known(self, uid: str) -> Evaluation | None:
        """The evaluation with this uid, None if it has not been matched yet."""
        matched = self._matched.get(uid)
        return None if matched is None else matched[0]

    def match(self, evaluation: Evaluation) -> EvaluationItem:
        """The item that this process has collected for an evaluation.

        Raises CodeMismatchError: if there is none, or if the files differ from the submitter's.
        """
        known = self._matched.get(evaluation.uid)
        if known is not None and known[0].spec.fingerprint == evaluation.spec.fingerprint:
            return known[1]
        candidates = self._candidates(evaluation)
        if not candidates:
            raise CodeMismatchError(
                f"this worker has no evaluation {evaluation.spec.nodeid} below {', '.join(self._paths)}",
                remedy="Start the worker with the path of the submitted file, and with the same files.",
                files=(evaluation.spec.path,),
            )
        theirs = evaluation.spec.fingerprint
        differing: list[str] = []
        for item in candidates:
            ours = self._fingerprints[item]
            differing = differing_files(theirs, ours)
            if not differing:
                self._matched[evaluation.uid] = (evaluation, item)
                return item
        hashes = {path: two_hashes(path, ours, theirs) for path in differing}
        each = ", ".join(f"{path} ({mine}, the submitter's {other})" for path, (mine, other) in hashes.items())
        raise CodeMismatchError(
            f"the worker's files differ from the submitter's for {evaluation.spec.nodeid}: {each}",
            remedy="Bring the same files to every worker, and submit again.",
            files=tuple(differing),
        )

    def can_be_read(self, evaluation: Evaluation, *, again: bool) -> bool:
        """Whether a fresh process would read the submitter's files, because they are on the disk of this machine.

        again: whether a predecessor of this process has left for that, which is in vain if no file has changed since
        """
        if not self._is_served(evaluation):
            return False
        if differing_on_disk(evaluation.spec.fingerprint, evaluation.spec.path, self._folders(evaluation)):
            return False
        read = {path: each for item in self._candidates(evaluation) for path, each in self._fingerprints[item].items()}
        changed = any(differing_on_disk({path: each}, path, [self._root]) for path, each in read.items())
        # Otherwise a file has come that this process has not read, or it reads other files than the submitter.
        return changed or not again

    def _candidates(self, evaluation: Evaluation) -> list[EvaluationItem]:
        return [
            item
            for item in self._items.get(evaluation.name, [])
            if _same_path(item.evaluation_path, evaluation.spec.path)
        ]

    def _is_served(self, evaluation: Evaluation) -> bool:
        """Whether the file of an evaluation is below the paths that this process was started with."""
        files = [folder / evaluation.spec.path for folder in self._folders(evaluation)]
        found = [file.resolve() for file in files if file.is_file()]
        return any(file.is_relative_to(path) for file in found for path in self._absolute_paths())

    def _folders(self, evaluation: Evaluation) -> Iterator[Path]:
        """What may be the submitter's root directory here: it may lie inside this process's, or around it."""
        yield from (self._root, *self._root.parents)
        for path in self._absolute_paths():
            yield from (path, *path.parents)
        for item in self._candidates(evaluation):
            yield from item.path.parents

    def _absolute_paths(self) -> list[Path]:
        return [Path(path.partition("::")[0]).resolve() for path in self._paths]


def _same_path(ours: str, theirs: str) -> bool:
    """Whether two paths mean the same file; one of their root directories may lie inside the other."""
    return ours == theirs or ours.endswith("/" + theirs) or theirs.endswith("/" + ours)
