"""A store whose database's clock a test can set, for all processes that use the store."""

from __future__ import annotations

import psycopg
from sqlalchemy import make_url


class DatabaseClock:
    """Sets the clock of a PostgreSQL database, as those who open the store at `url` see it."""

    def __init__(self, postgres_url: str) -> None:
        self._own_url = postgres_url
        self._execute("CREATE TABLE clock_is_ahead (by interval NOT NULL)")
        self._execute("INSERT INTO clock_is_ahead VALUES ('0')")
        self._execute(
            "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
            "'SELECT pg_catalog.clock_timestamp() + by FROM public.clock_is_ahead'"
        )
        # What comes first in the path hides the function of PostgreSQL itself.
        path = {"options": "-csearch_path=public,pg_catalog"}
        self.url = make_url(postgres_url).update_query_dict(path).render_as_string(hide_password=False)

    def set_ahead(self, hours: float) -> None:
        """Set the clock so many hours ahead of the true time; behind it if negative."""
        self._execute(f"UPDATE clock_is_ahead SET by = '{hours} hours'")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._own_url, autocommit=True) as connection:
            connection.execute(statement)
