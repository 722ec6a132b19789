"""How the rows of an evaluation are run: declared once, read from the command line, stored with the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from doteval.core.batches import AfterDeadline
from doteval.core.budgets import Budget
from doteval.core.call_journal import JournalMode
from doteval.core.client_config import CacheChoice
from doteval.core.labels import checked_tag
from doteval.core.options import (
    AmountValue,
    ChoiceValue,
    CountValue,
    DurationValue,
    FlagChoice,
    FlagValue,
    ReducerValue,
    RunCommand,
    TextsValue,
    TextValue,
    given_values,
    option,
)
from doteval.core.reducer_names import REDUCERS
from doteval.core.rescoring import Rescoring
from doteval.errors import StoreVersionError

# The version of the stored form; a change that older releases cannot read raises it.
RUN_CONFIG_VERSION = 1
_VERSION = "version"
_CACHE_FLAGS = (
    FlagChoice("--cache", "on", "Share replies to repeatable requests"),
    FlagChoice("--no-cache", "off", "Share no replies, whatever clients ask for"),
    FlagChoice("--refresh-cache", "refresh", "Share replies, but ask again for those from before this command"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTarget:
    """Which rows a command runs, and where their results go. It is not stored."""

    experiment: str | None = option(
        None,
        TextValue(),
        "Begin or continue this experiment",
        metavar="NAME",
        shown_default="a new one",
    )
    samples: int | None = option(
        None, CountValue(1), "Run only the first N rows of each dataset", metavar="N", shown_default="all"
    )
    storage: str | None = option(
        None,
        TextValue(),
        "Result store: a SQLite file or postgresql://...",
        metavar="URL",
        shown_default=".doteval/doteval.db",
    )
    epochs: int = option(1, CountValue(1), "Run every row N times", metavar="N", shown_default="1")
    allow_changed: bool = option(False, FlagValue(), "Continue even if code or dataset have changed since")
    tag: tuple[str, ...] = option(
        (), TextsValue(), "Give the experiment a tag; may be given several times", metavar="TAG"
    )
    note: str | None = option(None, TextValue(), "Give the experiment a note", metavar="TEXT")

    def __post_init__(self) -> None:
        for tag in self.tag:
            checked_tag(tag)

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Self:
        """The target that the values of a command's options describe. Other entries are ignored.

        Raises UsageError: a text cannot be a tag.
        """
        return cls(**given_values(cls, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """How the rows of one evaluation are run. It is stored with the evaluation, so that every process agrees.

    The first fields are options of the command that began or resumed the evaluation. `retry_delay` and `row_timeout`
    are in seconds. The others are facts that the command found out:

    `submitted`: worker processes run its rows, not the process of plain pytest or `run`.
    `root`: the pytest root directory that it was submitted from.
    `queue`: the name of the queue of its row tasks, None if nobody has named one; `queue_is_own`: its own mark does.
    `private_broker`: the name of the private broker of the command that submitted it, None for a shared one.
    `batch_size`: how many rows a call takes, None if it takes one.
    `concurrency`: how many of its calls run at once in a process whose command names no number;
    `concurrency_is_own`: its decorator says so, whatever the command says.
    `own_batch`: whether its own mark wants it in batch mode, whatever the command says; None if no mark says so.
    `strict_xfail`: the reason of its strict xfail mark, None without one. Its rows must not all run then.
    `imported_from`: the file that `doteval import` read its results from, None if its rows run here.
    `rescoring`: what its rows replay, None if it is not a rescoring.
    `traceparent`: the span of the command that began or resumed it, which the spans of its rows belong to, as W3C's
    Trace Context writes it; None if the command was not traced.

    >>> RunConfig.from_json(RunConfig(max_retries=5).to_json()).max_retries
    5
    """

    max_retries: int = option(
        3, CountValue(0), "Retry a row up to N times after connection errors", metavar="N", shown_default="3"
    )
    retry_delay: float = option(
        1.0,
        AmountValue("seconds", "30", zero=True),
        "Seconds before the first retry; doubles for each further one",
        metavar="S",
        shown_default="1",
    )
    row_timeout: float | None = option(
        None, AmountValue("seconds", "30"), "Seconds that a row may take", metavar="S", shown_default="no limit"
    )
    max_crashes: int = option(
        2,
        CountValue(1),
        "Give up a row when N worker processes have died with it in flight",
        metavar="N",
        shown_default="2",
        commands=(RunCommand.SUBMIT,),
    )
    max_requests: int | None = option(
        None, CountValue(1), "Begin no further row once the experiment has sent N requests in all", metavar="N"
    )
    max_tokens: int | None = option(
        None, CountValue(1), "The same for N tokens, of prompts and completions", metavar="N"
    )
    max_cost: float | None = option(
        None, AmountValue("dollars", "5"), "The same for X US dollars; needs a price table", metavar="X"
    )
    cache: CacheChoice | None = option(  # noqa: RUF009 - it returns a dataclass field
        None, _CACHE_FLAGS, shown_default="clients made with cache=True"
    )
    reducer: str | None = option(
        None,
        ReducerValue(),
        f"Reduce the samples of a row to one score, before metrics: {REDUCERS}",
        metavar="NAME",
        shown_default="every sample counts",
    )
    journal: JournalMode = option(  # noqa: RUF009 - it returns a dataclass field
        JournalMode.FULL,
        ChoiceValue(tuple(JournalMode)),
        "What to store of model calls: requests and replies, usage only, or nothing",
        metavar="|".join(JournalMode),
        shown_default="full",
    )
    replay: bool = option(
        False, FlagValue(), "Let failed rows replay the calls that they have made, and ask only new ones"
    )
    batch: bool = option(
        False,
        FlagValue(),
        "Send the calls of rows in batches of the provider, at its lower price, within a day or less",
        commands=(RunCommand.SUBMIT,),
    )
    batch_linger: float = option(
        60.0,
        DurationValue(),
        "With --batch: send a batch once a call has waited so long for others, or no row can run",
        metavar="AGE",
        shown_default="60s",
        commands=(RunCommand.SUBMIT,),
    )
    batch_deadline: float | None = option(
        None,
        DurationValue(),
        "With --batch: cancel batches with calls that have waited so long, and do what --then says",
        metavar="AGE",
        shown_default="none",
        commands=(RunCommand.SUBMIT,),
    )
    then: AfterDeadline = option(  # noqa: RUF009 - it returns a dataclass field
        AfterDeadline.FAIL,
        ChoiceValue(tuple(AfterDeadline)),
        "What rows do with calls that have no reply at the deadline: send them live, or fail",
        metavar="|".join(AfterDeadline),
        shown_default="fail",
        commands=(RunCommand.SUBMIT,),
    )
    batch_tokens: int | None = option(
        None,
        CountValue(1),
        "With --batch: have N tokens of prompts of each model in batches at most, as the account's queue has room for",
        metavar="N",
        shown_default="until the provider refuses more",
        commands=(RunCommand.SUBMIT,),
    )
    submitted: bool = False
    root: str | None = None
    queue: str | None = None
    queue_is_own: bool = False
    private_broker: str | None = None
    batch_size: int | None = None
    concurrency: int | None = None
    concurrency_is_own: bool = False
    own_batch: bool | None = None
    strict_xfail: str | None = None
    imported_from: str | None = None
    rescoring: Rescoring | None = None
    traceparent: str | None = None

    @classmethod
    def from_options(cls, values: Mapping[str, Any], *, cache: CacheChoice | None = None) -> Self:
        """The configuration that the values of a command's options describe. Other entries are ignored.

        `cache`: the choice that the settings make of the option for the cache, None if it was not given.
        """
        given = given_values(cls, values)
        words = {
            "journal": JournalMode(given.get("journal", JournalMode.FULL)),
            "then": AfterDeadline(given.get("then", AfterDeadline.FAIL)),
        }
        return cls(**{**given, "cache": cache, **words})

    @property
    def budget(self) -> Budget:
        """What the experiment may spend in all."""
        return Budget(self.max_requests, self.max_tokens, self.max_cost)

    def with_budget(self, budget: Budget) -> Self:
        return replace(self, max_requests=budget.requests, max_tokens=budget.tokens, max_cost=budget.cost)

    def concurrency_in(self, of_process: int | None) -> int | None:
        """How many calls run at once in a process with this concurrency of its own (None: it has none)."""
        return self.concurrency if self.concurrency_is_own else of_process or self.concurrency

    def to_json(self) -> dict[str, Any]:
        """The stored form: plain values, with the version."""
        nested = {
            name: None if value is None else value.to_json()
            for name, value in (("cache", self.cache), ("rescoring", self.rescoring))
        }
        return {_VERSION: RUN_CONFIG_VERSION, **asdict(self), **nested}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The configuration from its stored form.

        Raises StoreVersionError if a newer doteval wrote it.
        """
        values = dict(stored)
        version = values.pop(_VERSION, None)
        unknown = values.keys() - {each.name for each in fields(cls)}
        if version != RUN_CONFIG_VERSION or unknown:
            what = f"has version {version}" if version != RUN_CONFIG_VERSION else f"holds {', '.join(sorted(unknown))}"
            raise StoreVersionError(
                f"the run configuration of an evaluation {what}, which this doteval does not know "
                f"(it knows version {RUN_CONFIG_VERSION})",
                remedy="Use the doteval that wrote it, or a newer one: pip install --upgrade doteval",
            )
        values["journal"] = JournalMode(values.get("journal", JournalMode.FULL))
        values["then"] = AfterDeadline(values.get("then", AfterDeadline.FAIL))
        if (cache := values.get("cache")) is not None:
            values["cache"] = CacheChoice.from_json(cache)
        if (rescoring := values.get("rescoring")) is not None:
            values["rescoring"] = Rescoring.from_json(rescoring)
        return cls(**values)
