"""Parts long tables into pages that have numbers."""

from __future__ import annotations

from dataclasses import dataclass

from doteval.view.visit import Visit

_MOST_PAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Paging:
    """One page of a table.

    number: from 1; behind the last page it is the last one, since the table may have become shorter.
    previous, next: links, None at the ends.
    """

    number: int
    pages: int
    size: int
    count: int
    previous: str | None
    next: str | None

    @classmethod
    def of(cls, visit: Visit, count: int, size: int) -> Paging:
        """The page that the parameter ``page`` asks for, of a table with `count` lines."""
        pages = max(1, -(-count // size))
        number = min(pages, visit.parameters.number("page", 1, least=1, most=_MOST_PAGES))
        return cls(
            number,
            pages,
            size,
            count,
            visit.here(page=number - 1 if number > 2 else None) if number > 1 else None,
            visit.here(page=number + 1) if number < pages else None,
        )

    @property
    def first(self) -> int:
        """The place of the first line of the page, from 0."""
        return (self.number - 1) * self.size

    @property
    def slice(self) -> slice:
        """The lines of the page."""
        return slice(self.first, self.first + self.size)
