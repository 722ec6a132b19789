"""The documentation: its pages, and what makes the site and the reference of them.

``conf.py`` is Sphinx's. Nothing here is part of the installed package but the pages.
"""
