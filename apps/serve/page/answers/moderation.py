"""What reads questions before a model does, and answers while they come."""

from typing import Literal, Protocol

from apps.common.text import lexicon

QUESTION_BLOCKED = "This question was not sent: it is about something this page does not answer."
ANSWER_BLOCKED = "This answer was stopped: it went where this page does not go."
_BLOCKED_FROM = 2


class Moderator(Protocol):
    async def reason(self, text: str) -> str:
        """Why the text may not be shown, such as "lexicon:crime"; "" when it may."""
        ...


class NoModeration:
    async def reason(self, text: str) -> str:
        return ""


class LexiconModeration:
    """The word list of apps.common: profanity passes; what is explicit or criminal does not."""

    async def reason(self, text: str) -> str:
        worst = max(lexicon.find(text), key=lambda hit: hit.severity, default=None)
        if worst is None or worst.severity < _BLOCKED_FROM:
            return ""
        return f"lexicon:{worst.category}"


def moderator(kind: Literal["none", "lexicon"]) -> Moderator:
    return LexiconModeration() if kind == "lexicon" else NoModeration()
