"""`doteval docs`: the documentation in the terminal."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

import click

from doteval.cli.options import json_option
from doteval.cli.streams import say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from doteval.cli.manual import ManualPage

# Longer lines are hard to read.
_WIDEST = 110


class _PageName(click.ParamType[str]):
    """The name of a page, which a shell completes."""

    name = "text"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from doteval.cli import manual

        return [CompletionItem(page.name) for page in manual.pages() if page.name.startswith(incomplete)]


@click.command("docs")
@click.argument("page", required=False, metavar="[PAGE[#SECTION]]", type=_PageName())
@click.option("--raw", is_flag=True, help="Print the Markdown as it is written.")
@click.option("--path", "only_path", is_flag=True, help="Print only where the file of the page is.")
@json_option
def command(page: str | None, raw: bool, only_path: bool, as_json: bool) -> None:
    """Print a page of the documentation, or a section of it. Without PAGE, list the pages.

    \b
    Examples:
      doteval docs
      doteval docs cli#store-urls
    """
    from doteval.cli import documents, manual

    if page is None:
        if only_path or raw:
            raise click.UsageError("--path and --raw need a PAGE.")
        known = manual.pages()
        if as_json:
            documents.write({"pages": [{**_identity(each), "about": each.about} for each in known]})
        else:
            _print_list(known)
        return
    name, _, anchor = page.partition("#")
    found = manual.find_page(name)
    section = manual.find_section(found, anchor) if anchor else None
    if only_path:
        say(str(found.path))
        return
    text = found.path.read_text(encoding="utf-8") if section is None else section.text
    if as_json:
        documents.write({**_identity(found), "section": section and section.anchor, "markdown": text})
    elif raw:
        say(text.rstrip("\n"))
    else:
        _print_page(found, text)


def _identity(page: ManualPage) -> dict[str, str]:
    return {"page": page.name, "title": page.title, "group": page.group, "path": str(page.path)}


def _print_list(pages: list[ManualPage]) -> None:
    from rich.table import Table
    from rich.text import Text

    from doteval.cli import terminal

    console = terminal.console()
    width = max(len(page.name) for page in pages)
    for group in dict.fromkeys(page.group for page in pages):
        console.print(Text(group, style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=width + 2)
        table.add_column()
        for page in pages:
            if page.group == group:
                table.add_row(Text(f"  {page.name}", style="cyan"), Text(page.about.replace("`", "")))
        console.print(table)
        console.print()
    console.print("doteval docs PAGE prints one of them, and doteval docs PAGE#SECTION a part of it.")


def _print_page(page: ManualPage, text: str) -> None:
    from rich.markdown import Markdown

    from doteval.cli.pager import paged

    with paged() as console:
        shown = Markdown(_for_terminals(page, text), code_theme="ansi_dark", hyperlinks=console.is_terminal)
        console.print(shown, width=min(console.width, _WIDEST))


def _for_terminals(page: ManualPage, text: str) -> str:
    """Name the page in links to pages, since a terminal cannot follow them; leave out pictures."""

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(page.name, "..", found[2])) if found[2] else page.name
        where = target + (found[3] or "")
        return where if found[1].strip("`") == f"{found[2]}.md" else f"{found[1]} ({where})"

    text = re.sub(r"!\[([^][]*)]\([^()]*\)", r"(Picture: \1)", text)
    return re.sub(r"\[([^][]+)]\((?!\w+:)([^()#\s]*?)(?:\.md)?(#[^()\s]*)?\)", link, text)
