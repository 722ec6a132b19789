"""The application: its pages, its files, and the answers to requests that cannot be answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from doteval.errors import DotEvalError, NotFoundError, StoreError, StoreTimeoutError, UsageError
from doteval.store import Store
from doteval.view.access import AccessMiddleware, AccessRules
from doteval.view.calculations import Calculations
from doteval.view.labelling import MOST_BYTES, PATH, Labelling, LabelRefusedError, remember_name, remember_visitor
from doteval.view.looks import AGAIN_HEADER, LOOK_HEADER, Looks, MadePage
from doteval.view.pages import charts, compare, experiment, experiments, fixture, row, rows
from doteval.view.parameters import Parameters
from doteval.view.templating import render
from doteval.view.time_shares import work_clock
from doteval.view.visit import IDLE_SECONDS, UNEXPECTED_PAGE, LabelForm, Page, Visit, unexpected

Value = TypeVar("Value")

PAGES: tuple[Page, ...] = (
    experiments.page,
    experiment.page,
    rows.page,
    row.page,
    charts.page,
    charts.image,
    compare.page,
    fixture.page,
)

# Pages that are made at the same time, each with a connection. More would only share the same processors.
_THREADS = 6
_STATIC = Path(__file__).parent / "static"


def make_application(
    store: Store,
    calculations: Calculations,
    rules: AccessRules | None = None,
    *,
    flower: str | None = None,
    labelling: Labelling | None = None,
) -> Starlette:
    """Return the application that shows a store.

    store: one that only reads; `calculations` has another one, with more time.
    flower: the URL of Flower, to which pages link.
    labelling: takes people's labels; None for a view that only reads.
    """
    limiter: list[CapacityLimiter] = []
    looks, clock = Looks(), work_clock(store)

    def endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            form = None if labelling is None or page is not row.page else labelling.form(request.headers)
            key = (page.path, request.url.query, form)
            make = partial(on_thread, made, page, request.url.query, form)
            try:
                if LOOK_HEADER in request.headers:
                    answer = await looks.look(key, make)
                else:
                    answer = await make()
                    looks.keep(key, answer)
            except asyncio.CancelledError:
                # The view ends, and has waited for its pages as long as it does. uvicorn would log a traceback.
                return _response(refusal(503, "the view is ending", "Start it again: doteval view"))
            response = _unless_known(request, answer)
            again = looks.again(key, answer)
            if again is not None:
                response.headers[AGAIN_HEADER] = f"{again:.1f}"
            if form is not None:
                remember_visitor(response, form, secure=request.url.scheme == "https")
            return response

        return respond

    async def label(request: Request) -> Response:
        try:
            if labelling is None:
                raise LabelRefusedError("this view takes no labels", remedy="Start it with --allow-labels.")
            labelling.check_origin(request.headers)
            visit = Visit(store, calculations, Parameters(request.url.query), row.page.path.lstrip("/"))
            fields = Parameters(await _body(request))
            name = await on_thread(labelling.save, visit, fields, request.headers)
        except DotEvalError as error:
            return _response(refused(error))
        except Exception as error:  # noqa: BLE001 - as for a page
            return _response(failed(error))
        response = RedirectResponse(visit.here(), 303)
        remember_name(response, name, secure=request.url.scheme == "https")
        return response

    async def on_thread(function: Callable[..., Value], *arguments: Any) -> Value:
        if not limiter:
            # It belongs to the event loop, which runs by now.
            limiter.append(CapacityLimiter(_THREADS))
        return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter[0])

    def made(page: Page, query: str, form: LabelForm | None) -> MadePage:
        began = clock()
        try:
            # Columns that mean something else now would be wrong figures.
            store.check_version()
            visit = Visit(store, calculations, Parameters(query), page.path.lstrip("/") or ".", form)
            contents = page.read(visit)
            visit.parameters.refuse_others()
            if page.template is None:
                return MadePage(visit.status, contents["image"], page.media_type)
            body = render(page.template, contents, visit=visit, flower=flower).encode()
            return MadePage(visit.status, body, page.media_type, visit.live_seconds, clock() - began - visit.waited)
        except DotEvalError as error:
            answer = refused(error)
        except Exception as error:  # noqa: BLE001 - one page that fails is no reason to fail altogether
            answer = failed(error)
        # Pages that are open go on looking, and a store that does not answer in time has enough to do.
        return replace(answer, live_seconds=IDLE_SECONDS, seconds=clock() - began)

    def refused(error: DotEvalError) -> MadePage:
        return refusal(_status(error), error.message, error.remedy or _remedy(error), error.page)

    def refusal(status: int, message: str, remedy: str | None, page: str | None = None) -> MadePage:
        contents = {"status": status, "message": message, "remedy": remedy, "page": page}
        return MadePage(status, render("error.html.jinja", contents, flower=flower).encode(), "text/html")

    def no_page(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            missing = f"there is no page {request.url.path[:200]}"
            return _response(refusal(404, missing, "Begin at the list of experiments."))
        return _response(refusal(error.status_code, error.detail, None))

    def failed(error: Exception) -> MadePage:
        return refusal(500, unexpected(error), "Please report it with these words.", UNEXPECTED_PAGE)

    def no_access(status: int, message: str, remedy: str, page: str | None = None) -> Response:
        return _response(refusal(status, message, remedy, page))

    return Starlette(
        routes=[
            *(Route(page.path, endpoint(page)) for page in PAGES),
            Route(PATH, label, methods=["POST"]),
            Route("/health", lambda _: PlainTextResponse("ok\n")),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(AccessMiddleware, rules=rules or AccessRules(), refusal=no_access, forms=[PATH])],
        exception_handlers={HTTPException: no_page},
    )


async def _body(request: Request) -> str:
    """The body of a form. Raises UsageError: it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise UsageError(f"the form has more than {MOST_BYTES:,} bytes", remedy="Write a shorter note.")
    return body.decode("latin-1")


def _unless_known(request: Request, answer: MadePage) -> Response:
    """The page, or the answer that the browser has it already."""
    if answer.status != 200:
        return _response(answer)
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    response = Response(status_code=304) if answer.tag in known else _response(answer)
    response.headers["ETag"] = answer.tag
    return response


def _response(answer: MadePage) -> Response:
    return Response(answer.body, answer.status, media_type=answer.media_type)


def _remedy(error: DotEvalError) -> str | None:
    return "Ask for less, as with a search or a filter." if isinstance(error, StoreTimeoutError) else None


def _status(error: DotEvalError) -> int:
    if isinstance(error, LabelRefusedError):
        return 403
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, UsageError):
        return 400
    # It may work again in a moment.
    return 503 if isinstance(error, StoreError) else 500
