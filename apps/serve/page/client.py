"""The page's way to the models: the same OpenAI API that every other client uses."""

import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import openai

_YIELD_EVERY_S = 0.04  # the browser cannot show more often than this without falling behind


class AnswerError(Exception):
    """Why there is no answer, in a sentence for the person who asked."""


class ChatClient:
    """Streams answers. `api_key_env` names the variable that holds the page's key."""

    def __init__(self, api_url: str, api_key_env: str) -> None:
        key = os.environ.get(api_key_env, "") if api_key_env else ""
        self._api_url = api_url
        self._openai = openai.AsyncOpenAI(
            base_url=api_url, api_key=key or "none", max_retries=1, timeout=600
        )

    async def close(self) -> None:
        await self._openai.close()

    async def models(self) -> list[str]:
        """Names of the models that are up; raises AnswerError when the API cannot be reached."""
        try:
            return [model.id for model in (await self._openai.models.list()).data]
        except openai.OpenAIError as error:
            raise self._sentence(error) from error

    async def some_model(self) -> str:
        """For a question that was asked before a model was chosen."""
        names = await self.models()
        if not names:
            raise AnswerError("No model is up yet. Wait a moment and try again.")
        return names[-1]

    async def stream(
        self, model: str, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> AsyncGenerator[str, None]:
        """The answer so far, again and again. Leaving early stops the generation."""
        text, shown_s = "", 0.0
        try:
            stream: Any = await self._openai.chat.completions.create(
                model=model, messages=cast(Any, list(messages)), stream=True, **settings
            )
            async with stream:
                async for chunk in stream:
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
                    if text and time.monotonic() - shown_s >= _YIELD_EVERY_S:
                        yield text
                        shown_s = time.monotonic()
        except openai.OpenAIError as error:
            raise self._sentence(error) from error
        yield text

    def _sentence(self, error: openai.OpenAIError) -> AnswerError:
        if isinstance(error, openai.APITimeoutError):
            return AnswerError("The model did not answer in time. Try again.")
        if isinstance(error, openai.APIConnectionError):
            return AnswerError(f"The API at {self._api_url} cannot be reached. Is it running?")
        if isinstance(error, openai.APIError):
            body = error.body if isinstance(error.body, dict) else {}
            return AnswerError(str(body.get("message") or error.message))
        return AnswerError(str(error))
