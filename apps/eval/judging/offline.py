"""The offline judge: chrF against reference answers. It is not GPT-4 and never says it is.

It needs no network and no money, so that the quickstart and the tests can judge. It can tell right
from wrong only as far as a reference answer tells it, and cannot judge a question without one. The
measure is Popovic's chrF (WMT 2015) in sacrebleu's implementation. An answer that satisfies the
question's `match` counts as fully similar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.eval.protocols.form import Format
from apps.eval.records.question import OR

OFFLINE = "offline"
LABEL = "offline chrF judge (compares with reference answers; not GPT-4)"
# Two similarities closer than this are a tie; chrF moves by about .05 for one word in ten.
TIE_MARGIN = 0.02
STRONG_MARGIN = 0.4


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceCheck:
    """What a judge that computes compares; answers in displayed order."""

    references: tuple[str, ...]
    """per turn"""
    answers: tuple[tuple[str, ...], ...]
    """per answer, per turn"""
    correct: tuple[bool | None, ...]
    """per answer; None where the question does not say how to tell"""


def is_offline(judge: str) -> bool:
    return judge == OFFLINE


def similarity(answer: str, reference: str) -> float:
    """0-1: chrF of an answer with the nearest of the reference's alternatives."""
    # sacrebleu takes half a second to import, and only this judge needs it.
    from sacrebleu.metrics.chrf import CHRF

    return CHRF().sentence_score(answer, reference.split(OR)).score / 100.0


def respond(fmt: Format, check: ReferenceCheck, nonce: str) -> str:
    """A judgment in the text form of the protocol, so that it takes the way of every other."""
    shares = [
        1.0 if correct else _mean_similarity(answer, check.references)
        for answer, correct in zip(check.answers, check.correct, strict=True)
    ]
    said = " and ".join(f"{share:.3f}" for share in shares)
    why = f"Similarity to the reference answer by chrF: {said}. This is the {LABEL}."
    if fmt == "scores":
        return f"{_score(shares[0]):g} {_score(shares[1]):g}\n{why}"
    if fmt == "rating":
        return f"{why}\n{nonce} [[{_score(shares[0]):g}]]"
    return f"{why}\n{nonce} [[{_verdict(fmt, shares[0] - shares[1])}]]"


def _mean_similarity(answer: Sequence[str], references: Sequence[str]) -> float:
    pairs = [*zip(answer, references, strict=False)]
    return sum(similarity(text, reference) for text, reference in pairs) / len(pairs)


def _score(share: float) -> float:
    return round(1.0 + 9.0 * share, 1)


def _verdict(fmt: Format, lead: float) -> str:
    if abs(lead) < TIE_MARGIN:
        return "C" if fmt == "letter" else "A=B"
    if fmt == "letter":
        return "A" if lead > 0 else "B"
    sign = ">>" if abs(lead) >= STRONG_MARGIN else ">"
    return f"A{sign}B" if lead > 0 else f"B{sign}A"
