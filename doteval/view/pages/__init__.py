"""The pages of the web view, one module each: it reads what one template shows.

`doteval.view` says how a page is made.
"""
