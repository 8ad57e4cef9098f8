"""What one judgment takes: by public reviews, or by what its judge has taken so far."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apps.eval.calls.lines import ResponseLine
from apps.eval.judging.asking import Standing, by_judge
from apps.eval.judging.call import Call

# What a judgment is long on average, as a share of the most it may be: 130 of 1,024 tokens in the
# 320 public GPT-4 reviews.
TYPICAL_LENGTH_SHARE = 0.13
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


def typical_so_far(
    known: Sequence[Standing], responses: Iterable[ResponseLine]
) -> dict[str, Typical]:
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
