"""An evaluation that is in no store."""

from __future__ import annotations

from datetime import UTC, datetime

from doteval.core.experiments import Counts, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.core.run_config import RunConfig

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def evaluation(config: RunConfig) -> Evaluation:
    spec = EvaluationSpec(path="eval_it.py", name="eval_it", columns=("n",), fingerprint={}, config=config)
    return Evaluation(1, "uid", Experiment(1, "x", MOMENT), spec, EvaluationStatus.RUNNING, None, Counts(1), MOMENT)
