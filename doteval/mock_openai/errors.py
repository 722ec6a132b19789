"""Errors as the API words them."""

from __future__ import annotations

from typing import Any

# What OpenAI's API says with these statuses: message, type, code.
_BY_STATUS: dict[int, tuple[str, str, str | None]] = {
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to use this model.", "invalid_request_error", None),
    404: ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for requests. Please try again later.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("The engine is currently overloaded, please try again later", "server_error", None),
}
_QUOTA = "You exceeded your current quota, please check your plan and billing details."


class RequestError(Exception):
    """A request that is refused: `status` and the fields of the error in the reply."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """The body of the reply.

        >>> RequestError("No such File object: file-1", status=404, param="id").body["error"]["param"]
        'id'
        """
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def of_status(status: int) -> RequestError:
    """The error that the API sends with a status.

    >>> of_status(429).code
    'rate_limit_exceeded'
    """
    message, kind, code = _BY_STATUS.get(
        status, ("The request failed.", "server_error" if status >= 500 else "invalid_request_error", None)
    )
    return RequestError(message, status=status, kind=kind, code=code)


def quota_exceeded() -> RequestError:
    """The 429 of an account without credit, which no wait mends."""
    return RequestError(_QUOTA, status=429, kind="insufficient_quota", code="insufficient_quota")


def missing(param: str) -> RequestError:
    """The error for a parameter that is not given."""
    return RequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def of_type(param: str, expected: str, given: object) -> RequestError:
    """The error for a parameter of another type.

    >>> str(of_type("n", "an integer", "two"))
    "Invalid type for 'n': expected an integer, but got a string instead."
    """
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array"}
    name = "null" if given is None else names.get(type(given), "an object")
    return RequestError(
        f"Invalid type for '{param}': expected {expected}, but got {name} instead.", param=param, code="invalid_type"
    )


def unsupported_value(param: str, given: object, supported: tuple[str, ...]) -> RequestError:
    """The error for a value that is not one of those supported."""
    listed = " and ".join([", ".join(f"'{value}'" for value in supported[:-1]), f"'{supported[-1]}'"]).removeprefix(
        " and "
    )
    return RequestError(f"Invalid value: '{given}'. Supported values are: {listed}.", param=param, code="invalid_value")
