"""Makes the Markdown of a report: tables for tickets and comments, in at most 65,536 characters."""

from __future__ import annotations

from collections.abc import Iterator

from doteval.analysis.figures import count, difference_interval, figure, interval, method_name, money, rows_of, signed
from doteval.analysis.history import change_sentence
from doteval.analysis.markdown_text import markdown_block, markdown_code, markdown_table
from doteval.core.wording import clean, counted, duration
from doteval.report.contents import Against, EvaluationDetail, Level, ReportContents, ShownRow
from doteval.report.page import comparison_sentences, spending_lines, verdict_sentence
from doteval.report.templates_environment import excerpt

# GitHub takes 65,536 characters in a comment: so many for each part, of which there are at most eight.
_PART_CHARACTERS = 6_000
_TEXT_CHARACTERS = 200
_LEVELS = {Level.GOOD: "ok", Level.NOTE: "note", Level.BAD: "bad"}
# Evaluations whose errors, rows and history are written.
_DETAILED = 3


def markdown_page(contents: ReportContents) -> str:
    """Return a report as Markdown, without images. Texts of rows are cut to 200 characters."""
    complete = ", not complete" if contents.unfinished else ""
    lines = [
        f"# Evaluation report{complete}: {markdown_code(contents.experiment.name)}",
        "",
        ", ".join(
            (
                counted(contents.evaluations, "evaluation"),
                rows_of(contents.counts),
                f"{contents.made_at:%Y-%m-%d %H:%M} UTC",
            )
        ),
        "",
    ]
    if contents.labels.tags:
        lines += [f"Tags: {', '.join(map(markdown_code, contents.labels.tags[:20]))}", ""]
    if contents.labels.note:
        lines += [*markdown_block([excerpt(contents.labels.note, 1_000)]), ""]
    if contents.unfinished:
        lines += ["**Not complete**", "", *markdown_block(contents.unfinished), ""]
    if contents.against is not None:
        lines += [*_verdict(contents.against), ""]
    checks = (f"{_LEVELS[check.level]}: {excerpt(check.text)}" for check in contents.checks[:20])
    lines += ["## Can it be trusted?", "", *markdown_block(checks), ""]
    lines += ["## Scores", "", *_table(_SCORE_TITLES, _scores(contents), left=3), ""]
    if contents.thresholds is not None:
        missed = contents.thresholds.missed or ("all thresholds are met",)
        lines += ["### Thresholds", "", *markdown_block([*contents.thresholds.asked, "", *missed]), ""]
    if contents.against is not None:
        lines += [*_comparison(contents.against), ""]
    for detail in contents.details[:_DETAILED]:
        lines += _detail(detail)
    if contents.usage.models:
        lines += ["## Cost and tokens", "", *_table(_MODEL_TITLES, _models(contents), left=1), ""]
        if contents.price_note is not None:
            lines += [contents.price_note, ""]
    lines += ["## How it was run", "", *markdown_block(_origin(contents)), ""]
    return clean("\n".join(lines))


_SCORE_TITLES = ("evaluation", "score", "metric", "value", "95% interval", "method", "n", "failed")
_MODEL_TITLES = ("model", "cost", "requests", "tokens in", "tokens out", "reply p50", "reply p95")


def _table(titles: tuple[str, ...], rows: Iterator[tuple[str, ...]], *, left: int) -> list[str]:
    return markdown_table(titles, rows, left=left, characters=_PART_CHARACTERS)


def _scores(contents: ReportContents) -> Iterator[tuple[str, ...]]:
    for shown in contents.shown:
        name = markdown_code(shown.evaluation.name)
        metrics = [(score.name, metric) for score in shown.summary for metric in score.metrics]
        for score, metric in metrics:
            found = metric.interval
            yield (
                name,
                markdown_code(score),
                markdown_code(metric.name),
                figure(metric.value),
                interval(found),
                method_name(found.method if found else None),
                count(metric.n),
                count(metric.failed),
            )
        if not metrics:
            yield name, "no scores", "", "-", "-", "-", "0", count(shown.evaluation.counts.failed)


def _verdict(against: Against) -> list[str]:
    verdict = f"Compared with {markdown_code(against.names[0])}: **{against.verdict.value}**."
    return [f"{verdict} {verdict_sentence(against.comparison)}"]


def _comparison(against: Against) -> list[str]:
    titles = ("evaluation", "metric", "verdict", "base", "now", "difference", "95% interval", "p", "better", "worse")
    spent = spending_lines(against)
    lines = [f"## Comparison with {markdown_code(against.names[0])}", ""]
    lines += [*_table(titles, _metrics(against), left=3), "", *markdown_block(comparison_sentences(against))]
    if spent:
        lines += ["", *_table(("measure", "base", "now", "change"), iter(spent), left=1)]
    return lines


def _metrics(against: Against) -> Iterator[tuple[str, ...]]:
    for pair in against.pairs:
        for metric in pair.comparison.metrics:
            found = metric.interval
            yield (
                markdown_code(pair.pair.other.name),
                markdown_code(f"{metric.score} {metric.metric}".strip()),
                metric.verdict.value,
                figure(metric.baseline),
                figure(metric.value),
                "-" if metric.difference is None else signed(metric.difference),
                difference_interval(found),
                "-" if metric.adjusted_p_value is None else f"{metric.adjusted_p_value:.2g}",
                *("-" if rows is None else count(rows) for rows in (metric.improved, metric.worsened)),
            )


def _detail(detail: EvaluationDetail) -> list[str]:
    lines: list[str] = []
    name = markdown_code(detail.shown.evaluation.name)
    changes = [change_sentence(step) for _, _, steps in detail.history for step in steps if step.is_seen]
    if changes:
        lines += [f"## History of {name}", "", *markdown_block(changes[-10:]), ""]
    if detail.errors:
        errors = (
            (markdown_code(group.type), group.error_class.value, _cell(message), count(rows), str(example))
            for group in detail.errors
            for message, rows, example in group.messages
        )
        titles = ("error", "class", "message", "rows", "example row")
        lines += [f"## Errors of {name}", "", *_table(titles, errors, left=3), ""]
    if detail.worst:
        title = f"## Rows of {name} with the worst {markdown_code(str(detail.worst_score))}"
        lines += [title, "", *_table(("row", "scores", "prompt", "response"), map(_row, detail.worst), left=4), ""]
    return lines


def _row(row: ShownRow) -> tuple[str, ...]:
    prompt = "; ".join(f"{name}: {value.cut(_TEXT_CHARACTERS)}" for name, value in row.values)
    if row.prompt is not None:
        prompt = row.prompt.cut(_TEXT_CHARACTERS)
    answer = row.answers[0][1].cut(_TEXT_CHARACTERS) if row.answers else ""
    return str(row.index), _cell(row.heading), _cell(prompt), _cell(answer)


def _cell(text: str) -> str:
    return markdown_code(excerpt(text, _TEXT_CHARACTERS)) if text.strip() else ""


def _models(contents: ReportContents) -> Iterator[tuple[str, ...]]:
    for model in contents.usage.models:
        used = model.usage
        yield (
            markdown_code(used.name),
            money(used.cost),
            count(used.requests),
            count(used.prompt_tokens),
            count(used.completion_tokens),
            duration(used.latency.quantile(0.5)),
            duration(used.latency.quantile(0.95)),
        )


def _origin(contents: ReportContents) -> Iterator[str]:
    for command in contents.commands[:5]:
        yield excerpt(command.command_line, 1_000)
        git = command.git
        where = "commit not known" if git is None else f"commit {git.commit}"
        if git is not None:
            where += f" on {git.branch}" if git.branch else ""
            where += ", with uncommitted changes" if git.dirty else ""
        by = f", by {command.user}" if command.user else ""
        yield f"  {where}{by}{f' on {command.host}' if command.host else ''}"
    if contents.commands:
        yield ", ".join(f"{name} {version}" for name, version in contents.commands[0].versions.items())
    yield f"store {contents.storage}"
