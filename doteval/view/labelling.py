"""Takes people's labels of rows from the page of a row: who may send them, and how they are stored.

A label arrives by POST only, from a page of this view: the browser says from which page it comes (the header Origin),
and the form holds a token that fits a cookie of the visitor, which no other site can read or set.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from doteval.core.addresses import is_loopback
from doteval.core.row_labels import MOST_NAME, LabelJudgement, checked_name
from doteval.core.wording import clean
from doteval.errors import DotEvalError, UsageError
from doteval.store.row_labels import RowLabelWriter
from doteval.view.access import AccessRules, host_name, read_cookie
from doteval.view.parameters import Parameters
from doteval.view.row_choice import chosen_evaluation, chosen_key
from doteval.view.visit import LabelForm, Visit

PATH = "/label"
# A cookie of every visitor who sees a form, and one with the name that a visitor has given.
_VISITOR_COOKIE = "doteval-view-visitor"
_NAME_COOKIE = "doteval-view-name"
_COOKIE_SECONDS = 365 * 86_400
_VISITOR_CHARACTERS = 32
# Bytes of a form. A letter of a note may take twelve: four of UTF-8, each as three characters.
MOST_BYTES = 60_000
_FIELDS = ("form_token", "person", "judgement", "note")


class LabelRefusedError(DotEvalError):
    """A label that this view does not take from this visitor."""


class Labelling:
    """Takes labels.

    own_name: the name of those who give none and whose browser runs on this machine.
    """

    def __init__(self, writer: RowLabelWriter, rules: AccessRules, own_name: str | None = None) -> None:
        self._writer = writer
        self._rules = rules
        self._own_name = own_name
        # A form that was made before a restart is refused once.
        self._secret = secrets.token_bytes(32)

    def form(self, headers: Headers) -> LabelForm:
        """The form for a visitor."""
        visitor = read_cookie(headers, _VISITOR_COOKIE)
        is_new = len(visitor) != _VISITOR_CHARACTERS or not visitor.isalnum()
        if is_new:
            visitor = secrets.token_hex(_VISITOR_CHARACTERS // 2)
        user = self._rules.user(headers)
        return LabelForm(self._token(visitor), user or self._usual_name(headers), user is not None, visitor, is_new)

    def check_origin(self, headers: Headers) -> None:
        """Raise LabelRefusedError unless the browser sends a form of a page of this view."""
        origin, host = urlsplit(headers.get("origin", "")), host_name(headers.get("host", ""))
        # Without the port, which a proxy may not pass on. The token tells applications on other ports apart.
        if origin.scheme not in ("http", "https") or host is None or host_name(origin.netloc) != host:
            raise LabelRefusedError(
                "the label does not come from a page of this view",
                remedy="Label on the page of the row. A proxy in between has to pass on the headers Host and Origin.",
            )

    def save(self, visit: Visit, form: Parameters, headers: Headers) -> str:
        """Store or remove the label that a form holds.

        visit: has the parameters of the page of the row.

        Returns the name of the person.

        Raises LabelRefusedError: the form is not one that the visitor got.
        Raises UsageError, NotFoundError, StoreError: the label cannot be stored.
        """
        token, person, judgement, note = (form.text(name) for name in _FIELDS)
        form.refuse_others()
        visitor = read_cookie(headers, _VISITOR_COOKIE)
        if not visitor or not hmac.compare_digest(self._token(visitor).encode(), clean(token or "").encode()):
            raise LabelRefusedError(
                "the form is older than this view, or of another visitor",
                remedy="Go back, load the page of the row again, and label it then. Cookies have to be allowed.",
            )
        name = checked_name(self._rules.user(headers) or person or "")
        evaluation, (index, sample) = chosen_evaluation(visit).id, chosen_key(visit.parameters)
        if judgement is None:
            self._writer.remove(evaluation, index, sample, person=name)
        elif judgement in set(LabelJudgement):
            said = None if note is None else note.replace("\r\n", "\n")
            self._writer.put(evaluation, index, sample, person=name, judgement=LabelJudgement(judgement), note=said)
        else:
            raise UsageError(f"a label is right or wrong, not {judgement[:40]!r}")
        return name

    def _usual_name(self, headers: Headers) -> str:
        try:
            return checked_name(unquote(read_cookie(headers, _NAME_COOKIE)))
        except UsageError:
            host = host_name(headers.get("host", "")) or ""
            return (self._own_name or "")[:MOST_NAME] if is_loopback(host.strip("[]")) else ""

    def _token(self, visitor: str) -> str:
        return hmac.new(self._secret, visitor.encode(errors="replace"), hashlib.sha256).hexdigest()


def remember_visitor(response: Response, form: LabelForm, *, secure: bool) -> None:
    """Give a visitor the cookie that the token of the form fits."""
    if form.is_new:
        _set_cookie(response, _VISITOR_COOKIE, form.visitor, secure=secure)


def remember_name(response: Response, name: str, *, secure: bool) -> None:
    """Have the forms of a visitor hold the name that was given last."""
    _set_cookie(response, _NAME_COOKIE, quote(name), secure=secure)


def _set_cookie(response: Response, name: str, value: str, *, secure: bool) -> None:
    response.set_cookie(name, value, max_age=_COOKIE_SECONDS, secure=secure, httponly=True, samesite="strict")
