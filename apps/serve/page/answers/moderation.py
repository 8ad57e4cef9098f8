"""What reads questions before a model does, and answers while they come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from apps.common.errors import CriaError
from apps.common.files import config as configs
from apps.common.files.endpoints import EndpointSettings, read_key
from apps.common.text import lexicon
from apps.serve.page.config import PageConfig

QUESTION_BLOCKED = "This question was not sent: it is about something this page does not answer."
ANSWER_BLOCKED = "This answer was stopped: it went where this page does not go."
QUESTION_UNREAD = "Questions cannot be checked right now, so none is sent. Try again in a moment."
ANSWER_UNREAD = "This answer was stopped: answers cannot be checked right now. Try again."
_BLOCKED_FROM = 2
_TIMEOUT_S = 10.0


class UnreadError(CriaError):
    """The text could not be checked, so it may not be shown."""


class Moderator(Protocol):
    async def reason(self, text: str) -> str:
        """Why the text may not be shown, such as "lexicon:crime"; "" when it may. UnreadError."""
        ...

    async def close(self) -> None: ...


class NoModeration:
    async def reason(self, text: str) -> str:
        return ""

    async def close(self) -> None: ...


class LexiconModeration:
    """The word list of apps.common: profanity passes; what is explicit or criminal does not."""

    async def reason(self, text: str) -> str:
        worst = max(lexicon.find(text), key=lambda hit: hit.severity, default=None)
        if worst is None or worst.severity < _BLOCKED_FROM:
            return ""
        return f"lexicon:{worst.category}"

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """Source: https://platform.openai.com/docs/api-reference/moderations/object"""

    flagged: bool
    categories: dict[str, bool] = field(default_factory=dict)


class EndpointModeration:
    """OpenAI's moderation API, wherever it is; nothing passes while it does not answer."""

    def __init__(self, endpoint: EndpointSettings) -> None:
        key = read_key(endpoint.key_env)
        self._model = endpoint.model
        self._http = httpx.AsyncClient(
            base_url=f"{endpoint.base_url.rstrip('/')}/",
            headers={**endpoint.headers, **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    async def reason(self, text: str) -> str:
        body = {"input": text, **({"model": self._model} if self._model else {})}
        try:
            response = await self._http.post("moderations", json=body)
            response.raise_for_status()
            result = _result(response.json())
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, CriaError) as error:
            raise UnreadError("The moderation endpoint gave no answer.") from error
        if not result.flagged:
            return ""
        named = sorted(name for name, is_one in result.categories.items() if is_one)
        return f"endpoint:{','.join(named) or 'flagged'}"

    async def close(self) -> None:
        await self._http.aclose()


def _result(body: Mapping[str, list[Mapping[str, object]]]) -> _Result:
    first = body["results"][0]
    given = {name: first[name] for name in ("flagged", "categories") if name in first}
    return configs.from_dict(_Result, given)


def moderator(page: PageConfig) -> Moderator:
    if page.moderation == "endpoint" and page.moderation_endpoint:
        return EndpointModeration(page.moderation_endpoint)
    return LexiconModeration() if page.moderation == "lexicon" else NoModeration()
