"""What people say of a row's result: right or wrong, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from doteval.core.wording import clean
from doteval.errors import UsageError

# Characters of the name of a person, and of a note.
MOST_NAME = 100
MOST_NOTE = 4_000

# What the label of a row is on which people differ.
DISPUTED = "disputed"


class LabelJudgement(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class RowLabel:
    """What one person says of the result of a row.

    of_earlier: whether it is of a result that the row had before it was run again. Such a label counts nowhere.

    >>> RowLabel("ann", LabelJudgement.WRONG, "The year is missing.", datetime(2026, 1, 1)).judgement
    <LabelJudgement.WRONG: 'wrong'>
    """

    person: str
    judgement: LabelJudgement
    note: str | None
    labelled_at: datetime
    of_earlier: bool = False


def label_of(labels: Sequence[RowLabel]) -> str | None:
    """The label of a row: what all people say who labelled it, `DISPUTED` if they differ, None if nobody did.

    >>> label_of([])
    """
    said = {each.judgement for each in labels if not each.of_earlier}
    if len(said) > 1:
        return DISPUTED
    return next(iter(said)).value if said else None


def checked_name(name: str) -> str:
    """The name of a person, with single spaces. Raises UsageError: it is empty or too long."""
    found = " ".join(clean(name).split())
    if not found:
        raise UsageError("a label needs the name of the person who gives it", remedy="Fill in your name.")
    if len(found) > MOST_NAME:
        raise UsageError(f"the name has more than {MOST_NAME} characters")
    return found


def checked_note(note: str | None) -> str | None:
    """A note, None for one without letters. Raises UsageError: it is too long."""
    found = (note or "").strip()
    if len(found) > MOST_NOTE:
        raise UsageError(f"the note has {len(found):,} characters, and may have {MOST_NOTE:,}")
    return found or None
