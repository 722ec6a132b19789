"""The questions of the subject `reading` with inspect-ai's data frames, on a log that it has written: one a process.

`write N` writes the log of N samples of about 1 KB with two scores, as `benchmarks.large_store` fills a store.
"""

import sys

question, number = sys.argv[1], int(sys.argv[2])
LOG = "inspect.eval"


def write(rows):
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalResults,
        EvalSample,
        EvalScore,
        EvalSpec,
        EvalStats,
        write_eval_log,
    )
    from inspect_ai.scorer import Score

    filler = "lorem ipsum " * 75
    samples = [
        EvalSample(
            id=index,
            epoch=1,
            input=f"{index} {filler}",
            target=f"the answer is {index}",
            metadata={"category": f"category {index % 20}"},
            scores={
                "exact_match": Score(value=int((index % 1000) * 7919 % 1000 < 700)),
                "judge": Score(value=(index % 1000 * 31 % 90 + 10) / 100),
            },
        )
        for index in range(rows)
    ]
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00",
        task="large",
        model="mockllm/model",
        dataset=EvalDataset(name="large", samples=rows),
        config=EvalConfig(),
    )
    scores = [
        EvalScore(
            name="exact_match", scorer="exact_match", metrics={"accuracy": EvalMetric(name="accuracy", value=0.7)}
        )
    ]
    results = EvalResults(total_samples=rows, completed_samples=rows, scores=scores)
    log = EvalLog(status="success", eval=spec, results=results, stats=EvalStats(), samples=samples)
    write_eval_log(log, LOG)


if question == "write":
    write(number)
elif question == "history":
    from inspect_ai.analysis import evals_df

    print(evals_df(LOG)[["task_name", "model", "score_headline_value"]].to_string())
else:
    from inspect_ai.analysis import samples_df

    frame = samples_df(LOG)
    assert len(frame) == number
    if question == "filter":
        found = frame[(frame["score_exact_match"] == 0) & (frame["metadata_category"] == "category 7")].head(20)
        print(found[["id", "input", "score_exact_match", "score_judge"]].to_string())
    else:
        scores = frame[["metadata_category", "score_exact_match", "score_judge"]]
        print(scores.groupby("metadata_category").agg(["mean", "sem", "count"]).to_string())
