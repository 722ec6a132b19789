"""`doteval init`: a folder with an evaluation that runs at once."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from doteval.cli.streams import say
from doteval.project_templates import TEMPLATES, create

_NEEDS_NO_MODEL = "local-model"
_WORKFLOW = Path(".github", "workflows", "evaluate.yml")


@click.command("init")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default="llm",
    show_default=True,
    help="A chat model, a model that each worker process loads, replies that a judge scores, or an agent with tools.",
)
def command(directory: Path, template: str) -> None:
    """Write an evaluation, fixtures, settings, a Makefile and a CI workflow into DIR (the current folder).

    Files that are there already are kept. Then `make try` runs it against a mock of OpenAI's API: no key, no cost.

    \b
    Example: doteval init evals --template judge
    """
    created = create(directory, template)
    for path in created.written:
        say(f"wrote  {directory / path}")
    for path in created.kept:
        say(f"kept   {directory / path}, which was there")
    go = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(os.fspath(directory))} && "
    mock = "" if template == _NEEDS_NO_MODEL else "python -m doteval.mock_openai "
    say(f"\nTo evaluate, without a key or cost:\n  {go}{mock}doteval submit . --experiment try")
    say("Then: doteval show try, or doteval view --open")
    if mock:
        say("With your model: set OPENAI_API_KEY and, if it is not gpt-4o-mini, MODEL; then make evaluate")
    here = directory.resolve()
    root = next((each for each in (here, *here.parents) if (each / ".git").exists()), here)
    if root != here:
        workflows = root / _WORKFLOW.parent
        say(f"GitHub runs only the workflows in {workflows}: move {_WORKFLOW.name} there, and set FOLDER in it")
