"""Win rates with the style of the answers held equal; an option, with the raw figures beside it.

Style is length, lists, headings and bold text. A logistic regression of the outcome on both models'
strengths and the differences of their answers' style, as in length-controlled AlpacaEval
(arXiv:2404.04475) and the style control of Chatbot Arena (lmsys.org/blog/2024-08-28-style-control).
It is fragile with few wins: measured without its shared priors, AlpacaEval's method moves a 2.6 %
model to 19.8 %. So a ridge pulls all terms to zero, and a small sample is said to be one. Each
pair's interval has half a question more, lost and won, as `statistics.mean_interval` has.

Legend: N contests, F terms (models first, then styles), Q questions.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from apps.common import logistic
from apps.eval.figures.judges import ControlledPair, StyleControl, StyleEffect
from apps.eval.records.answer import Answer
from apps.eval.scores.judgments import Contest
from apps.eval.scores.statistics import Floats

RIDGE = 1.0
FEW_DECISIONS = 10
Z = 1.96
_MARKS = {
    "list items": re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+\S", re.M),
    "headings": re.compile(r"^#{1,6}[ \t]+\S", re.M),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
}
STYLES = ("length", *_MARKS)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.S)

Answers = Mapping[str, Mapping[str, Answer]]


def controlled(held: Sequence[Contest], answers: Answers) -> StyleControl | None:
    """None without decided contests."""
    known = [contest for contest in held if contest.outcome is not None]
    if not known:
        return None
    names = sorted({name for contest in known for name in contest.models})
    design_NF = np.zeros((len(known), len(names) + len(STYLES)))
    for row, contest in enumerate(known):
        design_NF[row, names.index(contest.models[0])] = 1.0
        design_NF[row, names.index(contest.models[1])] = -1.0
    design_NF[:, len(names) :] = _style_gaps(known, answers)
    outcome_N = np.array([contest.outcome for contest in known], np.float64)
    weight_F = logistic.fit(design_NF, outcome_N, RIDGE)
    questions = [contest.question_id for contest in known]
    covariance_FF = logistic.covariance(
        design_NF, outcome_N, weight_F, RIDGE, questions, _half_questions(known)
    )
    return StyleControl(
        effects=tuple(
            _effect(style, weight_F, covariance_FF, place)
            for place, style in enumerate(STYLES, len(names))
        ),
        pairs=tuple(
            _pair(models, known, names, weight_F, covariance_FF)
            for models in dict.fromkeys(contest.models for contest in known)
        ),
        n=len(known),
    )


def style(answer: Answer) -> tuple[float, ...]:
    """Characters, and marks outside code; in the order of `STYLES`."""
    text = _CODE.sub("", "\n".join(answer.turn_texts))
    return (float(answer.num_chars), *(float(len(p.findall(text))) for p in _MARKS.values()))


def _style_gaps(known: Sequence[Contest], answers: Answers) -> Floats:
    """Differences within -1..1: of marks by their sum, of lengths by the spread of all.

    3 list items against 1: (3 - 1) / (3 + 1 + 1) = .4; 1,200 characters against 800 where
    differences spread by 400: tanh(1) = .76.
    """
    first_NS, second_NS = (
        np.array([style(answers[c.models[place]][c.question_id]) for c in known])
        for place in (0, 1)
    )
    gaps_NS = (first_NS - second_NS) / (first_NS + second_NS + 1.0)
    length_N = first_NS[:, 0] - second_NS[:, 0]
    gaps_NS[:, 0] = np.tanh(length_N / (float(length_N.std()) or 1.0))
    return gaps_NS


def _half_questions(known: Sequence[Contest]) -> Floats:
    """What half a question of its pair more, with as many contests as others, adds to each contest.

    2 judges and 4 questions of a pair: its 8 contests share the square of 2, halved: 1/4 each.
    """
    num_contests = Counter(contest.models for contest in known)
    asked = Counter(models for models, _ in {(c.models, c.question_id) for c in known})
    return np.array([0.5 * num_contests[c.models] / asked[c.models] ** 2 for c in known])


def _effect(name: str, weight_F: Floats, covariance_FF: Floats, place: int) -> StyleEffect:
    half = Z * float(np.sqrt(covariance_FF[place, place]))
    value = float(weight_F[place])
    return StyleEffect(style=name, log_odds=value, low=value - half, high=value + half)


def _pair(
    models: tuple[str, str],
    known: Sequence[Contest],
    names: Sequence[str],
    weight_F: Floats,
    covariance_FF: Floats,
) -> ControlledPair:
    raw = [c.outcome for c in known if c.models == models and c.outcome is not None]
    contrast_F = np.zeros(len(weight_F))
    contrast_F[names.index(models[0])], contrast_F[names.index(models[1])] = 1.0, -1.0
    gap = float(contrast_F @ weight_F)
    half = Z * float(np.sqrt(contrast_F @ covariance_FF @ contrast_F))
    decisions = (sum(o == 1 for o in raw), sum(o == 0 for o in raw))
    return ControlledPair(
        models=models,
        raw=float(np.mean(raw)),
        controlled=_share(gap),
        # Closed at an end that all outcomes share, as `mean_interval` is.
        low=0.0 if max(raw) == 0 else _share(gap - half),
        high=1.0 if min(raw) == 1 else _share(gap + half),
        n=len(raw),
        is_fragile=min(decisions) < FEW_DECISIONS,
    )


def _share(log_odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-log_odds)))
