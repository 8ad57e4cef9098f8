"""Which conversation a request belongs to, told from what all of its turns begin with.

Nobody has to send an id. A chat's turns share everything up to their first question; a raw prompt
that grows shares its first tokens. Two conversations that begin alike count as one, which costs
nothing: their prefix is the same too.
"""

from collections.abc import Sequence
from hashlib import blake2b

import orjson

from apps.serve.request.schemas import ChatRequest, CompletionRequest

FIRST_TOKENS = 64
"""of a raw prompt: enough to tell users of one system prompt apart, few enough for a first turn"""


def chat_digest(body: ChatRequest) -> str:
    is_question = [message.role == "user" for message in body.messages]
    end = is_question.index(True) + 1 if True in is_question else len(is_question)
    first = [message.model_dump(exclude_none=True) for message in body.messages[:end]]
    return _digest(body.cache_salt, first)


def text_digest(body: CompletionRequest, prompt_ids: Sequence[int]) -> str:
    return _digest(body.cache_salt, list(prompt_ids[:FIRST_TOKENS]))


def _digest(salt: str | None, beginning: Sequence[object]) -> str:
    return blake2b(orjson.dumps([salt or "", beginning]), digest_size=16).hexdigest()
