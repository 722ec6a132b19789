"""Evaluations in this process: plain `pytest`, and `run` in scripts and notebooks.

Entry points: `session.LocalExperiment`, which `doteval.pytest_plugin` makes, and `run.run`. `options` are pytest's
command-line options, `report` is the section at the end of its output.

May import `coordination`, `pytest_runtime` and the layers below; not `submission`, which is beside it. Only
`pytest_plugin`, and `doteval` for `run`, import it.
"""
