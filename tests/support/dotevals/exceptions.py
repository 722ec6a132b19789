"""The pieces of code in the releases of dotevals that do not run with doteval, and why.

A piece is named by release, file and line. One that several releases have is named once, by the first of them.
"""

from __future__ import annotations

_REASONS: dict[str, list[str]] = {
    "It is wrong for dotevals too, which was tried: a name, a parameter or a return value that does not exist there.": [
        "0.23.0 README.md:106",
        "0.23.0 docs/api/index.md:74",
        "0.23.0 docs/api/model-providers.md:178",
        "0.23.0 docs/api/model-providers.md:193",
        "0.23.0 docs/api/runners.md:51",
        "0.23.0 docs/concepts/core-terminology.md:30",
        "0.23.0 docs/concepts/core-terminology.md:42",
        "0.23.0 docs/how-to/model-provider-pattern.md:86",
        "0.23.0 docs/how-to/model-provider-pattern.md:97",
        "0.23.0 docs/index.md:83",
        "0.23.0 docs/reference/async.md:59",
        "0.23.0 docs/reference/experiments.md:110",
        "0.23.0 docs/reference/experiments.md:192",
        "0.23.0 docs/reference/foreach.md:103",
        "0.23.0 docs/reference/plugin-entry-points.md:67",
        "0.23.0 docs/reference/plugin-entry-points.md:118",
        "0.23.0 docs/reference/running-evaluations.md:238",
        "0.23.0 docs/reference/running-evaluations.md:276",
        "0.23.0 docs/tutorials/06-pytest-fixtures-and-resource-pooling.md:136",
        "0.26.0 docs/reference/batch.md:27",
        "0.28.3 README.md:42",
        "0.28.3 README.md:70",
        "0.28.3 README.md:405",
    ],
    "It calls a fixture, which pytest has refused since 4.0.": [
        "0.26.0 docs/explanation/design-principles.md:84",
        "0.26.0 docs/quickstart.md:107",
        "0.26.0 docs/welcome.md:144",
    ],
    "It is a test function with a yield, which pytest refuses.": ["0.23.0 src/dotevals/providers.py:129"],
    "It is a module of a package, of which it imports another.": [
        "0.23.0 docs/how-to/plugins/create-model-provider-plugin.md:176"
    ],
    "It needs a plugin of dotevals: evaluators, metrics, or a data set.": [
        "0.23.0 README.md:168",
        "0.23.0 README.md:285",
        "0.23.0 docs/how-to/plugins/create-dataset-plugin.md:158",
        "0.23.0 docs/how-to/plugins/create-evaluator-plugin.md:137",
        "0.23.0 docs/how-to/plugins/create-metrics-plugin.md:140",
        "0.23.0 docs/reference/evaluators.md:15",
        "0.23.0 docs/reference/foreach.md:203",
        "0.23.0 docs/reference/plugin-entry-points.md:23",
        "0.23.0 docs/reference/plugin-entry-points.md:225",
        "0.23.0 examples/bfcl.py:1",
        "0.23.0 examples/sroie.py:1",
        "0.28.3 README.md:175",
        "0.28.3 README.md:450",
    ],
    "It reads a data set of the Hugging Face hub, which needs a network.": [
        "0.23.0 README.md:84",
        "0.23.0 docs/reference/plugins.md:131",
        "0.23.0 examples/gsm8k.py:1",
        "0.23.0 src/dotevals/datasets.py:1",
        "0.28.3 README.md:274",
        "0.28.3 README.md:307",
    ],
    "It loads a model of transformers, whose stand-in is no pair.": [
        "0.26.0 docs/how-to/batch-inference-local-models.md:70",
    ],
    "Its evaluator is left to the reader, and its stand-in returns no score.": ["0.23.0 docs/reference/datasets.md:45"],
    "doteval has one SQL store, and no backends for others; docs/coming-from-other-tools.md says so.": [
        "0.23.0 docs/api/storage.md:27",
        "0.23.0 docs/api/storage.md:42",
        "0.23.0 docs/concepts/core-terminology.md:88",
        "0.23.0 docs/explanation/plugin-architecture.md:26",
        "0.23.0 docs/how-to/plugins/create-storage-plugin.md:40",
        "0.23.0 docs/reference/storage.md:69",
        "0.23.0 docs/reference/storage.md:116",
        "0.23.0 docs/reference/storage.md:163",
        "0.26.0 docs/reference/interactive.md:164",
    ],
    "It uses the machinery of dotevals, which is not its API: its runner, and the dictionary of its datasets.": [
        "0.23.0 docs/api/runners.md:68",
        "0.23.0 docs/how-to/plugins/create-dataset-plugin.md:203",
    ],
}

EXCEPTIONS = {name: reason for reason, names in _REASONS.items() for name in names}
