"""What so many questions can tell, before any is judged.

A win rate over n questions is a share; its interval is Wilson's (1927). Two models are told apart
when it leaves out one half: a true share p takes about n = z^2 p (1 - p) / (p - 1/2)^2 questions.

    questions    win rate +- at 95 %        true share    questions to tell
    10           26 points                  .60           93
    80           11 points                  .55           381
    1000         3 points                   .51           9,604

A mean score's interval is that of `scores.statistics.mean_interval`: the spread of n scores, with
half a question more at either end of the scale. Models judged on the same questions are compared
question by question. A gap g of their means shows with n = (z s / g)^2 of them, s the spread of the
differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf, sqrt
from statistics import fmean, pstdev

Z_95 = 1.959964
# Of the 320 public GPT-4 reviews: a model's scores spread by 1.3 of a scale 9 wide, and the
# differences of two models' scores by 1.7.
TYPICAL_SPREAD, TYPICAL_DIFFERENCE = 0.15, 0.19
ROUNDING = 1e-9
"""what rounding may leave of a difference that is none, as a share"""


def half_width(num_questions: int, share: float = 0.5) -> float:
    """Of Wilson's 95 % interval around a win rate, 0-1."""
    n, z = num_questions, Z_95
    if n == 0:
        return 0.5
    return z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))


def questions_to_tell(share: float) -> float:
    """How many questions show at 95 % that a model with this true win rate is not an equal."""
    lead = abs(share - 0.5)
    return inf if lead == 0 else ceil(Z_95**2 * share * (1 - share) / lead**2)


def sentence(num_questions: int) -> str:
    """What this many questions can and cannot show."""
    told = f"{num_questions} questions give a win rate to +-{100 * half_width(num_questions):.0f}"
    examples = ", ".join(
        f"{100 * share:.0f}:{100 - 100 * share:.0f} about {questions_to_tell(share):,.0f}"
        for share in (0.6, 0.55)
    )
    return f"{told} points at 95 %; to tell two models apart takes, at {examples} questions."


def pair_sentence(first: str, second: str, wins: float, num_contests: int) -> str:
    """The same for two models that have met; a tie is half a win.

    The share is Jeffreys's, half a win more on each side, so that one win is no certainty.
    """
    share = (wins + 0.5) / (num_contests + 1)
    leader, other = (first, second) if share >= 0.5 else (second, first)
    needed = questions_to_tell(share)
    if needed == inf:
        return f"{first} and {second} are even over {num_contests} questions so far."
    return (
        f"{leader} takes {100 * max(share, 1 - share):.0f} % against {other} over {num_contests} "
        f"questions; to tell them apart at 95 % takes about {needed:,.0f} questions."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The scores of one model so far."""

    model: str
    by_question: dict[str, float]

    @property
    def mean(self) -> float:
        return fmean(self.by_question.values())


def score_half_width(
    num_questions: int, scale: tuple[float, float], spread: float, mean: float
) -> float:
    """Of the 95 % interval around a mean of scores that spread by `spread`."""
    n = num_questions
    squares = n * spread**2 + 0.5 * (mean - scale[0]) ** 2 + 0.5 * (scale[1] - mean) ** 2
    return Z_95 * sqrt(squares / ((n + 1) * (n + 2)))


def score_sentence(num_questions: int, scale: tuple[float, float], known: Sequence[Scored]) -> str:
    """What this many questions can show of scores; with `known`, by how these spread."""
    width = scale[1] - scale[0]
    spreads = [pstdev(one.by_question.values()) for one in known if len(one.by_question) > 9]
    spread = fmean(spreads) if spreads else TYPICAL_SPREAD * width
    mean = fmean(one.mean for one in known) if spreads else scale[0] + 0.7 * width
    half = score_half_width(num_questions, scale, spread, mean)
    source = "as they do so far" if spreads else "as in public reviews"
    return (
        f"{num_questions} questions give a mean score from {scale[0]:g} to {scale[1]:g} to "
        f"+-{half:.2g} at 95 %, where scores spread by {spread:.2g}, {source}; to tell two models "
        f"apart takes, at means {0.1 * width:.2g} apart about {_questions_at(0.1):,} questions, at "
        f"{0.05 * width:.2g} about {_questions_at(0.05):,}."
    )


def _questions_at(gap: float) -> int:
    """Of two models whose means are this share of the scale apart."""
    return ceil((Z_95 * TYPICAL_DIFFERENCE / gap) ** 2)


def closest_scores_sentence(known: Sequence[Scored]) -> str | None:
    """What tells the two apart whose means are nearest; None where no two share two questions."""
    ranked = sorted(known, key=lambda one: -one.mean)
    pairs = [(a, b, _differences(a, b)) for a, b in pairwise(ranked)]
    pairs = [one for one in pairs if len(one[2]) > 1]
    if not pairs:
        return None
    above, below, differences = min(pairs, key=lambda one: abs(fmean(one[2])))
    gap, spread = abs(fmean(differences)), pstdev(differences)
    if gap <= ROUNDING * max(map(abs, differences)):
        return f"{above.model} and {below.model} have one mean over {len(differences)} questions."
    if spread <= ROUNDING * gap:
        leader, other = (above, below) if differences[0] > 0 else (below, above)
        told = f"is {gap:.2g} above {other.model} on each of {len(differences)} questions"
        return f"{leader.model} {told}."
    return (
        f"{above.model} and {below.model} are {gap:.2g} apart over {len(differences)} questions; "
        f"to tell them apart at 95 % takes about {ceil((Z_95 * spread / gap) ** 2):,} questions."
    )


def _differences(first: Scored, second: Scored) -> list[float]:
    shared = first.by_question.keys() & second.by_question.keys()
    return [first.by_question[q] - second.by_question[q] for q in sorted(shared)]
