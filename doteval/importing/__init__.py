"""Reads the logs of other evaluation tools, and tables of scores, as rows and results.

`find_logs` says which files below a path are logs and how to read each; a `Log` holds what its head says and yields its
rows one at a time. `doteval.submission.import_logs` writes them into the result store. May import
`doteval.datasets`, `doteval.metrics`, `doteval.core` and `doteval.errors`.
"""

from doteval.importing.logs import ImportedRow, Log, LogError, LogFigure, NoLogError, Remarks
from doteval.importing.opening import find_logs, open_log
from doteval.importing.score_tables import TableColumns

__all__ = [
    "ImportedRow",
    "Log",
    "LogError",
    "LogFigure",
    "NoLogError",
    "Remarks",
    "TableColumns",
    "find_logs",
    "open_log",
]
