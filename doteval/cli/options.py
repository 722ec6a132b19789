"""Options that several commands share, and the store that they open."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from doteval.core.options import (
    AmountValue,
    ChoiceValue,
    CountValue,
    DurationValue,
    FlagValue,
    Option,
    OptionValue,
    ReducerValue,
    RunCommand,
    TextsValue,
    options_of,
)
from doteval.core.run_config import RunConfig

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from doteval.core.broker_url import Broker
    from doteval.store import Store
    from doteval.supervision.fork_server import ForkServer

Command = TypeVar("Command", bound=Callable[..., Any])
Found = TypeVar("Found")


class _ExperimentName(click.ParamType[str]):
    """The name of an experiment, which a shell completes from the result store of the settings."""

    name = "text"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = _stored(ctx, lambda store: [each.experiment.name for each in store.experiments.overviews(incomplete)])
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class _Fields(click.ParamType[str]):
    """Fields of results, with commas between, which a shell completes for the experiment that the command names."""

    name = "text"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from doteval.core.filters import RESULT_FIELDS, FieldKind, FilterField

        # click stops at an option without a value, and has not given its arguments their names then.
        experiment = ctx.params.get("name") or next(iter(ctx.args), "")

        def fields_of(store: Store) -> list[FilterField]:
            own: dict[FilterField, None] = {}
            for each in store.evaluations.of(store.experiments.find(experiment)):
                names = {
                    FieldKind.SCORE: store.selections.score_names(each.id),
                    FieldKind.ROW: each.spec.columns,
                    FieldKind.METADATA: store.selections.metadata_names(each.id),
                }
                own |= {FilterField(kind, name): None for kind, found in names.items() for name in found}
            return list(own)

        # Without a store, the fields of every result are left.
        own = _stored(ctx, fields_of)
        # The last one is completed: what stands before it stays.
        before = incomplete[: len(incomplete) - len(incomplete.rpartition(",")[2].removeprefix("-"))]
        fields = (f"{before}{field}" for field in (*own, *RESULT_FIELDS))
        return [CompletionItem(field) for field in fields if field.startswith(incomplete)]


def _stored(context: click.Context, read: Callable[[Store], list[Found]]) -> list[Found]:
    """What a shell completes from the result store of a command: nothing if the store cannot be read.

    A shell that completes a word has no place for an error; the command itself will say it.
    """
    from doteval.errors import DotEvalError
    from doteval.settings import load_settings
    from doteval.store import Store

    try:
        with Store.open(load_settings(storage=context.params.get("storage")).storage, create=False) as store:
            return read(store)
    except DotEvalError:
        return []


EXPERIMENT_NAME = _ExperimentName()
FIELDS = _Fields()

STORAGE_HELP = "Result store: a SQLite file or postgresql://...  [default: .doteval/doteval.db]"


def storage_option(command: Command) -> Command:
    return click.option("--storage", metavar="URL", help=STORAGE_HELP)(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Write JSON for scripts to stdout, and nothing else.")(
        command
    )


def grouped_options(
    name: str, make: Callable[..., object], options: Sequence[Callable[[Any], Any]]
) -> Callable[[Command], Command]:
    """Return a decorator that adds options, and gives the command what `make` makes of their values as `name`.

    make: its parameters have the names of the options.
    """
    taken = tuple(inspect.signature(make).parameters)

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def with_group(**values: Any) -> Any:
            group = make(**{each: values.pop(each) for each in taken})
            return command(**values, **{name: group})

        wrapped = cast(Command, with_group)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return add


def evaluation_option(command: Command) -> Command:
    return click.option("--evaluation", metavar="TEXT", help="Only evaluations whose file::name contains this.")(
        command
    )


def experiment_options(command: Command) -> Command:
    """Add the options that choose experiments from a list: ``name``, ``tag``, ``since`` and ``branch``."""
    for option in reversed(
        (
            click.option("--name", metavar="TEXT", help="Only experiments whose name contains this, ignoring case."),
            click.option(
                "--tag", multiple=True, metavar="TAG", help="Only those with this tag; may be given several times."
            ),
            click.option(
                "--since", metavar="AGE|DATE", help="Only those begun since then, as in 7d, 12h or 2026-11-01."
            ),
            click.option("--branch", metavar="NAME", help="Only those begun from this branch of git."),
        )
    ):
        command = option(command)
    return command


def errors_as_option(command: Command) -> Command:
    return click.option(
        "--errors-as",
        type=click.Choice(["false", "excluded"]),
        default="false",
        show_default=True,
        help="Whether failed rows count as False in the metrics, or not at all. Both figures are shown.",
    )(command)


def run_options(*declarations: type, names: Collection[str] | None = None) -> Callable[[Command], Command]:
    """Return a decorator that adds the options which dataclasses declare (see `doteval.core.options`).

    names: add only these; None adds all options of `doteval submit`. The help shows them in the order of the
        declarations.
    """

    def add(command: Command) -> Command:
        declared = [each for declaration in declarations for each in options_of(declaration, RunCommand.SUBMIT)]
        for each in reversed([each for each in declared if names is None or each.name in names]):
            command = _click_option(each)(command)
        return command

    return add


BATCH_OPTIONS = ("batch", "batch_linger", "batch_deadline", "then", "batch_tokens")


def given_of_batch_mode() -> tuple[str, ...]:
    """The flags of batch mode that the running command was given.

    Raises click.UsageError: --then is given without the deadline that it speaks of.
    """
    context = click.get_current_context()
    given = [
        name
        for name in BATCH_OPTIONS
        if context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)
    ]
    if "then" in given and "batch_deadline" not in given:
        raise click.UsageError("--then needs --batch-deadline: it says what becomes of calls without a reply by then.")
    return tuple(f"--{name.replace('_', '-')}" for name in given)


def needing_batch(given: Sequence[str]) -> tuple[str, ...]:
    """Of the given flags of batch mode, those that need --batch, if it is not among them."""
    return () if "--batch" in given else tuple(given)


def _click_option(option: Option) -> Callable[[Command], Command]:
    default = "" if option.shown_default is None else f"  [default: {option.shown_default}]"

    def add(command: Command) -> Command:
        if isinstance(option.value, tuple):
            for number, choice in reversed(list(enumerate(option.value))):
                text = f"{choice.help}.{'' if number else default}"
                flag = click.option(choice.flag, option.name, flag_value=choice.value, default=None, help=text)
                command = flag(command)
            return command
        text = f"{option.help.removesuffix('...')}{'...' if option.help.endswith('...') else '.'}{default}"
        if isinstance(option.value, FlagValue):
            return click.option(option.flag, option.name, is_flag=True, help=text)(command)
        kind = _click_type(option.value)
        multiple = isinstance(option.value, TextsValue)
        return click.option(
            option.flag,
            option.name,
            type=kind,
            default=str(option.default) if isinstance(option.value, ChoiceValue) else option.default,
            metavar=option.metavar,
            multiple=multiple,
            help=text,
        )(command)

    return add


def _click_type(value: OptionValue) -> click.ParamType[Any]:
    if isinstance(value, CountValue):
        return click.IntRange(min=value.least)
    if isinstance(value, ChoiceValue):
        return click.Choice(list(map(str, value.words)))
    if isinstance(value, AmountValue):
        return click.FloatRange(min=0, min_open=not value.zero)
    if isinstance(value, DurationValue):
        return DurationParam()
    return ReducerParam() if isinstance(value, ReducerValue) else click.STRING


class DurationParam(click.ParamType[float]):
    """A duration such as `60s` or `2h`."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from doteval.core.times import parse_age
        from doteval.errors import UsageError

        if isinstance(value, float):
            return value
        try:
            return parse_age(value)
        except UsageError as error:
            self.fail(f"{error.message}. {error.remedy}", param, ctx)


class ReducerParam(click.ParamType[str]):
    """The name of a reducer."""

    name = "reducer"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from doteval.core.reducer_names import ReducerName
        from doteval.errors import UsageError

        try:
            return str(ReducerName.parse(value))
        except UsageError as error:
            self.fail(f"{error.message}. {error.remedy}", param, ctx)


# The options that limit what an experiment may spend in all.
budget_options = run_options(RunConfig, names=("max_requests", "max_tokens", "max_cost"))


cache_option = run_options(RunConfig, names=("cache",))


def devices_option(command: Command) -> Command:
    return click.option(
        "--devices",
        metavar="LIST",
        help="CUDA_VISIBLE_DEVICES of the worker processes, one each, as in 0,1,2,3.",
    )(command)


def placement_options(*, queue: str) -> Callable[[Command], Command]:
    """Return a decorator for the options that say where rows run, and how many at once.

    queue: the default of ``--queue``, as the help shows it.
    """

    def add(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--broker",
                    metavar="URL",
                    help="Message broker of workers elsewhere.  [default: a private Redis, local workers]",
                ),
                click.option(
                    "--queue",
                    metavar="NAME",
                    help=f"Queue of evaluations whose doteval mark names none.  [default: {queue}]",
                ),
                click.option(
                    "--workers",
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Local worker processes.  [default: one per device, or per core]",
                ),
                devices_option,
                click.option(
                    "--concurrency",
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Rows in flight in a worker process.  [default: 10 if async, else 1]",
                ),
            )
        ):
            command = option(command)
        return command

    return add


def early_fork_server(broker: str | None) -> ForkServer | None:
    """Start the fork server of local worker processes, or return None if option or environment name a broker.

    It ends with the command. Commands call this first: the imports of the fork server take longer than their own.
    """
    if broker is not None or os.environ.get("DOTEVAL_BROKER"):
        return None
    from doteval.supervision.fork_server import start_fork_server

    return click.get_current_context().with_resource(start_fork_server())


def local_fork_server(
    early: ForkServer | None, broker: Broker | None, given: Mapping[str, object]
) -> ForkServer | None:
    """Return the fork server that was started early, or end it if the settings name a `broker` after all.

    Raises click.UsageError if there is a broker and an option for local worker processes is given.
    """
    if broker is None:
        return early
    if early is not None:
        early.close()
    for option, value in given.items():
        if value is not None:
            raise click.UsageError(
                f"{option} is for local worker processes. With a broker, the worker processes of `doteval worker` run "
                "the rows. Leave one of the two out."
            )
    return None


def web_url(url: str | None, option: str) -> str | None:
    """The URL of a web page, as an option or its variable gives it; None for an empty one.

    Raises click.BadParameter: it is no URL of a page.
    """
    if url and not url.startswith(("http://", "https://")):
        raise click.BadParameter("it begins with http:// or https://", param_hint=option)
    return url or None


@contextmanager
def existing_store(storage: str | None, *, upgrade: bool = True) -> Iterator[Store]:
    """Open the result store of the settings, which must exist. It gets the usage that killed processes have left.

    upgrade: whether an older SQLite file is upgraded; otherwise it is refused, as an older PostgreSQL database is.

    Raises NotFoundError or StoreError if it does not.
    """
    from doteval.cli.streams import say_aside
    from doteval.errors import StoreError
    from doteval.settings import load_settings
    from doteval.store import Store
    from doteval.supervision.left_usage import store_left_usage

    store = Store.open(load_settings(storage=storage).storage, create=False, upgrade=upgrade)
    try:
        try:
            store_left_usage(store)
        except StoreError as error:
            # A command that reads works on a store that it may not write.
            say_aside(f"what killed processes have spent is not in the figures: {error.message}")
        yield store
    finally:
        store.close()
