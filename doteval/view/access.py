"""Decides who may see the view, and says what a browser may do with it.

Everybody on this machine may see a view that listens on a loopback address. Elsewhere a visitor shows the token once,
in the URL that ``doteval view`` prints, and gets a cookie. Behind a proxy that knows its users, the proxy names them in
a header.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import unquote_plus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doteval.core.addresses import is_loopback
from doteval.errors import UsageError

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" a browser does not say, either, that a form comes from a page of this view.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_METHODS = ("GET", "HEAD")
# What anybody may see: neither holds anything of the store.
_OPEN_PATHS = ("/health",)
_OPEN_FOLDER = "/static/"
_TOKEN = "token="  # noqa: S105 - the name of a parameter
_COOKIE_SECONDS = 30 * 86_400
_TOKEN_PAGE, _HOST_PAGE = "troubleshooting#view-token", "troubleshooting#view-host"
# A short token could be guessed.
_LEAST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Who may see the view.

    token: what a visitor has to show, None if nobody has to.
    trust_header: the header in which a proxy names the user; requests with it need no token.
    hosts: names that visitors may use for this machine, beside its addresses and its own name.

    Raises UsageError: the token can be guessed, or the header cannot be one.
    """

    token: str | None = None
    trust_header: str | None = None
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < _LEAST_TOKEN:
            raise UsageError(
                f"the token of the view has fewer than {_LEAST_TOKEN} characters, and could be guessed",
                remedy="Leave DOTEVAL_VIEW_TOKEN out for a new one at each start, or make one: openssl rand -hex 24",
                page=_TOKEN_PAGE,
            )
        name = self.trust_header
        if name is not None and not (name.isascii() and name.replace("-", "").isalnum()):
            raise UsageError(f"{name!r} is no name of a header", remedy="As in --trust-header X-Forwarded-User")

    def knows_host(self, header: str | None) -> bool:
        """Whether a Host header names this machine.

        A page of somebody else reaches this machine under a name of its own (DNS rebinding), never under an address.
        """
        host = host_name(header or "")
        if host is None:
            return False
        own = {"localhost", socket.gethostname().lower(), *(each.lower() for each in self.hosts)}
        return host in own or _is_address(host)

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches it may see it."""
        return self.token is None and self.trust_header is None

    def admits(self, headers: Headers) -> bool:
        """Whether a request comes from somebody who may see the view."""
        if self.is_open:
            return True
        if self.user(headers) is not None:
            return True
        return self.token is not None and _same(read_cookie(headers, cookie_name(self.token)), cookie_value(self.token))

    def user(self, headers: Headers) -> str | None:
        """The user whom a proxy names, None if there is no such proxy, or if it names nobody."""
        named = "" if self.trust_header is None else headers.get(self.trust_header, "")
        try:
            # Headers are read as Latin-1; names of people are written in UTF-8 nowadays.
            return named.encode("latin-1").decode() or None
        except UnicodeError:
            return named

    def is_token(self, shown: str) -> bool:
        """Whether a visitor shows the token."""
        return self.token is not None and _same(shown, self.token)


class AccessMiddleware:
    """Answers requests that may not be answered otherwise, and adds the headers that every answer has.

    forms: the paths that take a POST.
    refusal: makes the answer for a status, a sentence, what to do next, and the section of the documentation about it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        rules: AccessRules,
        refusal: Callable[..., Response],
        forms: Collection[str] = (),
    ) -> None:
        self._app = app
        self._forms = forms
        self._rules = rules
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                # Answers are of one visitor; a browser asks whether they are still the same.
                headers.setdefault("Cache-Control", "private, no-cache")
                headers.add_vary_header("Cookie")
            await send(message)

        answer = self._answer(Request(scope))
        await (self._app if answer is None else answer)(scope, receive, send_with_headers)

    def _answer(self, request: Request) -> Response | None:
        """The answer for a request that does not reach the pages."""
        rules = self._rules
        is_form = request.method == "POST" and request.url.path in self._forms
        if request.method not in _METHODS and not is_form:
            answer = self._refusal(405, "the view can only be read", "Ask with GET.")
            answer.headers["Allow"] = ", ".join(_METHODS)
            return answer
        if request.url.path in _OPEN_PATHS:
            return None
        if not rules.knows_host(request.headers.get("host")):
            return self._refusal(
                421,
                "this machine is not known by that name",
                "Start the view with --allow-host NAME to use a name.",
                _HOST_PAGE,
            )
        if request.url.path.startswith(_OPEN_FOLDER):
            return None
        parts = request.url.query.split("&")
        shown = [part for part in parts if part.startswith(_TOKEN)]
        if shown and rules.token is not None and not is_form:
            if not rules.is_token(unquote_plus(shown[0].removeprefix(_TOKEN))):
                return self._refusal(401, "this is not the token of the view", _HOW, _TOKEN_PAGE)
            return self._begin_session(request, "&".join(part for part in parts if part not in shown))
        if not rules.admits(request.headers):
            return self._refusal(401, "this view shows nothing without its token", _HOW, _TOKEN_PAGE)
        return None

    def _begin_session(self, request: Request, query: str) -> Response:
        """Give the visitor a cookie, and take the token out of the address bar."""
        path = request.url.path.lstrip("/") or "."
        answer = RedirectResponse(f"{path}?{query}" if query else path, 303)
        token = self._rules.token
        assert token is not None
        answer.set_cookie(
            cookie_name(token),
            cookie_value(token),
            max_age=_COOKIE_SECONDS,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer


_HOW = "Open the URL that `doteval view` has printed. If you came by a link and have been here before, follow it again."


def cookie_name(token: str) -> str:
    """The name of the cookie: cookies do not know ports, and two views of one machine have different tokens."""
    return f"doteval-view-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def cookie_value(token: str) -> str:
    """The value of the cookie, from which nobody learns the token."""
    return hmac.new(token.encode(), b"doteval view", hashlib.sha256).hexdigest()


def needs_token(host: str) -> bool:
    """Whether others than users of this machine reach a server that listens on an address."""
    return not is_loopback(host)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass"))


def read_cookie(headers: Headers, name: str) -> str:
    """The value of a cookie, empty without it."""
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        # Another application of this host has set one that Python does not read.
        return ""
    return cookies[name].value if name in cookies else ""


def host_name(header: str) -> str | None:
    """The name or the address of a Host header, without its port; None if it is none."""
    host, colon, port = header.lower().rpartition(":")
    if not colon or header.endswith("]"):
        host, port = header.lower(), ""
    if port and not port.isdecimal():
        return None
    return host.rstrip(".") or None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
