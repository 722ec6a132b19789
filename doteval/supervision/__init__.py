"""The processes of one machine: starts worker processes, restarts those that die, and records how they ended.

`supervisor.Supervisor` keeps a number of worker processes alive, and `service.serve` is what ``doteval worker`` runs.
`fork_server` forks worker processes with their imports done, `worker_config` holds what they are started with, and
`output_relay` passes on what they print. What a process leaves behind in files: `start_reports` (whether it became
ready), `inflight_journal` (the rows that it ran), `usage_journal` (the usage that is not stored yet). From these,
`exit_records` records in the result store how a process ended, `left_usage` stores what processes without a supervisor
had used, and `hang_detector` finds calls that no thread of their process can end. `reaper` reaps zombies in a
container. May import `monitoring`, `store`, `broker` and the layers below.
"""
