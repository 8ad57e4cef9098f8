"""The three APIs of chat completions: where a request goes, what it looks like, what comes back.

OpenAI     POST {base}/chat/completions, `Authorization: Bearer`
Azure      the same under /openai/deployments/<name>, `api-key`, and `api-version` in the query
           (learn.microsoft.com/azure/ai-services/openai/reference)
Anthropic  POST {base}/messages, `x-api-key`, the system prompt apart
           (docs.anthropic.com/en/api/messages)
"""

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from apps.common.files.endpoints import Style
from apps.common.json_value import JsonObject, JsonValue
from apps.eval.calls.lines import Message, Parameters
from apps.eval.calls.reply import Reply, plain_reason
from apps.eval.calls.usage import anthropic_counts, openai_counts

OPENAI_URL = "https://api.openai.com/v1"
AZURE_VERSION = "2024-10-21"
ANTHROPIC_VERSION = "2023-06-01"
_ANTHROPIC_PARAMETERS = ("max_tokens", "temperature", "top_p", "top_k", "stop_sequences")


def url(style: Style, base_url: str | None, model: str) -> str:
    """Where a chat completion is posted; a query in the base stays behind the path."""
    scheme, host, path, query, _ = urlsplit(base_url or OPENAI_URL)
    path = path.rstrip("/")
    if style == "anthropic":
        return urlunsplit((scheme, host, f"{path}/messages", query, ""))
    if style == "azure":
        if "/deployments/" not in path:
            path = f"{path.removesuffix('/v1').removesuffix('/openai')}/openai/deployments/{model}"
        query = query or f"api-version={AZURE_VERSION}"
    return urlunsplit((scheme, host, f"{path}/chat/completions", query, ""))


def shown_url(base_url: str | None) -> str:
    """An endpoint's address for people: without a password or a query, which may hold a key."""
    scheme, host, path, *_ = urlsplit(base_url or OPENAI_URL)
    return urlunsplit((scheme, host.rpartition("@")[2], path, "", ""))


def headers(style: Style, api_key: str | None) -> dict[str, str]:
    if style == "anthropic":
        version = {"anthropic-version": ANTHROPIC_VERSION}
        return {**version, "x-api-key": api_key} if api_key else version
    if api_key is None:
        return {}
    return {"api-key": api_key} if style == "azure" else {"Authorization": f"Bearer {api_key}"}


def body(
    style: Style, model: str, messages: Sequence[Message], parameters: Parameters
) -> dict[str, object]:
    if style != "anthropic":
        return {"model": model, "messages": list(messages), **parameters}
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    return {
        "model": model,
        "messages": [m for m in messages if m["role"] != "system"],
        **({"system": system} if system else {}),
        **{name: value for name, value in parameters.items() if name in _ANTHROPIC_PARAMETERS},
    }


def reply(style: Style, said: JsonValue) -> Reply:
    """The reply in a response's JSON; raises TypeError or the like for anything else."""
    payload = _object(said)
    if style == "anthropic":
        return _anthropic_reply(payload)
    choices = _list(payload["choices"])
    if not choices:
        raise ValueError("its choices are empty")
    choice = _object(choices[0])
    is_filtered = plain_reason(str(choice.get("finish_reason"))) == "content_filter"
    # Gemini gives no message where it wrote none.
    message = _object((choice.get("message") or {}) if is_filtered else choice["message"])
    refusal = message.get("refusal")
    text, thoughts = _parts(message.get("content"))
    prompt_tokens, completion_tokens = openai_counts(payload.get("usage"))
    return Reply(
        text=text or str(refusal or ""),
        thoughts=thoughts
        or str(message.get("reasoning_content") or message.get("reasoning") or ""),
        finish_reason="content_filter" if refusal else _openai_reason(choice, message, text),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        endpoint_model=str(payload.get("model")),
        fingerprint=_text_or_none(payload.get("system_fingerprint")),
    )


def _openai_reason(choice: JsonObject, message: JsonObject, text: str) -> str:
    """Why it ended. Some endpoints say `stop` of a call of a tool in place of a text too."""
    if not text and (message.get("tool_calls") or message.get("function_call")):
        return "tool_calls"
    return str(choice.get("finish_reason") or "stop")


def _anthropic_reply(payload: JsonObject) -> Reply:
    text, thoughts = _parts(payload["content"])
    reason = str(payload.get("stop_reason") or "end_turn")
    prompt_tokens, completion_tokens = anthropic_counts(payload.get("usage"))
    return Reply(
        text=text,
        thoughts=thoughts,
        finish_reason=plain_reason(reason),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        endpoint_model=str(payload.get("model")),
    )


def _parts(content: JsonValue) -> tuple[str, str]:
    """(text, thoughts) of a message's content: a text, or a list of typed parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    texts, thoughts = list[str](), list[str]()
    for part in map(_object, _list(content)):
        if part["type"] in ("thinking", "reasoning"):
            thoughts.append(_thought(part))
        elif part["type"] in ("text", "output_text"):
            texts.append(str(part["text"]))
        elif part["type"] == "refusal":
            texts.append(str(part["refusal"]))
    return "".join(texts), "".join(thoughts)


def _thought(part: JsonObject) -> str:
    """A thinking part's text, which may be a list of parts itself."""
    inner = part.get("thinking") or part.get("reasoning") or part.get("text") or ""
    return inner if isinstance(inner, str) else _parts(inner)[0]


def _object(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError(f"{str(value)[:60]!r} is not an object")
    return value


def _list(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:60]!r} is not a list")
    return value


def _text_or_none(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
