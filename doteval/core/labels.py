"""Tags of experiments: short words that users find them by again."""

from __future__ import annotations

from doteval.errors import UsageError

_LONGEST = 100


def checked_tag(text: str) -> str:
    """Return a tag, if the text can be one.

    >>> checked_tag("baseline")
    'baseline'

    Raises UsageError: it is empty, long, begins with a sign, or holds a space or a comma.
    """
    if not text or len(text) > _LONGEST or text[0] in "+-" or any(each.isspace() or each == "," for each in text):
        raise UsageError(
            f"{text!r} cannot be a tag",
            remedy=f"A tag has 1 to {_LONGEST} characters without spaces and commas, and begins with no plus or minus.",
        )
    return text
