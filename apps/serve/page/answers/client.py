"""The page's way to the models: the same OpenAI API that every other client uses.

What an API says of an error is for its operator: it may hold paths, keys or a hidden model's name.
A visitor gets one of our own sentences.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from apps.common.errors import CriaError
from apps.common.files.endpoints import read_key
from apps.serve.client import lines_of
from apps.serve.page.store.text import split_half, storable

_BUSY = "The models are busy right now. Try again in a moment."
_SENTENCES = {
    400: "The model cannot take this question: it is too long, or a setting is out of range.",
    401: "This page may not ask the models right now. Its operator has to mend its key.",
    403: "This page may not ask the models right now. Its operator has to mend its key.",
    404: "This model is not up right now. Choose another, or try again in a moment.",
    413: "The conversation has become too long for the model. Begin a new one.",
    429: _BUSY,
    503: _BUSY,
}
_PASSING = (404, 408, 429, 500, 502, 503, 504)
"""what a stream that has begun meets while gateways or models come back; 400 is for ever"""
_FAILED = "The model could not answer. Try again."
_TOO_LONG = "context_length_exceeded"
_CONNECT_S, _SILENCE_S = 10.0, 180.0
_LIST_SILENCE_S = 10.0
"""a list of models takes no thought, and every visitor's first page waits for it"""


class AnswerError(CriaError):
    """Why there is no answer, in a sentence for the person who asked."""


class KeyRefusedError(AnswerError):
    """The API does not take this page's key, which no waiting mends."""


class StreamLost(AnswerError):
    """The way to the answer ended before the answer did; the API may still have the rest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What one event of a stream added."""

    text: str = ""
    event_id: str = ""
    """of the API that numbers its events; sent back, the stream goes on behind it"""
    finish_reason: str = ""
    completion_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model that is up, as the API describes it."""

    name: str
    context_tokens: int | None


class ChatClient:
    """Streams answers. `api_key_env` names the variable that holds the page's key."""

    def __init__(self, api_url: str, api_key_env: str) -> None:
        key = read_key(api_key_env)
        self._http = httpx.AsyncClient(
            base_url=f"{api_url}/",
            headers={"Authorization": f"Bearer {key or 'none'}"},
            timeout=httpx.Timeout(_CONNECT_S, read=_SILENCE_S),
            # No connection is used twice: a server that closes an idle one at the moment it is used
            # again would cost a question its answer. Connecting to this host takes a millisecond.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def models(self) -> list[ModelInfo]:
        """The models that are up; raises AnswerError when the API cannot be reached."""
        try:
            response = await self._http.get("models", timeout=_LIST_SILENCE_S)
            if response.status_code in (401, 403):
                raise KeyRefusedError(_SENTENCES[response.status_code])
            if response.status_code != 200:
                raise AnswerError(_SENTENCES.get(response.status_code, _FAILED))
            return [
                ModelInfo(name=model["id"], context_tokens=model.get("context_tokens"))
                for model in response.json()["data"]
            ]
        except httpx.HTTPError as error:
            raise AnswerError(_BUSY) from error
        except (ValueError, KeyError, TypeError) as error:
            raise AnswerError(_FAILED) from error

    async def stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        settings: Mapping[str, object],
        last_event: str = "",
    ) -> AsyncGenerator[Piece, None]:
        """The answer piece by piece, behind `last_event`; leaving early stops the generation.

        Raises AnswerError, StreamLost where asking again may bring the rest.
        """
        body = {
            **settings,
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "break_role_marks": True,
        }
        headers = {"Last-Event-ID": last_event} if last_event else {}
        try:
            async with self._http.stream(
                "POST", "chat/completions", json=body, headers=headers
            ) as response:
                if response.status_code != 200:
                    kind = StreamLost if response.status_code in _PASSING else AnswerError
                    raise kind(_sentence(response.status_code, await response.aread()))
                async for piece in _pieces(response):
                    yield piece
        except httpx.HTTPError as error:
            raise StreamLost(_FAILED) from error
        except (httpx.StreamError, ValueError, KeyError, TypeError) as error:
            raise AnswerError(_FAILED) from error


async def _pieces(response: httpx.Response) -> AsyncGenerator[Piece, None]:
    """An event ends with an empty line: its id may stand before its data or behind them."""
    event_id = payload = half = ""
    async for line in lines_of(response):
        if line.startswith("id:"):
            event_id = line[3:].strip()
        elif line.startswith("data:"):
            payload = line[5:].strip()
        elif not line and payload:
            if payload == "[DONE]":
                return
            piece = _piece(json.loads(payload), event_id)
            text, half = split_half(half + piece.text)
            yield replace(piece, text=storable(text))
            payload = ""
    raise StreamLost(_FAILED)


def _piece(event: Mapping[str, Any], event_id: str) -> Piece:
    if "error" in event:
        raise AnswerError(_FAILED)
    choice = event["choices"][0] if event.get("choices") else {}
    return Piece(
        text=(choice.get("delta") or {}).get("content") or "",
        event_id=event_id,
        finish_reason=choice.get("finish_reason") or "",
        completion_tokens=(event.get("usage") or {}).get("completion_tokens"),
    )


def _sentence(status: int, body: bytes) -> str:
    if status == 400 and _TOO_LONG.encode() in body:
        return _SENTENCES[413]
    return _SENTENCES.get(status, _FAILED)
