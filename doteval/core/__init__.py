"""Values that every layer shares: results, experiments, run configuration, states, budgets, metering, prices, codecs.

Nothing here opens a database, a broker or a connection. Begin with `doteval.core.results` (what a row produces),
`doteval.core.experiments` (evaluations as the store knows them) and `doteval.core.run_config` (how rows are run, and
the command-line options that say so).

It may import `doteval.errors` only.
"""
