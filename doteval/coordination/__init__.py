"""What joins the result store and the broker, for every process that submits or runs rows.

Entry points: `dispatcher.Dispatcher` publishes pending rows and ends evaluations, `ingest.ingest_dataset` stores a
dataset's rows, `claims` keeps two commands from running the same rows, `heartbeat.Heartbeat` reports that a process
lives, `outage_retry.retry_through_outage` waits for the store and the broker, `budget_guard` stops at the budget.

May import `pytest_runtime`, `monitoring`, `store`, `broker`, `runner` and the layers below; not `supervision`, which is
beside it.
"""
