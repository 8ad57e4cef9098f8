"""Numbers of a judge that are its verdict, beside ranges, other scales and aspects that are not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.eval.protocols.form import Form, Format
from apps.eval.protocols.parsing import parse


def rating(text: str, low: float = 1, high: float = 10, nonce: str | None = None) -> float | None:
    parsed = parse(text, Form(fmt="rating", low=low, high=high), nonce=nonce)
    assert (parsed.status == "ok") == (parsed.scores is not None)
    return parsed.scores[0] if parsed.scores else None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good answer.\nScore (1-10): 8", 8),
        ("**Rating [1-10]:** 9", 9),
        ("Rating (out of 10): 9", 9),
        ("Score (1\u201310): 8", 8),
        ("Score (1-5): 4", None),
        ("Rating (out of 5): 4", None),
        ("Rating: 7-8", None),
        ("Rating: 7 to 8", None),
        ("Rating: 7 or 8", None),
        ("On a rating of 1 to 10, I give it an 8.", None),
        ("Rating: 8 (out of 10)", 8),
        ("Final score: 8 of 10", 8),
        ("Rating: 8\u204410", 8),
        ("Rating: 4.5/5", None),
        ("Rating: 4 of 5", None),
        ("Rating: 4 on a 5-point scale", None),
        ("Rating: 4 on a scale of 1 to 5", None),
        ("Rating: 8 on a scale from 1 to 10.", 8),
        ("Rating: 8%", None),
        ("Score: 2 of the 3 tests pass", None),
        ("Rating: 7,5", 7.5),
        ("8", 8),
        ("**8/10**", 8),
        ("$\\boxed{8}$", 8),
        ("8 of 5", None),
        ("11", None),
        ("7-8", None),
        ("8 reasons", None),
        ("It is an 8", None),
        ("[[7]], but it could be [[9]] without the typo", 7),
    ],
)
def test_a_range_or_another_scale_is_no_rating(text: str, score: float | None) -> None:
    assert rating(text) == score


@pytest.mark.parametrize(
    ("low", "high", "text", "score"),
    [
        (0, 100, "Rating: 9/10", None),
        (0, 100, "Score: 8.5 out of 10", None),
        (0, 100, "Score (0-100): 85", 85),
        (0, 100, "Rating: 85%", 85),
        (0, 100, "Rating: 85 / 100", 85),
        (0, 100, "[[8/10]]", None),
        (0, 100, "Rating: 8\u00bd", None),
        (1, 5, "Rating: 4/10", None),
        (1, 5, "Rating: 4 out of 10", None),
        (1, 5, "Rating: 4 out of 5", 4),
        (1, 5, "Score (1-5): 4", 4),
        (1, 5000, "[[3500]]", 3500),
        (1, 5000, "Rating: 3,500", 3500),
        (0, 100, "[[1,000]]", None),
        (1, 5000, "[[900]]", 900),
        (1, 5, "4", 4),
        (1, 5, "6", None),
        (0, 1, "0,75", 0.75),
        (0, 1, "0,125", 0.125),
        (1, 5000, '{"rating": 3500}', 3500),
        (1, 5000, "tag-1 **3500**", 3500),
        (1, 5000, "[[5001]]", None),
        (0, 1, "[[.8]]", 0.8),
        (0, 1, "Rating: 0.8", 0.8),
        (0, 1, "Rating: 1/10", None),
        (-5, 5, "Rating: -3", -3),
    ],
)
def test_every_scale_has_its_own_numbers(
    low: float, high: float, text: str, score: float | None
) -> None:
    assert rating(text, low, high, "tag-1") == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Rating: 8 (a score of 10 would need sources)", 8),
        ("Correctness rating: 9\nHelpfulness rating: 9\nOverall: 4", 4),
        ("Overall score: 7\n- Correctness score: 9\n- Clarity score: 4", 7),
        ("Correctness rating: 9\nClarity rating: 4", None),
        ("Correctness rating: 9\nClarity rating: 4\nRating: 6", 6),
        ("Final Rating: 6\n\nTo reach a rating of 9 it should cite sources.", 6),
        ("I considered a score of 9, but it errs.", None),
        ("I give it a score of 8.", 8),
        ("My score is 8, since it is short.", 8),
        ("### Score\n8", 8),
        ("[[9]] was my first thought.\nFinal rating: 6", 6),
        ('Is it a [[9]]? No.\n```json\n{"rating": 6}\n```', 6),
        ("I find [[6]].\nIt would be [[10]] if correct.", 6),
        ("[[7]]\nOverall, 3 mistakes were made.", 7),
        ("Overall: 4 mistakes.", None),
    ],
)
def test_what_is_called_overall_counts_and_disagreement_does_not(
    text: str, score: float | None
) -> None:
    assert rating(text) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("tag-1 **6**\nIt would be [[10]] if correct.", 6),
        ("tag-1 [6]. Were it right, [[10]].", 6),
        ("tag-1 Rating: 8 (score of 9 if shorter)", 8),
        ("I considered a score of 9, but it errs.\n\ntag-1 3", 3),
        ("[[8]] is what style would give; tag-1 6/10", 6),
        ("Rating: 9 for style.\ntag-1 4/5", None),
        ("Rating: 9 for style.\ntag-1 7-8", None),
        ("Rating: 9 for style.\ntag-1: it is hard to say", None),
        ("tag-1\n[[7]]", 7),
        ('tag-1 {"rating": 7}', 7),
        ('{"rating": 7, "tag": "tag-1"}', 7),
        ("----- END the assistant's answer (tag-1) -----\n[[10]] it says.\nRating: 3", 3),
    ],
)
def test_only_what_follows_the_tag_counts(text: str, score: float | None) -> None:
    assert rating(text, nonce="tag-1") == score


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Scale: [1, 10]\nAssistant 1 gets 8 and Assistant 2 gets 7.", None),
        ("On a scale (1, 10):\nFirst 8, second 7", None),
        ("On a scale of 1 to 10 I give (8, 7)", (8, 7)),
        ("(1, 10)", (1, 10)),
        ("Scores (1-10): 8 7\nwhy", (8, 7)),
        ("Scores (1-5): 4 3\nwhy", None),
        ("Assistant 1: 8 out of 10\nAssistant 2: 7 out of 10", (8, 7)),
        ("Assistant 1: 4/5\nAssistant 2: 3/5", None),
        ("4/5 3/5\nwhy", None),
        ("Assistant 1: 8\nAssistant 2: 7\nI would give a longer Assistant 2: 9.", (8, 7)),
        ("Accuracy\nAssistant 1: 9\nAssistant 2: 9\nOverall: 5 8", (5, 8)),
        ("Answer 1: 42\nAnswer 2: 7\n(8, 3)", (8, 3)),
        ('The tuple (1, 7) is right.\n{"scores": [3, 9]}', (3, 9)),
        ("tag-1 (8, 7)\nWith sources: (9, 10)", (8, 7)),
    ],
)
def test_two_scores_are_not_the_scale_nor_a_supposition(
    text: str, scores: tuple[float, float] | None
) -> None:
    assert parse(text, "scores", nonce="tag-1").scores == scores


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Rating: 11\n\nIt is good.",
            "It earns a rating of 15 in all.",
            "Overall: 0.\nIt is poor.",
        ),
        *("Rating: -3\nbad", "Rating: 1,200,300 for x", "Overall score: 12\nRating: 8\nSo."),
        *("**Final score: 10.5** it is.\nWell.", "Clarity rating: 0\nThat is all."),
    ],
)
def test_a_number_off_the_scale_is_none_wherever_it_stands(text: str) -> None:
    assert rating(text) is None


def test_scores_of_a_wide_scale_are_read() -> None:
    form = Form(fmt="scores", low=0, high=2000)
    assert parse("1500 900\nwhy", form).scores == (1500, 900)
    assert parse("8/10 7/10\nwhy", form).scores is None


NUMBERS = st.one_of(
    st.integers(-12, 120).map(str),
    st.floats(-12, 120).map(lambda number: f"{number:.1f}"),
    st.sampled_from(["-3", ".5", "7,5", "3,500", "1,200,300", "1" * 40, "1" + ",000" * 200]),
)
WORDS = st.sampled_from(
    [
        *("Rating: ", "Overall: ", "a rating of ", "final score is ", "Score (1-10): ", "[[", "]]"),
        *("Assistant 1: ", "Assistant 2: ", "Scores: ", '{"rating": ', '{"scores": [', "]}", "}"),
        *("\n", " ", ", ", "/10", " out of 5", "%", ".\n", "(", ")", "tag-1 ", "**", "\u2212", "`"),
        *(
            "if ",
            "bad",
            " in all",
            "\\boxed{",
            "<think>",
            "</think>",
            "nan",
            "inf",
            "1e9",
            "\u0665",
        ),
    ]
)
TEXTS = st.lists(st.one_of(WORDS, NUMBERS), max_size=12).map("".join)
SCALES = st.sampled_from([(1, 10), (0, 10), (1, 5), (-5, 5), (0, 1), (0, 100), (1, 5000)])


@pytest.mark.parametrize("fmt", ["rating", "scores"])
@settings(max_examples=500, deadline=None)
@given(TEXTS, SCALES, st.sampled_from(["stop", "length"]), st.sampled_from([None, "tag-1"]))
def test_a_score_lies_on_its_scale(
    fmt: Format, text: str, scale: tuple[float, float], reason: str, nonce: str | None
) -> None:
    form = Form(fmt=fmt, low=scale[0], high=scale[1])
    parsed = parse(text, form, reason, nonce)
    assert (parsed.status == "ok") == (parsed.scores is not None)
    for score in parsed.scores or ():
        assert form.lowest_read <= score <= form.high
