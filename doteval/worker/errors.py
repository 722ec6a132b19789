"""Refusals: why a row task is not run to its end."""


class GiveBackError(Exception):
    """This process will not run a row task to its end: another shall have it."""


class EndedError(Exception):
    """The evaluation was cancelled, or came to its end otherwise: its rows are not run any more."""
