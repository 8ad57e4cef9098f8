"""One planned judge call: what is asked, about whom, under which key its response is stored."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from apps.eval.calls.lines import Bound, Message, Parameters, ResponseLine, Usage
from apps.eval.calls.reply import Reply
from apps.eval.judging.charge import charge, filtered_charge
from apps.eval.judging.offline import ReferenceCheck
from apps.eval.judging.prices import Price
from apps.eval.protocols.form import Form


def digest(*parts: object) -> str:
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
    judge_model: str = ""
    """what the judge's endpoint calls it, if not by its name"""
    messages: tuple[Message, ...]
    repair: tuple[Message, ...] = ()
    """its own unreadable verdict and a request for a readable one, sent after the messages"""
    parameters: Parameters
    """temperature, max_tokens and what else is sent to the judge"""
    form: Form
    """what its verdict is"""
    nonce: str
    answers_digest: str
    ask: int = 0
    """0 at first; a response that cannot be read is asked for again as 1, 2, ..."""
    is_equal: bool = False
    """the answers are the same: a tie, for which nobody is asked"""
    kind: str = "contest"
    """contest, canary (the better answer is known) or self (the same answer twice)"""
    reference_check: ReferenceCheck | None = None
    """for judges that compute"""

    @property
    def key(self) -> str:
        return digest(
            self._asked,
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
            self._asked, self.messages, self.answers_digest, self.order, self.repeat, self.turn
        )

    @property
    def _asked(self) -> str:
        is_named_alike = self.judge_model in ("", self.judge)
        return self.judge if is_named_alike else f"{self.judge}#{self.judge_model}"

    @property
    def is_longer(self) -> bool:
        """Whether it asks for what its token limit cut off, with more room."""
        return self.ask > 0 and not self.repair

    @property
    def sent_messages(self) -> tuple[Message, ...]:
        return self.messages + self.repair

    @property
    def prompt_bytes(self) -> int:
        return sum(len(message["content"].encode()) for message in self.sent_messages)

    @property
    def max_tokens(self) -> int:
        return cast(int, self.parameters["max_tokens"])

    def prompt_tokens_estimate(self) -> int:
        """English averages 4.3 bytes a token under GPT's tokenizers."""
        return int(self.prompt_bytes / 4.3) + 8 * len(self.sent_messages)

    def prompt_tokens_bound(self) -> int:
        """A byte-level tokenizer never makes more tokens than bytes; 16 a message for framing."""
        return self.prompt_bytes + 16 * len(self.sent_messages)

    def usage_at_most(self) -> Usage:
        return {"prompt_tokens": self.prompt_tokens_bound(), "completion_tokens": self.max_tokens}

    def usd_at_most(self, price: Price | None) -> float:
        """What the call can cost; 0 where no price is known."""
        return price.usd(self.prompt_tokens_bound(), self.max_tokens) if price else 0.0

    def bound(self, price: Price | None) -> Bound:
        return Bound(self.key, self.usd_at_most(price), self.judge)

    def response_line(self, reply: Reply, price: Price | None, created_s: float) -> ResponseLine:
        """The line of judgments/raw.jsonl."""
        if reply.was_filtered:
            cost = filtered_charge(self.usage_at_most(), price)
        else:
            prompt = [message["content"] for message in self.sent_messages]
            cost = charge(reply, prompt, self.usage_at_most(), price)
        line = self.free_line(reply, created_s)
        line["usage"], line["usd"] = cost.usage, cost.usd
        if cost.charged_usd > cost.usd:
            line["charged_usd"] = cost.charged_usd
        if cost.is_estimated:
            line["is_estimated"] = True
        return line

    def free_line(self, reply: Reply, created_s: float) -> ResponseLine:
        """The line of a judgment that was not paid for here."""
        line: ResponseLine = {
            "key": self.key,
            "protocol": self.protocol,
            "question_id": self.question_id,
            "models": list(self.models),
            "order": self.order,
            "repeat": self.repeat,
            "judge": self.judge,
            "request_digest": digest(self.sent_messages, self.parameters),
            "slot": self.slot,
            "turn": self.turn,
            "ask": self.ask,
            "kind": self.kind,
            "format": self.form.fmt,
            "nonce": self.nonce,
            "response_text": reply.text,
            "finish_reason": reply.finish_reason,
            "usage": {"prompt_tokens": 0, "completion_tokens": 0},
            "usd": 0.0,
            "created": created_s,
            "endpoint_model": reply.endpoint_model,
            "fingerprint": reply.fingerprint,
        }
        # What a parser must know beside the format, where it is not the usual.
        if (self.form.low, self.form.high) != (1.0, 10.0):
            line["scale"] = (self.form.low, self.form.high)
        if self.form.labels:
            line["labels"] = dict(self.form.labels)
        return line
