"""Computes what results mean: pure functions over streams of records and values, without a store.

`summary.summarize` computes the metrics of an evaluation, `compare.compare_evaluations` and `compare.conclude` say
whether another one is better (`score_arrays` has what they take, `paired_scores` and `paired_tests` the statistics),
`thresholds.check_threshold` whether a metric is high enough. `export.export` writes records to a file, and
`junit.junit_xml` what `judgement.Judgement` says, for automations. May import `doteval.metrics`, `doteval.core` and
`doteval.errors`.
"""
