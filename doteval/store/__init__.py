"""The result store: the SQL database that is the only source of truth.

It holds everything that doteval knows of experiments, rows, results, worker processes and usage: SQLite by default,
PostgreSQL for several machines. Begin with `Store.open` in `doteval.store.store`; each noun has a module with its
queries, `doteval.store.tables` has the tables and `doteval.store.migrations` their versions. `GroupWriter` writes
results.

It may import `doteval.analysis`, `doteval.core` and `doteval.errors`, not the broker or the runner.
"""

from doteval.store.attempts import Attempt
from doteval.store.budget_shares import BudgetState
from doteval.store.calls import NewCall, StoredCall
from doteval.store.crashes import CrashedRow, TimedOutRow
from doteval.store.experiment_filter import ExperimentFilter, sort_overviews
from doteval.store.experiments import ExperimentOverview
from doteval.store.fixture_loads import EVALUATION_FILES, LoadFailure
from doteval.store.group_writer import GroupWriter
from doteval.store.provenance import ExperimentLabels
from doteval.store.provider_batches import BatchCapacity, WantedGroup
from doteval.store.result_rows import NewResult, new_execution
from doteval.store.results import ErrorCount
from doteval.store.row_samples import RowTime, RowUsage
from doteval.store.rows import DatasetState, RowRange
from doteval.store.sizes import StoreSizes
from doteval.store.store import Store
from doteval.store.store_copy import CopiedStore, CopiedTable, CopyProgress
from doteval.store.usage import LoadUsage, LostUsage, ModelUsage, UsageGroup, UsageReport, WorkerUsage
from doteval.store.wanted_calls import BatchReply, ParkedRow
from doteval.store.workers import HeldRange, WorkerCode, WorkerInfo, WorkerState, held_by

__all__ = [
    "EVALUATION_FILES",
    "Attempt",
    "BatchCapacity",
    "BatchReply",
    "BudgetState",
    "CopiedStore",
    "CopiedTable",
    "CopyProgress",
    "CrashedRow",
    "DatasetState",
    "ErrorCount",
    "ExperimentFilter",
    "ExperimentLabels",
    "ExperimentOverview",
    "GroupWriter",
    "HeldRange",
    "LoadFailure",
    "LoadUsage",
    "LostUsage",
    "ModelUsage",
    "NewCall",
    "NewResult",
    "ParkedRow",
    "RowRange",
    "RowTime",
    "RowUsage",
    "Store",
    "StoreSizes",
    "StoredCall",
    "TimedOutRow",
    "UsageGroup",
    "UsageReport",
    "WantedGroup",
    "WorkerCode",
    "WorkerInfo",
    "WorkerState",
    "WorkerUsage",
    "held_by",
    "new_execution",
    "sort_overviews",
]
