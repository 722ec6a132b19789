"""Whether the figures of a report can be relied on, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from doteval.analysis.compare import ALONE
from doteval.analysis.figures import rows_of
from doteval.analysis.summary import FAILED_SHARE_WARNED
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.provenance import Provenance
from doteval.core.wording import counted
from doteval.report.contents import Against, Check, HeldThresholds, Level, ShownEvaluation

# Evaluations, differences and notes that are named, at most.
_NAMED = 5


def unfinished(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Say why not every row has a result, in sentences; nothing if each has one."""
    if not evaluations:
        yield "The experiment has no evaluations yet."
    running = [each for each in evaluations if each.status is EvaluationStatus.RUNNING]
    if running:
        counts = f" {rows_of(running[0].counts)} are finished." if len(running) == len(evaluations) == 1 else ""
        yield (
            f"{counted(len(running), 'evaluation is', 'evaluations are')} still running.{counts} "
            "The figures are for the rows that are finished, and will change."
        )
    ended = [each for each in evaluations if each not in running]
    stopped = [each for each in ended if each.status is not EvaluationStatus.COMPLETED]
    for each in stopped[:_NAMED]:
        why = f": {each.reason}" if each.reason else ""
        yield f"{each.name} is {each.status.value}{why}"
    if len(stopped) > _NAMED:
        yield f"{counted(len(stopped) - _NAMED, 'more evaluation was', 'more evaluations were')} not completed."
    pending = sum(each.counts.pending for each in ended)
    if pending:
        yield f"{counted(pending, 'row has', 'rows have')} no result, though nothing runs them."


def all_checks(
    shown: Sequence[ShownEvaluation],
    evaluations: Sequence[Evaluation],
    against: Against | None,
    commands: Sequence[Provenance],
    thresholds: HeldThresholds | None,
) -> Iterator[Check]:
    """Yield everything that decides whether the figures can be relied on, what speaks against it first."""
    found = [
        *_of_thresholds(thresholds),
        *_of_rows(evaluations),
        *_of_notes(shown),
        *([] if against is None else _of_comparison(against)),
        *_of_origin(commands),
    ]
    order = (Level.BAD, Level.NOTE, Level.GOOD)
    yield from sorted(found, key=lambda check: order.index(check.level))


def _of_thresholds(thresholds: HeldThresholds | None) -> Iterator[Check]:
    if thresholds is None:
        return
    for missed in thresholds.missed[:_NAMED]:
        yield Check(Level.BAD, missed)
    if not thresholds.missed:
        yield Check(Level.GOOD, f"Every threshold is met: {', '.join(thresholds.asked)}")


def _of_rows(evaluations: Sequence[Evaluation]) -> Iterator[Check]:
    why = list(unfinished(evaluations))
    for sentence in why:
        yield Check(Level.BAD, sentence)
    done, failed, skipped = (
        sum(getattr(each.counts, name) for each in evaluations) for name in ("done", "failed", "skipped")
    )
    if evaluations and not why:
        yield Check(Level.GOOD, f"All {counted(done + failed + skipped, 'row has', 'rows have')} a result")
    if failed:
        share = failed / (done + failed)
        level = Level.BAD if share > FAILED_SHARE_WARNED else Level.NOTE
        yield Check(
            level,
            f"{counted(failed, 'row')} of {done + failed:,} failed ({share:.1%}); most metrics count them as false",
        )
    elif done:
        yield Check(Level.GOOD, "No row failed")
    if skipped:
        yield Check(Level.NOTE, f"{counted(skipped, 'row was', 'rows were')} skipped, and counted nowhere")


def _of_notes(shown: Sequence[ShownEvaluation]) -> Iterator[Check]:
    several = len(shown) > 1
    notes = [
        f"{each.evaluation.name}: {note}" if several else note
        for each in shown
        for note in (*each.evaluation.dataset_notes, *each.summary.notes)
    ]
    yield from (Check(Level.NOTE, note) for note in notes[:_NAMED])
    if len(notes) > _NAMED:
        yield Check(Level.NOTE, f"{counted(len(notes) - _NAMED, 'more note')} in doteval show")


def _of_comparison(against: Against) -> Iterator[Check]:
    differences = list(dict.fromkeys(text for pair in against.pairs for text in pair.differences))
    # Rows of this experiment that failed are named already.
    own = against.names[1]
    gaps = [
        f"{pair.pair.other.name}: {gap}" if len(against.pairs) > 1 else str(gap)
        for pair in against.pairs
        for gap in pair.comparison.gaps
        if gap.experiment != own or gap.what == ALONE
    ]
    for text in differences[:_NAMED]:
        yield Check(Level.NOTE, f"Against {against.names[0]}, {text}")
    for gap in gaps[:_NAMED]:
        yield Check(Level.NOTE, gap)
    if not differences and not gaps:
        yield Check(Level.GOOD, f"Same rows, code and models as {against.names[0]}")
    for missing in against.comparison.missing[:_NAMED]:
        yield Check(Level.BAD, f"{missing.experiment} has no evaluation {missing.evaluation}: it is not compared")


def _of_origin(commands: Sequence[Provenance]) -> Iterator[Check]:
    if not commands or commands[0].git is None:
        yield Check(Level.NOTE, "The commit that it ran from is not known")
        return
    git = commands[0].git
    ran = [each for each in commands if not each.recomputes]
    branch = f" ({git.branch})" if git.branch else ""
    others = {each.git.commit for each in ran if each.git is not None} - {git.commit}
    if any(each.git is not None and each.git.dirty for each in ran):
        yield Check(Level.NOTE, f"From commit {git.commit[:8]}{branch}, with uncommitted changes")
    elif not others:
        yield Check(Level.GOOD, f"From commit {git.commit[:8]}{branch}")
    if others:
        more = counted(len(others), "other")
        yield Check(Level.NOTE, f"Begun from commit {git.commit[:8]}{branch}, continued from {more}")
