"""Measures how fast doteval is beside other runners: ``make bench``.

`subjects` has one module for each question, `evaluations` the files that doteval evaluates for them, and `peers` the
same work written for other runners. README.md describes the method and shows the figures.
"""

import os

# Python normally keeps compiled modules. If the environment forbids that, every process of doteval compiles again what
# it imports from this checkout, and pytest rewrites plugins again, while pip has compiled the packages of peers.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
