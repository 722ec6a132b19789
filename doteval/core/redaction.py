"""Hides passwords in URLs and secrets in command lines, so that messages, tables and logs never show them."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"

# Celery takes several broker URLs separated by ";", and a password may hold a ";" of its own.
_BETWEEN_URLS = re.compile(r";(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"password|passwd|pwd|secret|token|api_?key", re.IGNORECASE)
# `--max-tokens 500` is no secret, `--hf-token hf_...` is.
_SECRET_NAME = re.compile(
    r"(?:password|passwd|pwd|passphrase|secret|credentials?|bearer|authorization|access[-_]?key|private[-_]?key"
    r"|api[-_]?key|auth[-_]?token|(?:^|[-_])(?:token|key|auth))$",
    re.IGNORECASE,
)
# Keys that show what they are: of model APIs, GitHub, GitLab, Hugging Face, Slack, AWS, Google; and JSON web tokens.
_SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|pk-|rk-|gsk_|xai-|gh[pousr]_|github_pat_|glpat-|hf_|xox[a-z]-|AKIA|ASIA|AIza|eyJ)[\w.\-]{12,}"
)
# What may be a URL with a password: characters without blanks up to an "@". Each character is looked at once, however
# long the text is.
_BEFORE_AT = re.compile(r"[^\s@'\"]+@?")
_PARAMETER_IN_TEXT = re.compile(r"(?P<name>[?&][^\s?&=#'\"]{1,100})=[^\s?&#'\"]*")
_SECRET_IN_QUERY = re.compile(r"password|passwd|pwd|secret|token|key|auth|signature|sig$|credential", re.IGNORECASE)


def hide_password(url: str) -> str:
    """Replace the password and secret query parameters of a URL by ``***``. Several URLs may be joined by ";".

    It also works on URLs that no parser accepts. Since a password may hold any character, everything between the first
    ":" and the last "@" is hidden.

    >>> hide_password("redis://:p@ss@host:6379/0")
    'redis://:***@host:6379/0'
    """
    return ";".join(map(_hide_one, split_urls(url)))


def hide_in_text(text: str) -> str:
    """Replace the passwords and secret query parameters of the URLs in a text by ``***``, in linear time.

    >>> hide_in_text("GET https://me:hunter2@host/v1?api_key=abc&n=1 failed")
    'GET https://me:***@host/v1?api_key=***&n=1 failed'
    """
    if "://" not in text:
        return text
    return _PARAMETER_IN_TEXT.sub(_without_value, _BEFORE_AT.sub(_without_password, text))


def is_secret_parameter(name: str) -> bool:
    """Whether the value of a query parameter or header with this name is a secret.

    >>> is_secret_parameter("api-version"), is_secret_parameter("X-Api-Key")
    (False, True)
    """
    return _SECRET_IN_QUERY.search(name) is not None


def is_secret_name(name: str) -> bool:
    """Whether the value of a field, an option or a variable with this name is a secret.

    >>> is_secret_name("max_tokens"), is_secret_name("authorization")
    (False, True)
    """
    return _SECRET_NAME.search(name) is not None


def without_arguments(text: str) -> str:
    """What a Redis server has said, without the arguments of a command that it does not know, such as AUTH.

    >>> without_arguments("unknown command 'AUTH', with args beginning with: 'hunter2' ")
    "unknown command 'AUTH'"
    """
    return text.partition(", with args beginning with")[0]


def _without_value(found: re.Match[str]) -> str:
    return f"{found['name']}={HIDDEN}" if is_secret_parameter(found["name"]) else found.group()


def _without_password(found: re.Match[str]) -> str:
    word = found.group()
    if not word.endswith("@"):
        return word
    before, *parts = word.split("://")
    for part in parts:
        user, colon, _ = part.partition(":")
        before += "://"
        if colon and "/" not in user:
            return f"{before}{user}:{HIDDEN}@"
        before += part
    return word


def split_urls(urls: str) -> list[str]:
    """The URLs that are joined by ";".

    >>> split_urls("sentinel://one;sentinel://:a;b@two")
    ['sentinel://one', 'sentinel://:a;b@two']
    """
    return _BETWEEN_URLS.split(urls)


def _hide_one(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    user, at, place = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = f"{name}:{HIDDEN}" if colon else user
    address, question, query = place.partition("?")
    if question:
        query = "&".join(map(_hide_parameter, query.split("&")))
    return f"{scheme}://{user}{at}{address}{question}{query}"


def _hide_parameter(parameter: str) -> str:
    names = parameter.split("=")[:-1]
    for number, name in enumerate(names):
        if _SECRET_PARAMETER.search(name.rpartition("?")[2]):
            return "=".join([*names[: number + 1], HIDDEN])
    return parameter


def hide_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    """Replace the secrets in the arguments of a command by ``***``: values of options such as ``--api-key``, passwords
    in URLs, variables such as ``OPENAI_API_KEY=...``, and texts with the form of a key.

    >>> hide_secrets(["pytest", "--api-key", "abc", "--storage=postgresql://me:pw@db/x", "--max-tokens", "5"])
    ('pytest', '--api-key', '***', '--storage=postgresql://me:***@db/x', '--max-tokens', '5')
    """
    hidden: list[str] = []
    value_is_secret = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if value_is_secret and not argument.startswith("--"):
            hidden.append(HIDDEN)
        elif equals and is_secret_name(name.rstrip("-_")):
            hidden.append(f"{name}={HIDDEN}")
        else:
            hidden.append(_SECRET_VALUE.sub(HIDDEN, hide_password(argument)))
        value_is_secret = not equals and argument.startswith("-") and is_secret_name(argument)
    return tuple(hidden)
