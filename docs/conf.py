"""How Sphinx makes the site of these pages: `make docs`.

Pages are plain Markdown, which GitHub shows as well. The source directory is the root of the repository, so that a
link such as ``../workers/README.md`` means the same in both. Nothing on the site is asked of another host.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import doteval
from doteval.cli.manual import contents

ROOT = Path(__file__).parents[1]
INDEX = "docs/index"

project = "doteval"
author = "the doteval authors"
version = release = doteval.__version__
language = "en"

extensions = ["myst_parser"]
root_doc = INDEX
include_patterns = [
    "docs/**.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/runs/*.md",
    "examples/**/README.md",
    "examples/README.md",
    "infra/README.md",
    "workers/README.md",
]
# Sphinx walks through the whole source directory, which holds environments with many thousand files.
exclude_patterns = [".*", "build", "dist", "doteval", "tests"]
# A block without a language holds commands or a drawing.
highlight_language = "none"
# JSON with "..." in it is no JSON; readers see it without colours.
suppress_warnings = ["misc.highlighting_failure"]

# As GitHub does: each heading down to "####" is an anchor.
myst_heading_anchors = 4

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"doteval {release}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": ["view"]}


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("doctree-read", leave_directories_plain)
    app.connect("html-page-context", link_markdown)
    app.connect("build-finished", write_markdown)


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The lists of links in the index are the contents of the site: its groups are the index's headings.

    A page that the index does not name is an error: Sphinx says that it is in no contents.
    """
    if page == "benchmarks/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\nruns/*\n```\n"
    if page == "examples/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*/README\n```\n"
    if page == INDEX:
        source[0] += "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
            + "".join(f"{title} </{target}>\n" for target, title, _ in links)
            + "```\n"
            for caption, links in groups(source[0])
        )


def groups(index: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return each group of the index: its heading, and the page from the root, title and description of its links."""
    return [
        (caption, [(page_at(target), title, about) for target, title, about in listed])
        for caption, listed in contents(index).items()
    ]


def page_at(target: str) -> str:
    return (ROOT / "docs" / target).resolve().relative_to(ROOT).as_posix()


def leave_directories_plain(app: Sphinx, tree: nodes.document) -> None:
    """GitHub shows a directory of the repository; the site has none, and shows the words without a link."""
    for link in list(tree.findall(pending_xref)):
        target = urlsplit(link["reftarget"]).path
        if link["reftype"] == "myst" and target and Path(app.srcdir, link["refdoc"]).parent.joinpath(target).is_dir():
            link.replace_self(link.children)


def link_markdown(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """The button "View this page's source" leads to the Markdown beside the page."""
    context["theme_source_view_link"] = f"{Path(page).name}.md"


def write_markdown(app: Sphinx, error: Exception | None) -> None:
    """Each page is served as Markdown too, and ``llms.txt`` lists these; the root of the site leads to the index."""
    if error or app.builder.name != "html":
        return
    for page in sorted(app.env.found_docs):
        shutil.copyfile(app.env.doc2path(page), Path(app.outdir, f"{page}.md"))
    shutil.copytree(ROOT / "docs" / "images", Path(app.outdir, "docs", "images"), dirs_exist_ok=True)
    lines = ["# doteval", "", "> Distributed evaluation of language models: pytest, Celery, one SQL store.", ""]
    for caption, links in groups((ROOT / f"{INDEX}.md").read_text(encoding="utf-8")):
        lines += [f"## {caption}", "", *(f"- [{title}]({page}.md): {what}" for page, title, what in links), ""]
    Path(app.outdir, "llms.txt").write_text("\n".join(lines), encoding="utf-8")
    Path(app.outdir, "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>doteval</title>'
        f'<meta http-equiv="refresh" content="0; url={INDEX}.html">'
        f'<a href="{INDEX}.html">The documentation of doteval</a>\n',
        encoding="utf-8",
    )
