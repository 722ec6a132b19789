"""Small tables of HTML for notebooks, in which every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from doteval.core.wording import clean

_LEFT = ' style="text-align:left"'
_RIGHT = ' style="text-align:right;font-variant-numeric:tabular-nums"'


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """A table whose first `left` columns are texts, and the others figures.

    >>> "<td" in html_table(["score", "value"], [["f1 <b>", "0.5"]], left=1)
    True
    """
    sides = [_LEFT if place < left else _RIGHT for place in range(len(titles))]
    heads = "".join(f"<th{side}>{html_text(title)}</th>" for title, side in zip(titles, sides, strict=True))
    lines = [
        f"<tr>{''.join(f'<td{side}>{html_text(cell)}</td>' for cell, side in zip(row, sides, strict=True))}</tr>"
        for row in rows
    ]
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def html_text(text: str) -> str:
    r"""A text that is no markup, without control characters and lone surrogates.

    >>> html_text("<b>\x00\ud800")
    '&lt;b&gt;\ufffd\ufffd'
    """
    return html.escape(clean(text))
