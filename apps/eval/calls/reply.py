"""What came back from an endpoint, whatever its API."""

import re
from dataclasses import dataclass

# Reasoning models that no server has parsed write their thoughts into the text.
_TAGGED = re.compile(
    r"\A\s*<(think|thinking|thought|reasoning)>(.*?)</\1>\s*", re.IGNORECASE | re.DOTALL
)
# Some servers put the opening tag into the prompt, so that only the closing one comes back.
_CLOSED = re.compile(r"\A((?:(?!<think).)*?)</think>\s*", re.IGNORECASE | re.DOTALL)
_OPEN = re.compile(r"\A\s*<(?:think|thinking|thought|reasoning)>(.*)\Z", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    text: str
    finish_reason: str
    """stop, length or content_filter; other words of the endpoint as they are"""
    prompt_tokens: int | None = None
    """None where the endpoint did not say, or said what no count can be"""
    completion_tokens: int | None = None
    endpoint_model: str = ""
    fingerprint: str | None = None
    thoughts: str = ""
    """what a reasoning model's API gave beside the text"""
    was_filtered: bool = False
    """the endpoint kept the prompt from the model; the text is the endpoint's"""

    def used_tokens(self, otherwise: int) -> int:
        """Tokens in all, or `otherwise` where the endpoint did not count them."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return otherwise
        return self.prompt_tokens + self.completion_tokens


def part_thoughts(text: str) -> tuple[str, str]:
    """(thoughts, text): the leading `<think>` block of an answer, apart from what it says.

    "<think>hm</think>Hi."   ("hm", "Hi.")
    "hm</think>Hi."          ("hm", "Hi.")
    "<think>hm"              ("hm", "")        cut before it answered
    "Use <think> tags."      ("", "Use <think> tags.")
    """
    for pattern, place in ((_TAGGED, 2), (_CLOSED, 1), (_OPEN, 1)):
        if match := pattern.match(text):
            return match[place].strip(), text[match.end() :]
    return "", text
