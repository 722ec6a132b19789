"""The commands that hand evaluations to worker processes, without the command line.

Entry points: `submit.submit`, `retry.retry`, `status.experiment_status`, `doctor.examine`, `drain.drain`. `follow` is
what submit and retry share: it reports progress, runs the dispatcher and supervises local worker processes.

May import `supervision`, `coordination` and the layers below; not `local`, which is beside it. Only `cli` imports it.
"""
