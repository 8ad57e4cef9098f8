"""How many tokens an endpoint says it billed, with what it thought in secret.

    usage                                                       prompt, completion
    prompt 500, completion 20, total 520                        500, 20
    the same with reasoning_tokens 15                           500, 20     15 of the 20
    prompt 500, completion 20, total 2,520                      500, 2,020  Gemini's thinking
    the same with reasoning_tokens 2,000                        500, 2,020  xAI's
    prompt 500, completion 20, reasoning_tokens 2,000           500, 2,020  more than 20
    prompt 500, completion 20, total 510                        none        a contradiction

OpenAI counts thinking within `completion_tokens`
(platform.openai.com/docs/api-reference/chat/object); others bill it and leave it out there, and
only `total_tokens` shows it. Anthropic counts cached prompt tokens beside `input_tokens`
(docs.anthropic.com/en/docs/build-with-claude/prompt-caching).
"""

from apps.common.json_value import JsonValue

Counts = tuple[int | None, int | None]
"""(prompt, completion); None where the endpoint did not say, or said what no count can be"""
_NONE: Counts = (None, None)
_MOST = 10**9
"""tokens of one call; more is nonsense, which would end a budget for good"""


def openai_counts(usage: JsonValue) -> Counts:
    """Of a chat completion's `usage`, under other APIs' names too, as some proxies pass it on."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None and completion is None:
        prompt, completion = anthropic_counts(usage)
    if prompt is None or completion is None:
        return prompt, completion
    total = _count(usage, "total_tokens")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    thinking = _count(details, "reasoning_tokens") or 0
    if total is None:
        return prompt, completion if thinking <= completion else completion + thinking
    if total < prompt + completion or thinking > total - prompt:
        return _NONE
    return prompt, total - prompt


def anthropic_counts(usage: JsonValue) -> Counts:
    """Of a message's `usage`; thinking is within its output."""
    prompt, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if prompt is None:
        return None, completion
    cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
    return prompt + sum(_count(usage, name) or 0 for name in cached), completion


def _count(usage: JsonValue, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= _MOST else None
