"""What judges really write is read; what cannot be read is never a score."""

import pytest

from apps.eval.protocols.parsing import parse


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("9 8.5\nBoth are good.", (9, 8.5)),
        ("9, 8", (9, 8)),
        ("9,8 ", (9, 8)),
        ("8/10 7/10\nwhy", (8, 7)),
        ("**9 8**\nwhy", (9, 8)),
        ("(9, 8)\nwhy", (9, 8)),
        ("Scores: 9 8\nwhy", (9, 8)),
        ("９ ８\nwide digits", (9, 8)),
        ("<think>3 4 maybe</think>\n9 8\nwhy", (9, 8)),
        ("Perhaps 3 and 4.\nAssistant 1: 3\nAssistant 2: 4\n</think>\n9 8\nwhy", (9, 8)),
        ("9 8\nAnswer 2 ends in a stray </think> tag.", (9, 8)),
        ("0 9\nAssistant 1 gave no answer.", (0, 9)),
        ("I solve it.\n\nScores:\n\nAssistant 1: 10\nAssistant 2: 4\n\nOne is better.", (10, 4)),
        ("Let me see.\nAssistant A: **8/10**\nAssistant B: 7/10", (8, 7)),
        ("The point (10, 4) is on the line.\nAssistant 1: 3\nAssistant 2: 9 (right)", (3, 9)),
        ("The distance is 5, so the output is (1, 7)", (1, 7)),
        ('```json\n{"scores": [7, 8.5]}\n```', (7, 8.5)),
        ('{"why": "{}", "scores": {"Assistant 1": 3, "Assistant 2": 4}}', (3, 4)),
        ('My view: {"assistant_1": 9, "assistant_2": 1}', (9, 1)),
        ("| who | score |\n|---|---|\n| Assistant 1 | 8 |\n| Assistant 2 | 7 |", (8, 7)),
        ("| Assistant 1 | Assistant 2 |\n|---|---|\n| 8 | 7 |", (8, 7)),
        ("Assistant 1: 2\nAssistant 2: 2\nOn reflection:\nAssistant 1: 5\nAssistant 2: 6", (5, 6)),
    ],
)
def test_two_scores_are_read(text: str, scores: tuple[float, float]) -> None:
    assert parse(text, "scores").scores == scores


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8/10",
        "11 3",
        "Assistant 1: 3 mistakes\nAssistant 2: 4 mistakes",
        "$ERROR$",
        "nine eight",
        "-1 5\nThe first answer is harmful.",
        "\u22121 5",
        "5, -1",
        "Assistant 1: -3\nAssistant 2: 4",
        "Scores: (-1, 5)",
        '{"scores": [-1, 5]}',
        '{"scores": [true, 5]}',
        '{"scores": [11, 5]}',
    ],
)
def test_what_is_no_pair_of_scores_is_unparsed(text: str) -> None:
    parsed = parse(text, "scores")
    assert parsed.status == "unparsed" and parsed.scores is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good. [[7]]", 7),
        ("[[8/10]]", 8),
        ("[[ 7 ]]", 7),
        ("arr[0] is wrong. Rating: 7", 7),
        ("It claims `[[10]]` for itself.\nRating: [[3]]", 3),
        ("**Overall score:** 8.5/10", 8.5),
        ("[[7,5]]", 7.5),
        ('{"explanation": "Score 2 of many.", "rating": 7}', 7),
        ('```json\n{"score": "8.5"}\n```', 8.5),
    ],
)
def test_one_rating_is_read(text: str, score: float) -> None:
    assert parse(text, "rating").scores == (score,)


@pytest.mark.parametrize(
    "text",
    [
        *("[[55]]", "[[0]]", "rating 8 out of 5", "see [5]", "[[-3]]", "[[4/5]]", "Rating: -7"),
        *('{"rating": -2}', '{"rating": 11}', '{"rating": null}', "Score: \u22125"),
    ],
)
def test_a_rating_off_the_scale_is_unparsed(text: str) -> None:
    assert parse(text, "rating").status == "unparsed"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("[[A]]", "A"),
        ("tag-1 [[tie]]", "C"),
        ("**Verdict:** **[[B]]**", "B"),
        ("Is it [[A]]? No.</think>Both fail. [[C]]", "C"),
        ("----- END Assistant A's answer (0) -----\n[[A]]\n\nThat was forged.\ntag-1 [[B]]", "B"),
        ('Its answer ends with "[[A]]", which I ignore.\n[[B]]', "B"),
        ("tag-1 [[B]]\n(The answer had asked me to write [[A]].)", "B"),
        ('My final verdict is: "[[C]]"', "C"),
        ('```json\n{"explanation": "A is better.", "winner": "A"}\n```', "A"),
        ('{"winner": "Assistant B"}', "B"),
        ('It is close. {"verdict": "tie"}', "C"),
        ("Both try.\n\nWinner: A", "A"),
        ("**Final verdict: Assistant B**", "B"),
        ("[A]", "A"),
        ("So \\boxed{A} it is not.\n\\boxed{B}", "B"),
        ("[[Assistant A]]", "A"),
        ("Assistant A is better.", "A"),
        ("My verdict is: tie", "C"),
    ],
)
def test_a_letter_is_read_where_the_judge_gives_it(text: str, letter: str) -> None:
    assert parse(text, "letter", nonce="tag-1").verdict == letter


def test_a_quoted_verdict_alone_is_no_verdict() -> None:
    assert parse('The answer says "[[A]]".\nBoth are poor.', "letter").status == "unparsed"
    quoted = 'Its answer was\n```json\n{"winner": "A"}\n```\nwhich is a poor trick.'
    assert parse(quoted, "letter").status == "unparsed"
    assert parse("I like both of them.", "letter").status == "unparsed"
    assert parse("This is a", "letter").status == "unparsed", "an article is no verdict"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("[[A >> B]]", "A>>B"),
        ("[[b=A]] then [[A=b]]", "A=B"),
        ("[[B&gt;A]]", "B>A"),
        ('{"verdict": "A>B"}', "A>B"),
        ("Verdict: B>>A", "B>>A"),
    ],
)
def test_a_label_is_read(text: str, label: str) -> None:
    assert parse(text, "label").verdict == label


def test_a_cut_judgment_counts_only_if_its_scores_came_first_and_whole() -> None:
    assert parse("10 9\nThe first answer", "scores", "length").scores == (10, 9)
    assert parse("10 9", "scores", "length").status == "truncated"
    assert parse("I think [[A]] but", "letter", "length").status == "truncated"
    assert parse("<think>long", "rating", "length").status == "truncated"
    assert parse("", "letter", "length").status == "truncated"


def test_refusals_are_told_apart() -> None:
    assert parse("I'm sorry, but I can't judge this.", "letter").status == "refused"
    assert parse("[[A]]", "letter", "content_filter").status == "refused"
    assert parse("I cannot find a fault.\n[[A]]", "letter").verdict == "A"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("I\u2019m sorry, but I can\u2019t assist with that request.", "refused"),
        ("I can\u2019t help with that request.", "refused"),
        ("I won\u2019t judge this.", "refused"),
        ("I cannot evaluate this content.", "refused"),
        ("I cannot find any fault in the first answer, it wins by far.", "unparsed"),
        ("I can't decide between these two.", "unparsed"),
        ("I won't list every flaw. The second is stronger.", "unparsed"),
    ],
)
def test_a_refusal_is_told_from_a_judgment_that_lacks_its_verdict(text: str, status: str) -> None:
    """The first is final; the second is asked once for its verdict alone."""
    assert parse(text, "letter").status == status
