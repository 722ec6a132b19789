"""Reports on an experiment: one file that answers whether it is good, better than another, and to be trusted.

`reading.read_report` reads from the store what a report says (`contents.ReportContents`), in bounded memory;
`page.html_page` makes an HTML page of it, with the charts of `charts`, and `markdown.markdown_page` Markdown. It may
import the store, `doteval.analysis`, `doteval.core` and `doteval.errors`. Pages need the extra "report".
"""
