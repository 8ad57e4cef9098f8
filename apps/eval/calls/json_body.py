"""The JSON of a response, and the error that it may hold under any status.

    {"error": {"message", "code"}}           platform.openai.com/docs/guides/error-codes
    {"type": "error", "error": {"type"}}     docs.anthropic.com/en/api/errors
    {"object": "error", "message"}           FastChat and older vLLM

Routers such as OpenRouter say the first under 200 too. Where a reply broke off, the error stands
inside its first choice.
"""

import json
import re
from typing import cast

import orjson

from apps.common.json_value import JsonObject, JsonValue
from apps.eval.calls.reply import plain_reason

EXCERPT = 300
"""letters of an endpoint's own words that are kept"""
# The status that an error's name stands for, where a body under 200 has no number.
_STATUSES = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "insufficient_quota": 402,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "not_found": 404,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "unavailable": 503,
    "overloaded_error": 529,
}
_UNNAMED = 500


def load(data: bytes) -> JsonValue:
    """Like orjson, but halves of surrogate pairs and wrong UTF-8 become U+FFFD; ValueError."""
    try:
        return cast(JsonValue, orjson.loads(data))
    except orjson.JSONDecodeError:
        pass
    try:
        read = json.loads(data.decode("utf-8-sig", "replace"))
        # Python's own text may hold half a pair, which no file and no request can.
        whole = json.dumps(read, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        return cast(JsonValue, json.loads(whole.decode("utf-16-le", "replace")))
    except RecursionError:
        raise ValueError("its JSON is too deep") from None
    except ValueError:
        raise ValueError("no JSON") from None


def stated_status(status: int, data: bytes) -> int:
    """The status that a body says, where it holds an error under a success."""
    if status >= 300 or b'"error"' not in data:
        return status
    try:
        said = load(data)
    except ValueError:
        return status
    if not isinstance(said, dict):
        return status
    if said.get("choices") or said.get("content"):
        return status
    error = _error_of(said)
    if error is None:
        return status
    return _status_of(error) if isinstance(error, dict) else _UNNAMED


def told(data: bytes) -> tuple[str, str | None]:
    """The message and the code of an error's body, whatever its form."""
    try:
        said = load(data)
    except ValueError:
        return excerpt(data), None
    return _told_in(_error_of(said) or said if isinstance(said, dict) else said)


def _told_in(error: JsonValue) -> tuple[str, str | None]:
    """The message and the code of an error: an object, or a text alone."""
    if not isinstance(error, dict):
        return _short(str(error)), None
    message = str(error.get("message") or error)
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        message = f"{message}: {metadata['raw']}"  # what the provider behind a router said
    code = error.get("code") or error.get("type")
    return _short(message), str(code) if code else None


def broke_off(said: JsonValue) -> str | None:
    """Why a success holds no whole reply, where the endpoint says that it failed midway."""
    if not isinstance(said, dict):
        return None
    choices = said.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    end = choice if isinstance(choice, dict) else said
    if error := end.get("error") or said.get("error"):
        return _told_in(error)[0]
    reason = str(end.get("finish_reason") or end.get("stop_reason"))
    return f"finish_reason {reason!r}" if plain_reason(reason) == "error" else None


def excerpt(data: bytes) -> str:
    """The start of a body, on one line."""
    return _short(data.decode(errors="replace")) or "an empty body"


def _short(text: str) -> str:
    return " ".join(text.split())[:EXCERPT]


def _error_of(said: JsonObject) -> JsonValue:
    return said if said.get("object") == "error" else said.get("error")


def _status_of(error: JsonObject) -> int:
    names = [error.get(field) for field in ("code", "status", "status_code", "type")]
    for name in names:
        if re.fullmatch("[45][0-9]{2}", str(name)):
            return int(str(name))
    known = [_STATUSES[str(name).lower()] for name in names if str(name).lower() in _STATUSES]
    return known[0] if known else _UNNAMED
