"""Fills a result store with finished experiments of many rows, by statements that the database computes alone.

Running a million rows takes minutes, and they would have to be run anew for each measurement of reading them.
"""

from __future__ import annotations

from sqlalchemy import text

from doteval.core.experiments import EvaluationSpec, EvaluationStatus
from doteval.core.histogram import Latency
from doteval.store import Store
from doteval.store.engine import Database
from doteval.store.url import locate

EVALUATION = EvaluationSpec("eval_large.py", "eval_large", ("number", "category", "question", "expected"))
CATEGORIES = 20
SCORES = ("exact_match", "judge")

# Rows of about 1,000 characters, as in `benchmarks.subjects.million_rows`.
_QUESTION = "lorem ipsum " * 75
# In the statements, a colon begins a parameter.
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows) "
_ROWS = (
    "INSERT INTO row (evaluation_id, row_index, key, content) " + _NUMBERS + "SELECT :evaluation, i,"
    " '6f1ed002ab5595859014ebf0951522d9' || i,"
    """ '{"number"\\:' || i || ',"category"\\:"category ' || (i % :categories) || '","question"\\:"' || i || ' ' ||"""
    """ :question || '","expected"\\:"the answer is ' || i || '"}' FROM n"""
)
_RESULTS = (
    "INSERT INTO result (evaluation_id, row_index, sample, status, retry, execution, started_at, seconds,"
    " model_response) " + _NUMBERS + "SELECT :evaluation, i, 0, 'done', {false}, 1, 1780000000 + i * 0.01, 0.5,"
    """ '"I think that the answer to this question is ' || i || '"' FROM n"""
)
# About 70% are true; the experiments agree on most rows.
_TRUE = "((i % 1000) * 7919 + :seed * (i % 10)) % 1000 < 700"
_EXACT = (
    "INSERT INTO score (evaluation_id, row_index, sample, position, name, metrics, value, number) "
    + _NUMBERS
    + """SELECT :evaluation, i, 0, 0, 'exact_match', '["accuracy"]',"""
    f" CASE WHEN {_TRUE} THEN 'true' ELSE 'false' END, CASE WHEN {_TRUE} THEN 1.0 ELSE 0.0 END FROM n"
)
_HUNDREDTHS = "((i % 1000 * 31 + :seed * 17) % 90 + 10)"
_JUDGE = (
    "INSERT INTO score (evaluation_id, row_index, sample, position, name, metrics, value, number) "
    + _NUMBERS
    + f"""SELECT :evaluation, i, 0, 1, 'judge', '["mean"]', '0.' || {_HUNDREDTHS}, {_HUNDREDTHS} / 100.0 FROM n"""
)
_USAGE = (
    "INSERT INTO usage (evaluation_id, row_index, sample, execution, position, model, requests, attempts, cache_hits,"
    " cache_misses, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, unfinished, cost, seconds,"
    " waited, judge, batch, latency) "
    + _NUMBERS
    + "SELECT :evaluation, i, 0, 1, 0, 'gpt-small', 1, 1, 0, 1, 250, 40, 0, 0, 0,"
    " 0.001, 0.4, 0.0, {false}, {false}, :latency FROM n"
)
_COUNTERS = (
    "INSERT INTO counters (evaluation_id, worker_id, done, failed, skipped, attempts, tokens, unpriced, cost)"
    " VALUES (:evaluation, 0, :rows, 0, 0, :rows, :rows * 290, 0, :rows * 0.001)"
)


def fill(url: str, experiment: str, rows: int, *, seed: int) -> None:
    """Add a completed experiment with so many rows of 1 KB, each with a response, two scores and one model call.

    seed: of another seed, some scores are others.
    """
    with Store.open(url) as store:
        evaluation = store.evaluations.begin(store.experiments.begin(experiment), EVALUATION)
    database = Database(locate(url))
    false = "0" if database.is_sqlite else "false"
    given = {
        "evaluation": evaluation.id,
        "rows": rows,
        "seed": seed,
        "question": _QUESTION,
        "categories": CATEGORIES,
        "latency": Latency.of(0.4).to_text(),
    }
    for statement in (_ROWS, _RESULTS, _EXACT, _JUDGE, _USAGE, _COUNTERS):
        compiled = text(statement.replace("{false}", false))
        with database.write() as connection:
            connection.execute(compiled, {name: given[name] for name in compiled.compile().params})
    if not database.is_sqlite:
        # Autovacuum does so in the background soon after.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    database.close()
    with Store.open(url) as store:
        store.rows.set_total(evaluation.id, rows, complete=True, fingerprint=None)
        store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
        # Its metrics, which a submitter stores at the end.
        ended = store.evaluations.by_uid(evaluation.uid)
        store.summaries.write(ended, [store.summary(ended)])
