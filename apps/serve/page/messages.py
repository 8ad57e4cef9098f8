"""Chat histories between Gradio's form and OpenAI's."""

from typing import Any

History = list[dict[str, Any]]

_FAILURE = "Could not answer"


def failure(reason: str) -> dict[str, Any]:
    """A message that tells the visitor why there is no answer; never sent to a model."""
    return {"role": "assistant", "content": reason, "metadata": {"title": _FAILURE}}


def text_of(message: dict[str, Any]) -> str:
    """The text of a message; Gradio gives content as a string or as a list of parts."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def plain_messages(history: History) -> History:
    """What a model is sent and what the browser keeps: role and text of the real turns."""
    return [
        {"role": message["role"], "content": text}
        for message in history
        if not (message.get("metadata") or {}).get("title") and (text := text_of(message))
    ]
