"""What an answer from a server elsewhere used: as that server tells, estimated as long as it does
not. A client that leaves early never hears it, and some servers never tell.
"""

import math
from collections.abc import Mapping, Sequence

import orjson

from apps.serve.answer.choices import Usage

BYTES_PER_TOKEN = 4
"""OpenAI's rule of thumb for English, https://platform.openai.com/tokenizer; in UTF-8, so that a
Chinese character is most of a token"""
MESSAGE_TOKENS = 4
"""that a template puts around each message"""
PART_TOKENS = 765
"""of a picture of 1024 x 1024 in high detail, https://platform.openai.com/docs/guides/images"""


class Tally:
    """`usage` is right at any time, so that nothing has to be done when the request ends."""

    def __init__(self, request: Mapping[str, object]) -> None:
        """Before anything has come, the prompt is taken as read."""
        self.usage = Usage(prompt_estimate(request))
        self._is_told = False
        self._num_pieces = 0
        self._num_bytes = -_echoed_bytes(request)

    def take(self, body: Mapping[str, object]) -> None:
        """An answer, or a chunk of one. It has a token at least in each of its pieces."""
        told = told_usage(body)
        if told is not None:
            self._is_told = True
            self.usage.prompt_tokens = told.prompt_tokens
            self.usage.completion_tokens = told.completion_tokens
        for choice in choices_of(body):
            said = said_in(choice)
            self._num_pieces += bool(said)
            self._num_bytes += _num_bytes(said)
        if not self._is_told:
            self.usage.completion_tokens = max(self._num_pieces, _tokens(self._num_bytes))

    def nothing(self) -> None:
        """The server did not take the request."""
        self.usage.prompt_tokens = self.usage.completion_tokens = 0


def told_usage(body: Mapping[str, object]) -> Usage | None:
    """None where it tells none, or none that can be."""
    found = body.get("usage")
    if not isinstance(found, dict):
        return None
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens", 0)
    if type(prompt) is not int or type(completion) is not int or prompt < 1 or completion < 0:
        return None
    usage = Usage(prompt)
    usage.completion_tokens = completion
    return usage


def prompt_estimate(request: Mapping[str, object]) -> int:
    """Tokens of the messages or prompts of a request's body; token ids are counted as they are."""
    messages, prompt = request.get("messages"), request.get("prompt")
    if isinstance(messages, list):
        tools = [request[name] for name in ("tools", "functions") if request.get(name)]
        num_bytes = _num_bytes(orjson.dumps(tools).decode()) if tools else 0
        return _tokens(num_bytes) + sum(_message_tokens(message) for message in messages)
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if prompts and isinstance(prompts[0], int):
        return len(prompts)
    sizes = (len(p) if isinstance(p, list) else _tokens(_num_bytes(str(p))) for p in prompts)
    return sum(max(1, size) for size in sizes)


def choices_of(body: Mapping[str, object]) -> Sequence[dict[str, object]]:
    found = body.get("choices")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def said_in(choice: Mapping[str, object]) -> str:
    """All that the model wrote: text, thoughts, calls."""
    text = choice.get("text")
    found = [text] if isinstance(text, str) else []
    for name in ("delta", "message"):
        if isinstance(message := choice.get(name), dict):
            found += [_strings(value) for key, value in message.items() if key not in _NOT_SAID]
    return "".join(found)


def _echoed_bytes(request: Mapping[str, object]) -> int:
    """Of the prompt, which comes back before each answer."""
    prompt, n = request.get("prompt"), request.get("n")
    if not request.get("echo") or not isinstance(prompt, str):
        return 0
    return _num_bytes(prompt) * (n if isinstance(n, int) else 1)


_NOT_SAID = frozenset({"role", "id", "type", "index"})


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
    others = [p for p in parts if isinstance(p, dict) and p.get("type") not in _TEXTS]
    if others and isinstance(message, dict):
        message = {**message, "content": [part for part in parts if part not in others]}
    return MESSAGE_TOKENS + _tokens(_num_bytes(_strings(message))) + PART_TOKENS * len(others)


_TEXTS = ("text", "refusal")


def _num_bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def _tokens(num_bytes: int) -> int:
    return math.ceil(num_bytes / BYTES_PER_TOKEN)
