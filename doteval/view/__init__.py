"""The web view: experiments, evaluations and rows of a result store in a browser.

`serve` in `doteval.view.serving` runs it for ``doteval view``; `make_application` in `doteval.view.application` is the
application, which tests call without a server. It only reads: the store is opened with `Store.open_read_only`, there
are no forms but those that search, and no method but GET and HEAD. With ``--allow-labels`` there is one more,
``POST label``, which `doteval.view.labelling` answers: it has the only connection that may write, to one table.

How a page is made
    One module in `doteval.view.pages` and one template in ``templates/``. The module ends with
    ``page = Page("/path", "name.html.jinja", read)``, and `doteval.view.application.PAGES` lists it.
    ``read(visit)`` runs on a thread of a small pool. It reads its parameters, asks the store, and returns a dict for
    the template. Templates extend ``base.html.jinja``, whose macros are in ``macros.html.jinja``; every value is
    escaped and loses control characters. ``{{ x | excerpt(200) }}`` bounds a text.

How URLs hold state
    All of it is in the query, so that a URL can be shared, and "back" works. Parameters are read with
    ``visit.parameters.text/choice/number/...``, which raise `UsageError` (a page with status 400) for a bad value; a
    parameter that the page has not read is one, too. ``visit.here(sort="name", page=None)`` is the URL of this page
    with other parameters, ``link("experiment", name=...)`` that of another page. All paths have one part, and all links
    are relative to it, so that the view works below any path of a proxy. Names go into the query, since they may hold
    anything.

How the store is read
    ``visit.store`` gives each transaction a few seconds; `StoreTimeoutError` is a page that says so. A page asks for a
    bounded number of lines, whatever the store holds. What has to look at all rows of an evaluation goes through
    ``visit.compute(part, subject, state, function)``: it is computed on a thread of its own, once for all visitors,
    with a store that has more time, and anew in another ``state``. Until it is there, the value is None, and the macro
    ``waiting(part, ...)`` says that it is being computed, in a part that is live. If it fails, the macro says why, and
    the rest of the page is shown; it is tried again half a minute later. With ``running=True`` the value may be that of
    an earlier state, and computing it takes a small share of the time (`doteval.view.time_shares`).

Which URLs there are
    ``.`` (search, status, tag, since, branch, sort, page) and ``experiment`` (name, search, status, sort, page);
    ``compare`` (a: the baseline, b: others, once for each; both may be ``NAME::EVALUATION``). Rows are chosen by
    ``experiment`` and ``evaluation``, which is its ``file::name``: ``rows`` (experiment, evaluation, show=wrong, failed
    or slow, where: the grammar of filters) and ``row`` (experiment, evaluation, index, sample). ``fixture``
    (experiment, fixture, page) has the loads of a session fixture.

What is live
    An element with ``id`` and ``data-live`` is replaced by its newest form every few seconds: the script looks at the
    page again, unless its tab is hidden. ``visit.live(running=...)`` says how often at most. `doteval.view.looks`
    answers. All who look at a page share one, and its answer says when to look next, so that making pages for looks
    takes a small share of the time, however many are open.

What the browser may do
    The Content-Security-Policy allows no inline script and no inline style. So ``style="..."`` does nothing: use
    classes, or attributes of SVG. Everything has to work without the script, but for keys, copying and local times.

How a test looks
    ``tests/unit/view`` calls the application through ``tests.support.view.client(path)``.
    ``tests/browser/test_view.py`` drives Chromium against a real server.

It may import everything that the commands for reading may: `doteval.report`, `doteval.store`, `doteval.analysis`. Only
it imports starlette and uvicorn.
"""
