"""Who speaks: the names that dumps give to the four roles."""

import functools
import re

_NAMES = {
    "system": ("system", "developer", "system_prompt"),
    "user": ("user", "human", "prompter", "person", "question", "client"),
    "assistant": ("assistant", "model", "ai", "bot", "chatbot", "llm", "answer", "response"),
    "tool": (
        *("tool", "function", "ipython", "observation", "tool_response", "function_response"),
        *("tool_result", "function_result"),
    ),
}
CALLS = frozenset(("function_call", "function-call", "tool_call", "tool_calls", "tool-call"))
"""An assistant's turn that is nothing but calls."""
ROLES = {name: role for role, names in _NAMES.items() for name in names}
_MODEL_NAME = re.compile(
    r"(?:chat[ _-]?gpt|gpt|claude|gemini|bard|bing|copilot|llama|mi[sx]tral|vicuna|alpaca|qwen"
    r"|deepseek|koala|dolly|grok)(?:(?:[ _.\-/]+[a-z0-9]|[0-9])[a-z0-9 _.\-]{0,30})?"
)


def role_of(name: object, more: dict[str, str]) -> str | None:
    """The role of a speaker's name; names of models speak for the assistant.

    `more` are a user's own names, which win. A number, true or false is a name that only they know.
    """
    if isinstance(name, int):
        return more.get(str(name).lower())
    if not isinstance(name, str):
        return None
    if not more:
        return _known(name)
    return more.get(name) or more.get(name.strip().lower()) or _known(name)


@functools.lru_cache(maxsize=1024)
def _known(name: str) -> str | None:
    plain = name.strip().lower()
    if plain not in ROLES and _MODEL_NAME.fullmatch(plain):
        return "assistant"
    return ROLES.get(plain)
