"""What a replica remembers of the answers it gave, for the gateway that comes after a lost one.

An answer is kept under the id of its sequence, `chatcmpl-...-0`, whatever attempt it is at. It is
given only to a request with the same prompt and parameters, told by their digest. A later attempt
takes the place of an earlier one, which a lost gateway may have left running.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from apps.serve.engine.protocol import FinishReason, Request, Step, TokenLogprob

KEPT_S = 60.0
"""after the last token"""
_MAX_KEPT = 10_000


@dataclass(slots=True)
class Kept:
    """The tokens of an answer so far."""

    digest: str
    attempt: str = ""
    """the request that adds to it"""
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    """of the last tokens; those that another replica generated are not known here"""
    finish_reason: FinishReason | None = None
    changed_s: float = 0.0


def request_digest(request: Request) -> str:
    """Equal for all attempts at one sequence."""
    values = (request.prompt_ids, request.params, request.cache_salt)
    return blake2b(orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS), digest_size=16).hexdigest()


def sequence_id(request_id: str) -> str:
    """chatcmpl-1-0.3fb2, an attempt, is of chatcmpl-1-0."""
    return request_id.rpartition(".")[0] or request_id


class KeptAnswers:
    def __init__(self) -> None:
        self._answers: OrderedDict[str, Kept] = OrderedDict()

    def begin(self, request: Request) -> str | None:
        """The id of the attempt whose place it takes, if that has not come to its end."""
        self._forget_old()
        name = sequence_id(request.id)
        before = self._answers.pop(name, None)
        kept = Kept(request_digest(request), request.id, list(request.generated_ids))
        kept.changed_s = time.monotonic()
        self._answers[name] = kept
        is_open = before is not None and before.finish_reason is None
        return before.attempt if before is not None and is_open else None

    def add(self, step: Step) -> None:
        name = sequence_id(step.request_id)
        kept = self._answers.get(name)
        if (
            kept is None
            or kept.attempt != step.request_id
            or step.finish_reason in ("cancelled", "error")
        ):
            return
        kept.token_ids += step.token_ids
        kept.logprobs += step.logprobs
        kept.finish_reason = step.finish_reason
        kept.changed_s = time.monotonic()
        self._answers.move_to_end(name)

    def find(self, name: str, digest: str) -> Kept | None:
        self._forget_old()
        kept = self._answers.get(name)
        return kept if kept is not None and kept.digest == digest else None

    def _forget_old(self) -> None:
        oldest_s = time.monotonic() - KEPT_S
        while self._answers:
            name, kept = next(iter(self._answers.items()))
            if kept.changed_s > oldest_s and len(self._answers) < _MAX_KEPT:
                return
            del self._answers[name]
