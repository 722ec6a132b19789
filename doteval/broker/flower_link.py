"""Adds a link to `doteval view` to the pages of Flower 2.2, which has no setting for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado.escape import xhtml_escape
from tornado.template import Loader, Template

# The list of Flower's pages in its template, which the link begins.
_PAGES = '<ul class="app-nav navbar-nav">'
_BAR = "navbar.html"


class LinkingLoader(Loader):
    """Loads Flower's templates, with a link to the view in the bar that every page has."""

    def __init__(self, root: str, view_url: str) -> None:
        super().__init__(root)
        # Two braces would begin an expression of the template.
        shown = xhtml_escape(view_url).replace("{", "%7B")
        self._link = f'<li class="nav-item"><a class="nav-link" href="{shown}">Experiments</a></li>'

    def _create_template(self, name: str) -> Template:
        if name != _BAR:
            return super()._create_template(name)
        text = (Path(self.root) / name).read_text(encoding="utf-8")
        return Template(text.replace(_PAGES, f"{_PAGES}{self._link}", 1), name=name, loader=self)


def link_to_view(settings: dict[str, Any], view_url: str) -> None:
    """Have an application with Flower's settings link to the view on each page."""
    settings["template_loader"] = LinkingLoader(settings["template_path"], view_url)
