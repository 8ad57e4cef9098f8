"""What a plan's calls will take, by public reviews or by what its judges have taken so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from apps.eval.calls.lines import ResponseLine
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.asking import Standing
from apps.eval.judging.judges import Judge
from apps.eval.judging.offline import is_offline
from apps.eval.judging.typical import Typical, typical_so_far

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
    """with one request for each"""
    minutes: float
    requests: Mapping[str, float]
    """by judge: how many a judgment has taken so far"""


def estimate_calls(
    known: Sequence[Standing], responses: Iterable[ResponseLine], judges: Mapping[str, Judge]
) -> Estimate:
    """Of what is still to be asked; what no endpoint is asked is free."""
    left = [(one.call, one.next_call) for one in known if one.next_call is not None]
    paid = [(c, ask) for c, ask in left if not is_offline(c.judge) and not c.is_equal]
    taken = typical_so_far(known, responses)
    typical = {name: taken.get(name, Typical()) for name in judges}
    # By their first requests, of which `Typical` holds the shares: later ones have more room.
    mine = {name: [call for call, _ in paid if call.judge == name] for name in judges}
    prompt = {name: typical[name].prompt_tokens(calls) for name, calls in mine.items()}
    completion = {name: typical[name].completion_tokens(calls) for name, calls in mine.items()}
    usd = at_most = None
    priced = {name: price for name, judge in judges.items() if (price := judge.price)}
    if all(call.judge in priced for call, _ in paid):
        usd = sum(price.usd(prompt[name], completion[name]) for name, price in priced.items())
        at_most = sum(ask.usd_at_most(priced[ask.judge]) for _, ask in paid)
    return Estimate(
        calls=len(left),
        stored=len(known) - len(left),
        prompt_tokens=sum(prompt.values()),
        completion_tokens=sum(completion.values()),
        usd=usd,
        usd_at_most=at_most,
        minutes=max(
            _minutes(typical[n].requests * len(mine[n]), prompt[n], completion[n], judges[n].limits)
            for n in judges
        ),
        requests={name: of_judge.requests for name, of_judge in taken.items()},
    )


def _minutes(requests: float, prompt: int, completion: int, limits: Sequence[Limits]) -> float:
    """What one judge's requests take at the least, over all its endpoints together."""
    if not requests or not limits:
        return 0.0
    mean_s = FIRST_TOKEN_S + completion / requests / TOKENS_PER_S
    return max(
        requests * mean_s / sum(limit.concurrency for limit in limits) / 60,
        requests / sum(limit.requests_per_min for limit in limits),
        (prompt + completion) / sum(limit.tokens_per_min for limit in limits),
    )
