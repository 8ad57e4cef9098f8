"""What the calls of a plan will take, before any is made."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.eval.config import JudgeConfig
from apps.eval.judging.call import Call
from apps.eval.judging.offline import is_offline
from apps.eval.judging.prices import Price

# What a judgment is long on average, as a share of the most it may be: 130 of 1,024 tokens in the
# 320 public GPT-4 reviews.
TYPICAL_LENGTH_SHARE = 0.13
# GPT-4-class judges write about 40 tokens a second after half a second.
FIRST_TOKEN_S, TOKENS_PER_S = 0.5, 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What the calls still to be made will take."""

    calls: int
    stored: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    usd_at_most: float | None
    minutes: float


def estimate_calls(
    config: JudgeConfig, calls: Sequence[Call], stored: int, prices: dict[str, Price | None]
) -> Estimate:
    """Of the calls that are still to be made; offline ones are free and take no time."""
    paid = [call for call in calls if not is_offline(call.judge)]
    prompt = sum(call.prompt_tokens_estimate() for call in paid)
    completion = sum(_typical(call) for call in paid)
    usd = at_most = None
    known = [(call, price) for call in calls if (price := prices[call.judge])]
    if len(known) == len(calls):
        usd = sum(price.usd(c.prompt_tokens_estimate(), _typical(c)) for c, price in known)
        at_most = sum(price.usd(c.prompt_tokens_bound(), c.max_tokens) for c, price in known)
    mean_s = FIRST_TOKEN_S + completion / max(1, len(paid)) / TOKENS_PER_S
    return Estimate(
        calls=len(calls),
        stored=stored,
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=usd,
        usd_at_most=at_most,
        minutes=max(
            len(paid) * mean_s / config.concurrency / 60,
            len(paid) / config.requests_per_min,
            (prompt + completion) / config.tokens_per_min,
        ),
    )


def _typical(call: Call) -> int:
    return int(call.max_tokens * TYPICAL_LENGTH_SHARE)
