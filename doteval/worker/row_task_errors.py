"""Errors that say why a row task is not run to its end."""


class GiveBackError(Exception):
    """This process will not run a row task to its end, and gives it back to the broker for another process."""


class EndedError(Exception):
    """The evaluation was cancelled or has ended, so its rows do not run any more."""
