"""Errors of the HTTP API, in OpenAI's shape: {"error": {message, type, param, code}}.

Source: https://platform.openai.com/docs/guides/error-codes
"""

import math
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "service_unavailable_error",
}


CAUSES = frozenset(
    {
        *("missing_api_key", "invalid_api_key", "too_many_invalid_keys", "may_not_join"),
        *("model_not_found", "model_not_allowed"),
        *("requests_per_minute", "tokens_per_minute", "concurrent_streams", "usd_per_day"),
        *("invalid_value", "missing_required_parameter", "unknown_parameter"),
        *("unsupported_parameter", "unsupported_content", "context_length_exceeded"),
        *("overloaded", "model_busy", "poison_request", "stream_lost"),
    }
)
"""Codes of our own: those of other servers are as many as they like, and no label for a metric."""


def kind_of(status: int) -> str:
    return _TYPES.get(status, "server_error")


class ApiError(Exception):
    """Ends a request with a status and a sentence."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def cause(self) -> str:
        """What operators see it counted under."""
        return self.code if self.code in CAUSES else kind_of(self.status)

    def body(self) -> dict[str, Any]:
        kind = kind_of(self.status)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


def sentence(message: str) -> str:
    """An engine's message with a capital and a full stop; a field's name keeps its letters."""
    first_word = message.split(" ", 1)[0]
    is_name = not first_word.isalpha()
    return (message if is_name else message[:1].upper() + message[1:]).rstrip(".") + "."
