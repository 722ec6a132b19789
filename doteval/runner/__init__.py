"""Runs the rows of evaluations in one process, and knows nothing of pytest's fixtures.

Entry: `scheduler.Scheduler` takes `assignments.Assignment` objects and decides which row runs next.
`call_runner` takes each call from its fixtures to its recorded results, and `executors` run it: inline, in a
thread, or on the event loop (`event_loop`, `async_pool`). `calls` turns what an eval function returns or raises into
outcomes; `row_retries` repeats it, and `timeouts` interrupts it. `concurrency_windows` decides how many rows may be in
flight, `time_slices` which evaluation runs, and `admission` whether a call may begin.

It may import `clients` and what is below. Fixtures reach it through the protocols in `assignments`, which
`doteval.pytest_runtime` implements.
"""
