"""What results mean: pure functions over streams of records and values, without a store.

`summary.summarize` computes the metrics of an evaluation, `compare.compare` the differences between experiments,
`thresholds.check_threshold` whether a metric is high enough, and `export.export` writes records to a file. May
import `doteval.metrics`, `doteval.core` and `doteval.errors`.
"""
