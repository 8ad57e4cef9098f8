"""What a plan's calls will take, by public reviews or by what its judges have taken so far."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from apps.eval.calls.lines import ResponseLine
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.asking import Standing, by_judge
from apps.eval.judging.call import Call
from apps.eval.judging.judges import Judge
from apps.eval.judging.offline import is_offline

# What a judgment is long on average, as a share of the most it may be: 130 of 1,024 tokens in the
# 320 public GPT-4 reviews.
TYPICAL_LENGTH_SHARE = 0.13
# GPT-4-class judges write about 40 tokens a second after half a second.
FIRST_TOKEN_S, TOKENS_PER_S = 0.5, 40
FEWEST_KNOWN = 10
"""judgments of a judge, by which its others are estimated"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Typical:
    """What one judgment takes, with whatever is asked again about it."""

    requests: float = 1.0
    prompt_share: float = 1.0
    """of its first request's estimated tokens"""
    completion_share: float = TYPICAL_LENGTH_SHARE
    """of its first request's `max_tokens`"""

    def prompt_tokens(self, calls: Iterable[Call]) -> int:
        return int(self.prompt_share * sum(call.prompt_tokens_estimate() for call in calls))

    def completion_tokens(self, calls: Iterable[Call]) -> int:
        return int(self.completion_share * sum(call.max_tokens for call in calls))


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
    left = [one.next_call for one in known if one.next_call is not None]
    paid = [call for call in left if not is_offline(call.judge) and not call.is_equal]
    so_far = _so_far(known, responses)
    typical = {name: so_far.get(name, Typical()) for name in judges}
    mine = {name: [call for call in paid if call.judge == name] for name in judges}
    prompt = {name: typical[name].prompt_tokens(calls) for name, calls in mine.items()}
    completion = {name: typical[name].completion_tokens(calls) for name, calls in mine.items()}
    usd = at_most = None
    priced = {name: price for name, judge in judges.items() if (price := judge.price)}
    if all(call.judge in priced for call in paid):
        usd = sum(price.usd(prompt[name], completion[name]) for name, price in priced.items())
        at_most = sum(call.usd_at_most(priced[call.judge]) for call in paid)
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
        requests={name: of_judge.requests for name, of_judge in so_far.items()},
    )


def _so_far(known: Sequence[Standing], responses: Iterable[ResponseLine]) -> dict[str, Typical]:
    """By judge, of those with enough judgments stored."""
    paid: defaultdict[str, list[ResponseLine]] = defaultdict(list)
    for line in responses:
        if not line.get("is_computed") and not line.get("is_imported"):
            paid[line["slot"]].append(line)
    typical: dict[str, Typical] = {}
    for judge, mine in by_judge(known).items():
        begun = [one.call for one in mine if one.call.slot in paid]
        lines = [line for call in begun for line in paid[call.slot]]
        if len(begun) < FEWEST_KNOWN:
            continue
        prompt = sum(line["usage"]["prompt_tokens"] for line in lines)
        completion = sum(line["usage"]["completion_tokens"] for line in lines)
        typical[judge] = Typical(
            requests=len(lines) / len(begun),
            prompt_share=prompt / sum(call.prompt_tokens_estimate() for call in begun),
            completion_share=completion / sum(call.max_tokens for call in begun),
        )
    return typical


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
