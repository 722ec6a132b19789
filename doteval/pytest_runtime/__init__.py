"""Makes pytest the runner's source of fixtures; plain `pytest` and worker processes share it.

Entry: `embedded_session.with_collected` collects evaluations as `items.EvaluationItem` inside a pytest session.
`evaluation_setup.EvaluationSetup` loads the fixtures that rows share, and `row_context.RowContext` those of each
row. `load_timer` times session fixtures, `fixture_watchdog` notices a teardown that does not end, and `fingerprint`
says which files an evaluation consists of.

It may import `runner` and what is below. Private names of pytest are used here and nowhere else, and most of them
in `pytest_internals`.
"""
