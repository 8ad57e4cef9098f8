"""What speaks against a judge, in sentences: figures that an unbiased judge would not show."""

from collections.abc import Mapping, Sequence

from apps.eval.figures.judges import Bias, Canaries, JudgeCheck, SelfCheck
from apps.eval.records.answer import Answer
from apps.eval.scores.bias import bias
from apps.eval.scores.canaries import canary_check
from apps.eval.scores.judgments import Judgment, contests

# GPT-4's verdicts hold in both orders for about 65 % of MT-bench's pairs (arXiv:2306.05685).
LEAST_CONSISTENT = 0.6
LEAST_TIES = 0.5
LEAST_RIGHT = 0.75
FEW = 5


def by_judge(
    judgments: Sequence[Judgment],
    previous: Sequence[Judgment],
    answers: Mapping[str, Mapping[str, Answer]],
) -> dict[str, JudgeCheck]:
    """The checks of one protocol; a pool of judges would hide a bad one."""
    return {
        judge: _one(
            [item for item in judgments if item.judge == judge],
            [item for item in previous if item.judge == judge],
            answers,
        )
        for judge in sorted({item.judge for item in judgments})
    }


def _one(
    mine: Sequence[Judgment],
    before: Sequence[Judgment],
    answers: Mapping[str, Mapping[str, Answer]],
) -> JudgeCheck:
    held = contests(item for item in mine if item.kind == "contest")
    leaning = bias(mine, held, answers) if held else None
    canaries = canary_check(mine, before)
    return JudgeCheck(bias=leaning, canaries=canaries, doubts=tuple(doubts(leaning, canaries)))


def doubts(leaning: Bias | None, canaries: Canaries | None) -> list[str]:
    """Sentences about one judge; [] where nothing speaks against it."""
    sentences: list[str] = []
    if leaning:
        sentences += [*_place(leaning), *_self_check(leaning.self_check)]
    return sentences + (_canaries(canaries) if canaries else [])


def _place(leaning: Bias) -> list[str]:
    consistent, first = leaning.order_consistent, leaning.first_shown_wins
    told: list[str] = []
    if consistent and consistent.high < LEAST_CONSISTENT:
        told.append(
            f"judges {100 * (1 - consistent.share):.0f} % of the pairs differently when the two "
            "answers change places"
        )
    # With one order, place and model cannot be told apart.
    if consistent and first and not first.low <= 0.5 <= first.high:
        where = "first" if first.share > 0.5 else "second"
        share = max(first.share, 1 - first.share)
        told.append(f"favours the answer shown {where}: {100 * share:.0f} % of its decisions")
    return told


def _self_check(check: SelfCheck | None) -> list[str]:
    if not check or check.n < FEW or check.tie >= LEAST_TIES * check.n:
        return []
    return [f"prefers one of two identical answers in {check.n - check.tie} of {check.n}"]


def _canaries(canaries: Canaries) -> list[str]:
    told: list[str] = []
    if canaries.right < LEAST_RIGHT * canaries.n:
        wrong = canaries.n - canaries.right
        told.append(f"misjudges {wrong} of {canaries.n} canaries, whose better answer is plain")
    if (drift := canaries.drift) and drift.has_drifted:
        told.append(f"judges {drift.flipped} of {drift.n} canaries otherwise than before")
    return told
