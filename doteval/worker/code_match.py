"""Finds the collected evaluation that a row task is for, and checks that its files are those of the submitter."""

from __future__ import annotations

from collections.abc import Sequence

from doteval.core.experiments import Evaluation
from doteval.errors import CodeMismatchError
from doteval.pytest_runtime.fingerprint import differing_files, fingerprint
from doteval.pytest_runtime.items import EvaluationItem


class CodeMatch:
    """The evaluations that this process has collected below `paths`; `add` adds them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._items: dict[str, list[EvaluationItem]] = {}
        self._fingerprints: dict[EvaluationItem, dict[str, str]] = {}
        self._matched: dict[str, tuple[Evaluation, EvaluationItem]] = {}

    def add(self, items: Sequence[EvaluationItem]) -> None:
        """Add the collected evaluations, before fixtures import more files than the collection did."""
        for item in items:
            self._items.setdefault(item.evaluation_name, []).append(item)
            self._fingerprints[item] = fingerprint(item)

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
        candidates = [
            item
            for item in self._items.get(evaluation.name, [])
            if _same_path(item.evaluation_path, evaluation.spec.path)
        ]
        if not candidates:
            raise CodeMismatchError(
                f"this worker has no evaluation {evaluation.spec.nodeid} below {', '.join(self._paths)}",
                remedy="Start the worker with the path of the submitted file, and with the same files.",
            )
        differing: list[str] = []
        for item in candidates:
            differing = differing_files(evaluation.spec.fingerprint, self._fingerprints[item])
            if not differing:
                self._matched[evaluation.uid] = (evaluation, item)
                return item
        raise CodeMismatchError(
            f"the worker's files differ from the submitter's for {evaluation.spec.nodeid}: {', '.join(differing)}",
            remedy="Bring the same files to every worker, and restart the workers.",
        )


def _same_path(ours: str, theirs: str) -> bool:
    """Whether two paths mean the same file; one of their root directories may lie inside the other."""
    return ours == theirs or ours.endswith("/" + theirs) or theirs.endswith("/" + ours)
