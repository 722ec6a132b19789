"""The pages of the documentation that come with doteval, and their sections.

An installed doteval has them in `doteval/docs`; a checkout has them beside the package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from doteval.core.plugins import did_you_mean
from doteval.errors import NotFoundError

_FOLDERS = (Path(__file__).parents[1] / "docs", Path(__file__).parents[2] / "docs")
_INDEX = "index.md"
# A line of the index: a link to a page, and what that page says.
_LISTED = re.compile(r"^ *- \[([^][]+)]\(([^()#]+)\.md\):? *((?:.|\n(?! *- |\n))*)", re.MULTILINE)
_BLOCK = re.compile(r"^( *)(`{3,})(?!`).*?^\1\2`*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,4}) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ManualPage:
    """One page. `name` is its path in the documentation without the ending, as "guides/backup"."""

    name: str
    title: str
    group: str
    about: str
    path: Path


@dataclass(frozen=True, slots=True)
class ManualSection:
    """A heading with the text below it, down to the next heading of its level. `anchor` is its name in links."""

    anchor: str
    title: str
    text: str


def contents(index: str) -> dict[str, list[tuple[str, str, str]]]:
    r"""Return what the index lists: in each group the target, the title and the description of the pages.

    >>> contents("# Docs\n\n## Reference\n\n- [The command line](cli.md): every\n  command.\n")
    {'Reference': [('cli', 'The command line', 'every command.')]}
    """
    groups = {}
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, text = part.partition("\n")
        if listed := [(target, title, " ".join(about.split())) for title, target, about in _LISTED.findall(text)]:
            groups[caption] = listed
    return groups


def pages() -> list[ManualPage]:
    """Return every page in the order of the index. Raises NotFoundError: when this doteval came without them."""
    folder = next((each for each in _FOLDERS if (each / _INDEX).is_file()), None)
    if folder is None:
        raise NotFoundError("this doteval came without its documentation", remedy="Install it from its wheel.")
    listed = [
        ManualPage(target, title, group, about, path)
        for group, links in contents((folder / _INDEX).read_text(encoding="utf-8")).items()
        for target, title, about in links
        # The index also leads to pages beside the documentation, which only a checkout has.
        if ".." not in target and (path := folder / f"{target}.md").is_file()
    ]
    return [*listed, ManualPage("index", "Words", "Reference", "the glossary: what each word means.", folder / _INDEX)]


def find_page(name: str) -> ManualPage:
    """Return a page by its name, or by the last part of it if no other page has the same.

    Raises NotFoundError: when there is no such page.
    """
    known = pages()
    wanted = name.lower().removeprefix("docs/").removesuffix(".md")
    found = [page for page in known if page.name == wanted] or [
        page for page in known if page.name.rpartition("/")[2] == wanted
    ]
    if len(found) == 1:
        return found[0]
    remedy = did_you_mean(wanted, [page.name for page in found or known], "`doteval docs` lists the pages.")
    raise NotFoundError(f"the documentation has no page {name!r}", remedy=remedy)


def find_section(page: ManualPage, name: str) -> ManualSection:
    """Return a section of a page by its anchor, or by its title. Raises NotFoundError: when there is none."""
    found = {section.anchor: section for section in sections(page.path.read_text(encoding="utf-8"))}
    section = found.get(name) or found.get(anchor_of(name))
    if section is None:
        raise NotFoundError(
            f"the page {page.name} has no section {name!r}",
            remedy=did_you_mean(name, found, f"`doteval docs {page.name}` shows the page."),
        )
    return section


def sections(text: str) -> list[ManualSection]:
    r"""Return the sections of a Markdown text. A second heading of the same words has an anchor that ends with -1.

    >>> [(each.anchor, each.text) for each in sections("# A\n\n## B, C\n\nb\n\n## B, C\n")]
    [('a', '# A\n\n## B, C\n\nb\n\n## B, C\n'), ('b-c', '## B, C\n\nb\n\n'), ('b-c-1', '## B, C\n')]
    """
    # A line of code may look like a heading.
    searched = _BLOCK.sub(lambda block: re.sub(r"^#", "x", block[0], flags=re.MULTILINE), text)
    headings = list(_HEADING.finditer(searched))
    found: list[ManualSection] = []
    seen: dict[str, int] = {}
    for number, heading in enumerate(headings):
        following = (each for each in headings[number + 1 :] if len(each[1]) <= len(heading[1]))
        end = next((each.start() for each in following), len(text))
        anchor = anchor_of(heading[2])
        again = seen[anchor] = seen.get(anchor, -1) + 1
        found.append(ManualSection(f"{anchor}-{again}" if again else anchor, heading[2], text[heading.start() : end]))
    return found


def anchor_of(title: str) -> str:
    """Return the anchor that GitHub and the site give a heading.

    >>> anchor_of("`doteval db` and [others](cli.md), again")
    'doteval-db-and-others-again'
    """
    words = re.sub(r"\[([^][]*)]\([^()]*\)", r"\1", title)
    return re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")
