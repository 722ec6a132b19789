"""One row through pytest's own fixtures: the embedded pytest session and the row runner.

Local `pytest` and worker processes share this room. All private names of pytest are used here and
nowhere else, and most of them in `pytest_internals`.
"""
