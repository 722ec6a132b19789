"""Writes the pages of docs/reference from the code: ``make reference``.

Each module makes one page and fails where the code does not say what a thing means. The pages are committed, so that
GitHub and an installed doteval have them; a test compares them with what the code says now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import api, exit_codes, json_documents, messages, metrics, prometheus, settings, store_schema

FOLDER = Path(__file__).parents[1] / "reference"

# The text of each file, by its name in the folder.
FILES: dict[str, Callable[[], str]] = {
    "api.md": api.page,
    "exit-codes.md": exit_codes.page,
    "json.md": json_documents.page,
    "messages.md": messages.page,
    "metrics.md": metrics.page,
    "prometheus.md": prometheus.page,
    "settings.md": settings.page,
    "store-schema.md": store_schema.page,
    "store-schema.svg": store_schema.picture,
}
