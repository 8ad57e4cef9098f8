"""What the calls of a plan will take, before any is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.call import Call
from apps.eval.judging.judges import Judge
from apps.eval.judging.offline import is_offline

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


def estimate_calls(calls: Sequence[Call], stored: int, judges: Mapping[str, Judge]) -> Estimate:
    """Of the calls that are still to be made; what no endpoint is asked is free."""
    paid = [call for call in calls if not is_offline(call.judge) and not call.is_equal]
    usd = at_most = None
    known = [(call, price) for call in paid if (price := judges[call.judge].price)]
    if len(known) == len(paid):
        usd = sum(price.usd(c.prompt_tokens_estimate(), _typical(c)) for c, price in known)
        at_most = sum(call.usd_at_most(price) for call, price in known)
    mine = {name: [call for call in paid if call.judge == name] for name in judges}
    return Estimate(
        calls=len(calls),
        stored=stored,
        prompt_tokens=sum(call.prompt_tokens_estimate() for call in paid),
        completion_tokens=sum(map(_typical, paid)),
        usd=usd,
        usd_at_most=at_most,
        minutes=max(
            (_minutes(mine[name], judge.limits) for name, judge in judges.items()), default=0.0
        ),
    )


def _minutes(calls: Sequence[Call], limits: Sequence[Limits]) -> float:
    """What one judge's calls take at the least, over all its endpoints together."""
    if not calls:
        return 0.0
    prompt = sum(call.prompt_tokens_estimate() for call in calls)
    completion = sum(map(_typical, calls))
    mean_s = FIRST_TOKEN_S + completion / len(calls) / TOKENS_PER_S
    return max(
        len(calls) * mean_s / sum(limit.concurrency for limit in limits) / 60,
        len(calls) / sum(limit.requests_per_min for limit in limits),
        (prompt + completion) / sum(limit.tokens_per_min for limit in limits),
    )


def _typical(call: Call) -> int:
    return int(call.max_tokens * TYPICAL_LENGTH_SHARE)
