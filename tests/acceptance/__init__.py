"""Whole commands in processes of their own: the command line, Redis, worker processes, the store."""
