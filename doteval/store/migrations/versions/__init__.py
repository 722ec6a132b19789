"""The migrations: one Alembic module for each schema version, which `doteval.store.migrations` runs.

A migration that was released is never changed. So they import little of doteval, and describe tables by themselves.
"""
