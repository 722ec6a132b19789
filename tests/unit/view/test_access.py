"""Who may see the view, and what the browser may do with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from doteval.errors import UsageError
from doteval.view.access import AccessRules, cookie_name, cookie_value, needs_token
from doteval.view.serving import ViewOptions
from tests.support.troubleshooting import assert_shown
from tests.support.view import client

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/static/view.css", "/static/../secret", "/health", "/?sort=x", "/?page=%ff"]
)
def test_every_answer_says_what_the_browser_may_do(view: TestClient, path: str) -> None:
    headers = view.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "no-cache" in headers["cache-control"]


def test_pages_hold_neither_scripts_nor_styles_of_their_own(view: TestClient) -> None:
    page = view.get("/").text
    assert page.count("<script") == page.count('<script src="static/view.js" defer></script>') == 1
    assert "style=" not in page
    assert "<style" not in page


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_the_view_can_only_be_read(view: TestClient, method: str) -> None:
    answer = view.request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_answered_as_get_is(view: TestClient) -> None:
    answer = view.head("/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7575", 200),
        ("127.0.0.1:7575", 200),
        ("[::1]:7575", 200),
        ("192.168.1.7", 200),
        ("LOCALHOST", 200),
        ("evals.example.org", 200),
        ("evil.example.org", 421),
        ("evil.example.org:7575", 421),
        ("localhost.evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("localhost:evil", 421),
        ("", 421),
    ],
)
def test_a_page_of_somebody_else_cannot_read_it_under_another_name(viewed: Path, host: str, status: int) -> None:
    with client(viewed, AccessRules(hosts=("evals.example.org",))) as view:
        answer = view.get("/", headers={"Host": host})
        assert answer.status_code == status
        if status == 421:
            assert "doteval docs troubleshooting#view-host" in answer.text
            assert_shown("view-host", re.sub("<[^>]+>", " ", answer.text))


def test_without_the_token_nothing_of_the_store_is_seen(viewed: Path) -> None:
    with client(viewed, AccessRules(TOKEN)) as view:
        for path in ("/", "/experiment?name=base", "/nothing", "/?token=", "/?token=wrong", "/?TOKEN=x"):
            answer = view.get(path)
            assert answer.status_code == 401, path
            if path == "/":
                assert "doteval docs troubleshooting#view-token" in answer.text
                assert_shown("view-token", re.sub("<[^>]+>", " ", answer.text))
            assert "base" not in answer.text
            assert "set-cookie" not in answer.headers
        # What everybody may have, and a page of an error needs.
        assert view.get("/static/view.css").status_code == view.get("/health").status_code == 200


def test_the_token_is_shown_once_and_then_a_cookie(viewed: Path) -> None:
    with client(viewed, AccessRules(TOKEN)) as view:
        answer = view.get(f"/?search=base&token={TOKEN}&sort=name")
        assert answer.status_code == 303
        assert answer.headers["location"] == ".?search=base&sort=name"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert view.get("/").status_code == 200
    with client(viewed, AccessRules("another-token-of-some-length"), seconds=30) as other:
        other.cookies.set(cookie_name(TOKEN), cookie_value(TOKEN))
        assert other.get("/").status_code == 401


def test_a_cookie_that_is_none_is_refused(viewed: Path) -> None:
    with client(viewed, AccessRules(TOKEN)) as view:
        for cookie in ("", "=", "a=b; ;", f"{cookie_name(TOKEN)}=wrong", f"{cookie_name(TOKEN)}=\xff"):
            assert view.get("/", headers={"Cookie": cookie.encode("latin-1")}).status_code == 401


def test_a_proxy_names_the_user_in_a_header(viewed: Path) -> None:
    with client(viewed, AccessRules(trust_header="X-Forwarded-User")) as view:
        assert view.get("/").status_code == 401
        assert view.get("/", headers={"X-Forwarded-User": ""}).status_code == 401
        assert view.get("/", headers={"X-Forwarded-User": "ann"}).status_code == 200


@pytest.mark.parametrize(("host", "needed"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("db1", True)])
def test_an_address_that_others_reach_gets_a_token(host: str, needed: bool) -> None:
    assert needs_token(host) is needed
    rules = ViewOptions(None, host=host).rules()
    assert (rules.token is not None) is needed
    assert rules.token is None or len(rules.token) >= 32


def test_what_makes_no_safe_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="fewer than 16"):
        AccessRules("short")
    with pytest.raises(UsageError, match="no name of a header"):
        AccessRules(trust_header="X User:")
