"""Reading a request's body: bounded before it is parsed, checked before it is used."""

import asyncio
import re
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from apps.serve.config import GatewayConfig
from apps.serve.errors import ApiError
from apps.serve.gateway.account import CLIENT_LEFT

B = TypeVar("B", bound=BaseModel)
Settings = Callable[[], GatewayConfig]
"""read at every request, so that a changed file holds at once"""

_SHORT = reprlib.Repr()  # of values of any size
_SHORT.maxstring = 80
_TAGGED_LIST = re.compile(r"(^messages|\.content)\[\d+\]$")


async def read_body(request: Request, model: type[B], limits: GatewayConfig) -> B:
    """The parsed body. Raises ApiError 408 (too slow), 413 (too large), 415 or 400 (not what is
    expected), CLIENT_LEFT."""
    # A page of another site may send what has no content type, and is asked for leave otherwise.
    unsaid = "nothing" if "origin" in request.headers else "application/json"
    kind = request.headers.get("content-type", unsaid).split(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"The content type is {kind[:64]!r}; expected application/json.")
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise ApiError(415, f"The content encoding is {coding[:64]!r}; send the body as it is.")
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            data = await _bounded(request, limits.max_body_bytes)
    except TimeoutError:
        raise ApiError(
            408, f"The body did not come whole within {limits.body_timeout_s:g} s."
        ) from None
    except ClientDisconnect:
        raise ApiError(CLIENT_LEFT, "The client left before its body had come whole.") from None
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ApiError(400, "The body is not a JSON object.")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _sentence(error) from None


async def _bounded(request: Request, max_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    too_large = ApiError(413, f"The body is larger than {max_bytes:,} bytes.")
    if not announced.isdigit() or int(announced) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def _sentence(error: ValidationError) -> ApiError:
    """The first problem as OpenAI words it, with the field's path."""
    first = _nearest(error.errors(include_url=False))
    path = _path(first["loc"])
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(first, path)
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        path = ".".join(part for part in (_path(tuple(parents)), str(name)) if part)
        return ApiError(400, f"Unknown parameter: {path!r}.", param=path, code="unknown_parameter")
    if first["type"] == "missing":
        return _missing(path)
    shown = _SHORT.repr(first["input"])
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    reason = first["msg"].removeprefix("Value error, ")
    return ApiError(
        400, f"Invalid {path!r}: {reason} (got {shown}).", param=path, code="invalid_value"
    )


def _wrong_kind(problem: Any, path: str) -> ApiError:
    """Of what may be several things, told apart by one field: a message by its role."""
    context = problem["ctx"]
    path += f".{context['discriminator'].strip(chr(39))}"
    if problem["type"] == "union_tag_not_found":
        return _missing(path)
    kinds, given = context["expected_tags"], _SHORT.repr(context["tag"])
    message = f"Invalid {path!r}: expected one of {kinds} (got {given})."
    return ApiError(400, message, param=path, code="invalid_value")


def _missing(path: str) -> ApiError:
    message = f"Missing required parameter: {path!r}."
    return ApiError(400, message, param=path, code="missing_required_parameter")


def _nearest(problems: list[Any]) -> Any:
    """The first problem; of a field that may be several things, the one that came farthest."""
    field = _path(problems[0]["loc"])
    same = [problem for problem in problems if _path(problem["loc"]).startswith(field)]

    def depth(problem: Any) -> tuple[list[int], int]:
        place = problem["loc"]
        return [n for n in place if isinstance(n, int)], _path(place).count(".")

    return max(same, key=depth)


def _path(location: tuple[Any, ...]) -> str:
    """messages[0].content, without the validator's own names for the members of a union."""
    text, is_tag = "", False
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
            is_tag = _TAGGED_LIST.search(text) is not None
        elif not part.isidentifier() or part[0].isupper():
            continue
        elif is_tag:
            is_tag = False
        else:
            text += f".{part}" if text else part
            is_tag = text == "response_format"
    return text


def request_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The body's JSON schema, for the OpenAPI document."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(schema)}},
        }
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without references; none of ours is recursive."""
    definitions = schema.pop("$defs", {})

    def expand(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return expand(definitions[node["$ref"].rsplit("/", 1)[1]])
            kept = {key: expand(value) for key, value in node.items() if key != "discriminator"}
            return kept
        return [expand(item) for item in node] if isinstance(node, list) else node

    return expand(schema)
