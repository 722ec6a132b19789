"""The application: its pages, its files, and the answers to requests that cannot be answered."""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from doteval.errors import DotEvalError, NotFoundError, StoreError, StoreTimeoutError, UsageError
from doteval.store import Store
from doteval.view.access import AccessMiddleware, AccessRules
from doteval.view.calculations import Calculations
from doteval.view.pages import charts, compare, experiment, experiments, fixture, row, rows
from doteval.view.parameters import Parameters
from doteval.view.templating import render
from doteval.view.visit import Page, Visit

logger = logging.getLogger("doteval.view")

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
    store: Store, calculations: Calculations, rules: AccessRules | None = None, *, flower: str | None = None
) -> Starlette:
    """Return the application that shows a store.

    store: one that only reads; `calculations` has another one, with more time.
    flower: the URL of Flower, to which pages link.
    """
    limiter: list[CapacityLimiter] = []

    def endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if not limiter:
                # It belongs to the event loop, which runs by now.
                limiter.append(CapacityLimiter(_THREADS))
            try:
                status, body = await anyio.to_thread.run_sync(made, page, request.url.query, limiter=limiter[0])
            except DotEvalError as error:
                return refusal(_status(error), error.message, error.remedy or _remedy(error))
            except Exception as error:  # noqa: BLE001 - one page that fails is no reason to fail altogether
                return unexpected(error)
            return _unless_known(request, body, page.media_type) if status == 200 else HTMLResponse(body, status)

        return answer

    def made(page: Page, query: str) -> tuple[int, bytes]:
        visit = Visit(store, calculations, Parameters(query), page.path.lstrip("/") or ".")
        contents = page.read(visit)
        visit.parameters.refuse_others()
        if page.template is None:
            return visit.status, contents["image"]
        return visit.status, render(page.template, contents, visit=visit, flower=flower).encode()

    def refusal(status: int, message: str, remedy: str | None) -> Response:
        contents = {"status": status, "message": message, "remedy": remedy}
        return HTMLResponse(render("error.html.jinja", contents, flower=flower), status)

    def no_page(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return refusal(404, f"there is no page {request.url.path[:200]}", "Begin at the list of experiments.")
        return refusal(error.status_code, error.detail, None)

    def unexpected(error: Exception) -> Response:
        # The message may hold contents of rows, which do not belong into a log.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {frame.filename}:{frame.lineno}, {frame.name}"
        logger.error("the view did not expect this: %s", where)
        return refusal(500, f"the view did not expect this: {where}", "Please report it with these words.")

    return Starlette(
        routes=[
            *(Route(page.path, endpoint(page)) for page in PAGES),
            Route("/health", lambda _: PlainTextResponse("ok\n")),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(AccessMiddleware, rules=rules or AccessRules(), refusal=refusal)],
        exception_handlers={HTTPException: no_page},
    )


def _unless_known(request: Request, body: bytes, media_type: str) -> Response:
    """The page, or the answer that the browser has it already."""
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, headers={"ETag": tag}, media_type=media_type)


def _remedy(error: DotEvalError) -> str | None:
    return "Ask for less, as with a search or a filter." if isinstance(error, StoreTimeoutError) else None


def _status(error: DotEvalError) -> int:
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, UsageError):
        return 400
    # It may work again in a moment.
    return 503 if isinstance(error, StoreError) else 500
