"""One planned judge call: what is asked, about whom, under which key its response is stored."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from apps.eval.calls.client import Reply
from apps.eval.calls.lines import Message, Parameters, ResponseLine
from apps.eval.judging.offline import ReferenceCheck
from apps.eval.judging.parsing import Format
from apps.eval.judging.prices import Price


def digest(*parts: Any) -> str:
    """blake2b-128 of a canonical JSON form."""
    return hashlib.blake2b(
        orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16
    ).hexdigest()


def answers_digest(models: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    """Of what is judged: who said what, turn by turn, in listed order."""
    return digest(list(models), [list(said) for said in texts])


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A judge call before it is sent. `models` is in listed order; `order` 1 shows them swapped."""

    protocol: str
    question_id: str
    category: str
    models: tuple[str, ...]
    order: int
    repeat: int
    turn: int
    judge: str
    messages: tuple[Message, ...]
    parameters: Parameters
    """temperature, max_tokens and what else is sent to the judge"""
    fmt: Format
    nonce: str
    answers_digest: str
    ask: int = 0
    """0 at first; a response that cannot be read is asked for again as 1, 2, ..."""
    kind: str = "contest"
    """contest, canary (the better answer is known) or self (the same answer twice)"""
    reference_check: ReferenceCheck | None = None
    """for judges that compute"""

    @property
    def key(self) -> str:
        return digest(
            self.judge,
            self.parameters,
            self.messages,
            self.answers_digest,
            self.order,
            self.repeat,
            self.ask,
        )

    @property
    def slot(self) -> str:
        """The same for all asks of one judgment."""
        return digest(
            self.judge, self.messages, self.answers_digest, self.order, self.repeat, self.turn
        )

    @property
    def prompt_bytes(self) -> int:
        return sum(len(message["content"].encode()) for message in self.messages)

    @property
    def max_tokens(self) -> int:
        return int(self.parameters["max_tokens"])

    def prompt_tokens_estimate(self) -> int:
        """English averages 4.3 bytes a token under GPT's tokenizers."""
        return int(self.prompt_bytes / 4.3) + 8 * len(self.messages)

    def prompt_tokens_bound(self) -> int:
        """A byte-level tokenizer never makes more tokens than bytes; 16 a message for framing."""
        return self.prompt_bytes + 16 * len(self.messages)

    def usd_at_most(self, price: Price | None) -> float:
        """What the call can cost; 0 where no price is known."""
        return price.usd(self.prompt_tokens_bound(), self.max_tokens) if price else 0.0

    def response_line(self, reply: Reply, price: Price | None, created_s: float) -> ResponseLine:
        """The line of judgments/raw.jsonl."""
        return {
            "key": self.key,
            "protocol": self.protocol,
            "question_id": self.question_id,
            "models": list(self.models),
            "order": self.order,
            "repeat": self.repeat,
            "judge": self.judge,
            "request_digest": digest(self.messages, self.parameters),
            "slot": self.slot,
            "turn": self.turn,
            "ask": self.ask,
            "kind": self.kind,
            "format": self.fmt,
            "nonce": self.nonce,
            "response_text": reply.text,
            "finish_reason": reply.finish_reason,
            "usage": {
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
            },
            "usd": price.usd(reply.prompt_tokens, reply.completion_tokens) if price else 0.0,
            "created": created_s,
            "endpoint_model": reply.endpoint_model,
            "fingerprint": reply.fingerprint,
        }
