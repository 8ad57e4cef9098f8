"""What a response is charged: by the endpoint's count where it can be true, else the bound.

An endpoint's count is its own word. One that is missing, or that is less than half the words of
the text, is no count, and the call is charged what was reserved for it. One that can be true is
what the report shows. The budget is charged at least what the text itself must have cost. So a
count that is somewhat too low does not stretch `--max-usd`, nor does a text beyond `max_tokens`.

    prompt of 400 words, 2,000 letters    reported    shown and charged
                                          520         520, 520
                                          310         310, 500 (four letters a token)
                                          0, -3, "x"  the bound: 2,000 and some, a token a byte

Thinking that only the total shows is a part of the completion (calls/usage.py), and counts that
contradict each other are none.

Spending by the true count stays within the budget if the endpoint keeps to `max_tokens` and its
tokenizer makes no more tokens than bytes. What one costs that does not keep to it is charged as it
counts, and its next calls reserve as much (calls/budget.py). What an endpoint thinks in secret and
reports nowhere it can hide.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from apps.eval.calls.lines import Usage
from apps.eval.calls.reply import Reply
from apps.eval.judging.prices import Price

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    usage: Usage
    usd: float
    """by the endpoint's count, or the bound"""
    charged_usd: float
    """what the budget is charged, at least `usd`"""
    is_estimated: bool
    """the endpoint gave no count that can be true"""


def charge(
    reply: Reply, prompt: Iterable[str], usage_at_most: Usage, price: Price | None
) -> Charge:
    """`usage_at_most` is what was reserved; without a price everything is free."""
    said, asked = [reply.thoughts, reply.text], list(prompt)
    prompt_tokens, completion_tokens = reply.prompt_tokens, reply.completion_tokens
    likely: Usage = {"prompt_tokens": _likely(asked), "completion_tokens": _likely(said)}
    if prompt_tokens is None or completion_tokens is None:
        return _bound(_more_of(usage_at_most, likely), price)
    if prompt_tokens < _fewest(asked) or completion_tokens < _fewest(said):
        return _bound(_more_of(usage_at_most, likely), price)
    usage: Usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    likely = _more_of(usage, likely)
    return Charge(
        usage=usage, usd=_usd(usage, price), charged_usd=_usd(likely, price), is_estimated=False
    )


def filtered_charge(usage_at_most: Usage, price: Price | None) -> Charge:
    """A request that a content filter refused: its prompt may be billed, and nothing else."""
    return _bound({**usage_at_most, "completion_tokens": 0}, price)


def _bound(usage: Usage, price: Price | None) -> Charge:
    usd = _usd(usage, price)
    return Charge(usage=usage, usd=usd, charged_usd=usd, is_estimated=True)


def _more_of(one: Usage, other: Usage) -> Usage:
    return {
        "prompt_tokens": max(one["prompt_tokens"], other["prompt_tokens"]),
        "completion_tokens": max(one["completion_tokens"], other["completion_tokens"]),
    }


def _usd(usage: Usage, price: Price | None) -> float:
    return price.usd(usage["prompt_tokens"], usage["completion_tokens"]) if price else 0.0


def _fewest(texts: Iterable[str]) -> int:
    """Tokenizers split at the edges of words; half of them leaves room for those that do not."""
    return sum(1 for text in texts for _ in _WORD.finditer(text)) // 2


def _likely(texts: Iterable[str]) -> int:
    """Four ASCII letters a token, two of other scripts."""
    tokens = 0
    for text in texts:
        num_ascii = len(text.encode("ascii", "ignore"))
        tokens += -(-num_ascii // 4) + (len(text) - num_ascii) // 2
    return tokens
