"""What else a judge's verdicts go with: place, length, its own family, identical answers."""

import re
from collections.abc import Mapping, Sequence

from apps.eval.figures.judges import Bias, SelfCheck, Share
from apps.eval.records.answer import Answer
from apps.eval.scores.judgments import Contest, Judgment
from apps.eval.scores.statistics import wilson_interval

# Makers whose models carry several names; every other family is the letters a name begins with.
_MAKERS = {
    "openai": r"(?:chatgpt|gpt-oss|gpt(?!4all|-?[a-z])|(?:text-)?davinci|o[134](?![a-z]))",
    "anthropic": r"claude",
    "google": r"(?:gemini|gemma|bard|palm)",
}


def bias(
    judgments: Sequence[Judgment],
    held: Sequence[Contest],
    answers: Mapping[str, Mapping[str, Answer]],
) -> Bias:
    """Shares of decisions, each with its n and its 95 % Wilson interval."""
    single = [item for item in judgments if item.kind == "contest" and item.lead is not None]
    decisive = [item for item in single if item.lead]
    first_shown = sum((item.lead > 0) == (item.order == 0) for item in decisive if item.lead)
    longer, with_length = 0, 0
    for contest in held:
        if contest.outcome in (None, 0.5):
            continue
        lengths = [answers[model][contest.question_id].num_chars for model in contest.models]
        if lengths[0] != lengths[1]:
            with_length += 1
            longer += (contest.outcome == 1.0) == (lengths[0] > lengths[1])
    decided = [contest for contest in held if contest.is_consistent is not None]
    return Bias(
        first_shown_wins=_share(first_shown, len(decisive)),
        longer_wins=_share(longer, with_length),
        order_consistent=_share(
            sum(bool(contest.is_consistent) for contest in decided), len(decided)
        ),
        own_family_wins=own_family(held),
        self_check=self_check(judgments),
    )


def _share(part: float, total: int) -> Share | None:
    if not total:
        return None
    low, high = wilson_interval(part, total)
    return Share(share=part / total, n=total, low=low, high=high)


def family(model: str) -> str:
    """Maker of a model by its name: gpt-4o, ChatGPT, openai/o3 and ft:gpt-4o:us are of one."""
    name = model.lower().removeprefix("ft:").split(":")[0].rsplit("/", 1)[-1]
    for maker, pattern in _MAKERS.items():
        if re.match(pattern, name):
            return maker
    letters = re.match(r"[a-z]+", name)
    return letters[0] if letters else name


def own_family(held: Sequence[Contest]) -> Share | None:
    """How often a judge prefers a contestant of its own family."""
    won, total = 0.0, 0
    for contest in held:
        mine = [family(model) == family(contest.judge) for model in contest.models]
        if contest.outcome is None or sum(mine) != 1 or contest.judge == "offline":
            continue
        total += 1
        won += contest.outcome if mine[0] else 1.0 - contest.outcome
    return _share(won, total)


def self_check(judgments: Sequence[Judgment]) -> SelfCheck | None:
    """A/A: identical answers. Ties are right; first and second should be equally frequent."""
    items = [item for item in judgments if item.kind == "self"]
    leads = [item.lead for item in items if item.lead is not None]
    if not items:
        return None
    return SelfCheck(
        first=sum(lead > 0 for lead in leads),
        tie=sum(lead == 0 for lead in leads),
        second=sum(lead < 0 for lead in leads),
        n=len(leads),
        total=len(items),
    )
