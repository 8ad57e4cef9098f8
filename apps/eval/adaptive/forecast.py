"""What so many questions can tell, before any is judged.

A win rate over n questions is a share; its interval is Wilson's (1927). Two models are told apart
when it leaves out one half: a true share p takes about n = z^2 p (1 - p) / (p - 1/2)^2 questions.

    questions    win rate +- at 95 %        true share    questions to tell
    10           26 points                  .60           93
    80           11 points                  .55           381
    1000         3 points                   .51           9,604
"""

from math import ceil, inf, sqrt

Z_95 = 1.959964


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
