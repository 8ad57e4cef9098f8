"""Tokens of prompts and answers whose tokenizer is not known here: those of a server elsewhere."""

import math
from collections.abc import Mapping

import orjson

BYTES_PER_TOKEN = 4
"""OpenAI's rule of thumb for English, https://platform.openai.com/tokenizer; in UTF-8, so that a
Chinese character is most of a token"""
MESSAGE_TOKENS = 4
"""that a template puts around each message"""
PART_TOKENS = 765
"""of a picture of 1024 x 1024 in high detail, https://platform.openai.com/docs/guides/images"""
_NOT_SAID = frozenset({"role", "id", "type", "index"})
_TEXTS = ("text", "refusal")


def prompt_estimate(request: Mapping[str, object]) -> int:
    """Tokens of the messages or prompts of a request's body; token ids are counted as they are."""
    messages = request.get("messages")
    if isinstance(messages, list):
        tools = [request[name] for name in ("tools", "functions") if request.get(name)]
        num_bytes = size_bytes(orjson.dumps(tools).decode()) if tools else 0
        return tokens_of_bytes(num_bytes) + sum(_message_tokens(message) for message in messages)
    return sum(max(1, tokens_of_bytes(_prompt_bytes(one))) for one in _prompts(request))


def tokens_of_bytes(num_bytes: int) -> int:
    return math.ceil(num_bytes / BYTES_PER_TOKEN)


def echoed_bytes(request: Mapping[str, object]) -> int:
    """Of the prompts, each of which comes back before each of its answers."""
    if not request.get("echo"):
        return 0
    n = request.get("n")
    num_bytes = sum(_prompt_bytes(one) for one in _prompts(request))
    return num_bytes * (n if isinstance(n, int) else 1)


def said_in(choice: Mapping[str, object]) -> str:
    """All that the model wrote: text, thoughts, calls."""
    text = choice.get("text")
    found = [text] if isinstance(text, str) else []
    for name in ("delta", "message"):
        if isinstance(message := choice.get(name), dict):
            found += [_strings(value) for key, value in message.items() if key not in _NOT_SAID]
    return "".join(found)


def size_bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _prompts(request: Mapping[str, object]) -> list[object]:
    """Each a text, or a list of token ids: `[1, 2]` is one prompt, `["a", "b"]` and
    `[[1], [2]]` are two."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and not (prompt and isinstance(prompt[0], int)):
        return prompt
    return [prompt]


def _prompt_bytes(prompt: object) -> int:
    if isinstance(prompt, list):
        return BYTES_PER_TOKEN * len(prompt)
    return size_bytes(str(prompt))


def _strings(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_strings(one) for one in value)
    if isinstance(value, dict):
        return "".join(_strings(one) for key, one in value.items() if key not in _NOT_SAID)
    return ""


def _message_tokens(message: object) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else []
    others = [part for part in parts if _is_other(part)]
    if others and isinstance(message, dict):
        message = {**message, "content": [part for part in parts if not _is_other(part)]}
    return (
        MESSAGE_TOKENS + tokens_of_bytes(size_bytes(_strings(message))) + PART_TOKENS * len(others)
    )


def _is_other(part: object) -> bool:
    """A picture, sound or file: its bytes say little about its tokens."""
    return isinstance(part, dict) and part.get("type") not in _TEXTS
