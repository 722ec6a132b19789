"""What `submit` and `retry` check before rows run in batch mode, and what becomes of calls that were wanted before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from doteval.core.call_journal import JournalMode
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.run_config import RunConfig
from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.store import Store


def check_batch_options(flags: Sequence[str], *, marked: bool) -> None:
    """Check the options that only batch mode has, where a command does not ask for it.

    flags: those that were given, without --batch. marked: whether a mark asks for batches.

    Raises UsageError: nothing would become of them.
    """
    if flags and not marked:
        raise UsageError(
            f"{' and '.join(flags)} {'needs' if len(flags) == 1 else 'need'} --batch",
            remedy="Add --batch, or mark an evaluation with @pytest.mark.doteval(batch=True).",
        )


def check_batch_mode(spec: EvaluationSpec, config: RunConfig | None = None) -> None:
    """Raises UsageError: an evaluation is to run in batch mode and cannot. config: in place of that of `spec`."""
    config = config or spec.config
    if not config.batch:
        return
    if spec.config.batch_size is not None:
        raise UsageError(
            f"{spec.nodeid} cannot run in batch mode: its rows come in lists (@batch)",
            remedy="Write it with @foreach, where each row makes its own calls; or run it without --batch, and without "
            "batch=True in its mark.",
        )
    if config.journal is not JournalMode.FULL:
        raise UsageError(
            f"--batch needs --journal full: {spec.nodeid} could not read the replies of its batches",
            remedy=f"Leave out --journal {config.journal}, or --batch.",
        )


def in_batch_mode_of(config: RunConfig, options: RunConfig | None) -> RunConfig:
    """A configuration with what the options of a command say of batch mode, where its own mark says nothing else.

    options: None if the command has none.
    """
    batch = (options is not None and options.batch) if config.own_batch is None else config.own_batch
    if options is None:
        return replace(config, batch=batch)
    return replace(
        config,
        batch=batch,
        batch_linger=options.batch_linger,
        batch_deadline=options.batch_deadline,
        then=options.then,
        batch_tokens=options.batch_tokens,
    )


def keep_batch_mode(
    store: Store, evaluation: Evaluation, on_message: Callable[[str], None], *, was_running: bool
) -> Evaluation:
    """Have an evaluation go on in batch mode if calls of its rows are in batches, which are paid for.

    Calls that its rows wanted in batch mode, and that were not sent, are forgotten where it had ended, and where it is
    not in that mode now.
    """
    if not was_running:
        store.batches.begin_again(evaluation.id)
    if evaluation.config.batch:
        return evaluation
    store.batches.drop_unsent(evaluation.id)
    progress = store.batches.progress([evaluation.id])
    if not progress.batches:
        return evaluation
    store.evaluations.reconfigure(evaluation.id, lambda config: replace(config, batch=True))
    on_message(
        f"{evaluation.name} goes on in batch mode: {counted(progress.batches, 'batch')} of its calls are at the "
        "provider (to drop them, run `doteval cancel` while its workers run)"
    )
    return store.evaluations.by_uid(evaluation.uid)
