"""How fast doteval is, beside its peers: ``make bench``.

`subjects` holds one module for each question, `evaluations` the files that doteval evaluates for them, `peers`
the same work written for others. README.md has the method and the figures.
"""

import os

# Users' Pythons keep what they have compiled. Where that is forbidden, each process of doteval would compile again what
# it imports from this checkout, and pytest rewrite plugins again, while peers' packages were compiled by pip.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
