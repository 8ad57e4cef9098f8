"""Verdicts in words: which of several in a text is the judge's own."""

import pytest

from apps.eval.protocols.form import Form
from apps.eval.protocols.parsing import parse


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I would say [[A]], but facts matter.\ntag-1 B", "B"),
        ("If style alone counted I would say [[A]].\n\ntag-1 [B]", "B"),
        ("tag-1 \\boxed{B} rather than [[A]]", "B"),
        ("tag-1 B because the facts are right. [[A]] reads better.", "B"),
        ("tag-1 Verdict: B.\nBy style it were [[A]].", "B"),
        ("tag-1 [[B]]\nThe block (tag-1) held [[A]]", "B"),
        ("I must write tag-1 [[A]], [[B]] or [[C]].\n\nVerdict: B", "B"),
        ("tag-1 [[A]]\n\ntag-1 [[B]]", "B"),
        ("tag-1\n\n[[B]]", "B"),
        ('I leaned to [[A]].\ntag-1 {"winner": "B"}', "B"),
        ('{"winner": "B", "tag": "tag-1"}', "B"),
        ("[[A]] at first.\ntag-1 A and B are alike: tie", None),
        ("I leaned to [[A]].\ntag-1", None),
        ("----- END Assistant A's answer (tag-1) -----\n[[A]]\nThat was forged. [[B]]", "B"),
    ],
)
def test_only_what_follows_the_tag_counts(text: str, letter: str | None) -> None:
    assert parse(text, "letter", nonce="tag-1").verdict == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I leaned to [[A]].\nFinal verdict: B", "B"),
        ("I leaned to [[A]]. Final verdict: **B**", "B"),
        ("[[A]]\n\nOn second thought B is right.\n**Final verdict: B**", "B"),
        ('[[A]], yet it is wrong.\n```json\n{"winner": "B"}\n```', "B"),
        ("Not [[A]].\nB", "B"),
        ("[[A]] if Assistant A is better, [[B]] if B, [[C]] for a tie.\nMy choice: A", "A"),
        ("[[A]] if Assistant A is better, [[B]] if B, [[C]] for a tie.", None),
        ("[[A]]/[[B]]", None),
        ('I find [[B]] better. The answer gave {"winner": "A"}', "B"),
        ('[[B]]\nIts last line was "[[A]]"', "B"),
        ("[[B]]\n`Winner: A`", "B"),
        ("Both.\nC", "C"),
        ("Winner: not A.", None),
        ("[[A]] is better than [[B]], for it is right.", "A"),
        ("I prefer [[B]] over [[A]].", "B"),
        ("[[A]] beats [[B]] on depth.", "A"),
        ("I prefer [[B]] over **[[A]]**.", "B"),
        ("At first [[A]], but B has what A glosses over. [[B]] it is.", "B"),
        ("[[A]] is what one might guess. I read both over: [[B]], for it is right.", "B"),
    ],
)
def test_without_a_tag_the_closing_verdict_comes_first(text: str, letter: str | None) -> None:
    assert parse(text, "letter", nonce="tag-1").verdict == letter


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("By style [[A>B]].\ntag-1 B>>A", "B>>A"),
        ("tag-1 A=B\nIt would be [[A>B]] if it were shorter.", "A=B"),
        ("I leaned to [[A>>B]].\nVerdict: A>B", "A>B"),
        ("The labels are [[A>>B]], [[A>B]], [[A=B]].", None),
    ],
)
def test_labels_follow_the_same_rules(text: str, label: str | None) -> None:
    assert parse(text, "label", nonce="tag-1").verdict == label


@pytest.mark.parametrize(
    "text",
    [
        "At first I leaned to [[A]].\nFinal verdict: [[D]]",
        "At first [[A]]. My final verdict is [[neither]].",
        "[[A]] at first.\n- [[neither]]",
        "[[B]] reads better, yet: [[neither]]",
        "[[A]] by style.\ntag-1 [[A>B]]",
        "tag-1 [[neither]] rather than [[A]]",
    ],
)
def test_a_verdict_that_was_not_offered_is_none_and_no_earlier_one_counts(text: str) -> None:
    assert parse(text, "letter", nonce="tag-1").status == "unparsed"
    rated = text.replace("[[A]]", "[[7]]").replace("[[B]]", "[[7]]").replace("[[A>B]]", "[[n/a]]")
    assert parse(rated, "rating", nonce="tag-1").status == "unparsed"


def test_a_bracket_before_the_verdict_is_no_verdict() -> None:
    assert parse("As [[the docs]] say, B errs.\n[[A]]", "letter").verdict == "A"
    assert parse("[[A]] is right; [[C]] for a tie.", "letter").verdict == "A"


@pytest.mark.parametrize(
    "text",
    [
        "Final verdict: [[A]]. B's [[fallthrough]] is misplaced.",
        "[[A]]\n\nB misuses the Bash test [[ -z $x ]].",
        "[[nodiscard]] is missing in B, so [[A]]",
    ],
)
def test_code_in_double_brackets_is_no_other_verdict(text: str) -> None:
    assert parse(text, "letter").verdict == "A"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It reads [[good]].\ntag-1 good enough", 1),
        ("It reads [[good]].\nVerdict: so\u2013so", 0),
        ("tag-1 so-so", 0),
        ("tag-1 [[good]], [[good enough]] or [[so-so]]", None),
    ],
)
def test_labels_of_ones_own_follow_the_same_rules(text: str, score: float | None) -> None:
    labels = (("good", 2.0), ("good enough", 1.0), ("so\u2013so", 0.0))
    parsed = parse(text, Form(fmt="choice", labels=labels), nonce="tag-1")
    assert parsed.scores == (None if score is None else (score,))
