"""Errors that say why a row task is not run to its end."""


class GiveBackError(Exception):
    """This process will not run a row task to its end, and gives it back to the broker for another process."""


class RowTaskFailedError(Exception):
    """A row task could not be run. Its message does not quote the exception, whose text may be another program's."""


class EndedError(Exception):
    """The evaluation was cancelled or has ended, so its rows do not run any more."""
