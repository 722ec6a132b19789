"""Batch mode: the calls that rows wait for are sent in batches of the provider, and their replies wake the rows.

Begin with `coordinator.py`. It runs in worker processes, since only a process that has run a row knows the base URL and
the key of its client, and the store must never hold a key. `provider.py` says what a provider has to offer; a new one
is one file like `openai_files.py`.
"""
