"""Notes what the rows of this process spend in the usage journal of the store that they belong to."""

from __future__ import annotations

from doteval.core.metering import UsageScope, observe_usage
from doteval.core.results import Usage
from doteval.supervision.usage_journal import UsageJournal

# By the uids of evaluations, since several stores may be in use at once.
_journals: dict[str, UsageJournal] = {}


def note_usage_of(evaluation_uid: str, journal: UsageJournal) -> None:
    """Note all usage of an evaluation in a journal from now on."""
    _journals[evaluation_uid] = journal
    observe_usage(_note)


def end_notes(journal: UsageJournal) -> None:
    """Note nothing in a journal any more, and close it."""
    for uid in [uid for uid, used in _journals.items() if used is journal]:
        del _journals[uid]
    journal.close()


def _note(scope: UsageScope, usage: Usage) -> None:
    journal = _journals.get(scope.evaluation)
    if journal is not None:
        journal.spent(scope, usage)
