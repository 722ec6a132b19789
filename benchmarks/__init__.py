"""How fast doteval is, beside its peers: ``make bench``.

`subjects` holds one module for each question, `evaluations` the files that doteval evaluates for them, `peers`
the same work written for others. README.md has the method and the figures.
"""
