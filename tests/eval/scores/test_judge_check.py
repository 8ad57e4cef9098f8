"""A judge with a planted bias is named in the report; one without is not."""

from types import SimpleNamespace

from apps.eval.judging.plan import BETTER, WORSE
from apps.eval.page.parts import fill
from apps.eval.scores.judge_check import by_judge
from apps.eval.scores.judgments import Judgment
from tests.eval.scores.test_scores import answers, judgment


def verdicts(judge: str, first_lead: float, second_lead: float) -> list[Judgment]:
    """60 questions, both orders, 8 meetings of an answer with itself and 4 canaries."""
    made = []
    for i in range(60):
        made.append(judgment(first_lead, 0, f"q{i}", judge=judge))
        made.append(judgment(second_lead, 1, f"q{i}", judge=judge))
    is_moved = first_lead != second_lead
    for i in range(8):
        lead = float(is_moved)
        made.append(judgment(lead, 0, f"q{i}", judge=judge, models=("a", "a"), kind="self"))
    for i in range(4):
        for order in (0, 1):
            lead = (1.0 - 2 * order) if is_moved else 1.0
            fields = {"judge": judge, "models": (BETTER, WORSE), "kind": "canary"}
            made.append(judgment(lead, order, f"canary-{i + 1}", **fields))
    return made


def test_a_judge_that_loves_the_first_place_is_named_and_a_fair_one_is_not() -> None:
    made = answers(a=100, b=50)
    found = by_judge(verdicts("fair", 1, 1) + verdicts("lazy", 1, -1), [], made)
    assert found["fair"].doubts == ()
    assert found["lazy"].doubts == (
        "judges 100 % of the pairs differently when the two answers change places",
        "favours the answer shown first: 100 % of its decisions",
        "prefers one of two identical answers in 8 of 8",
        "misjudges 4 of 4 canaries, whose better answer is plain",
    )
    page = fill(
        "judge_check.html",
        result=SimpleNamespace(by_judge=found, votes=None, calibration=None),
        name="pairwise-swap",
        judge_cards={"pairwise-swap": []},
    )
    assert "<b>lazy</b> favours" in page and "<b>fair</b>" not in page
    assert "Judge by judge" in page and "8 of 8" in page


def test_a_judge_that_changed_since_the_last_run_is_named() -> None:
    before, now = verdicts("j", 1, 1), verdicts("j", 1, -1)
    (told,) = (s for s in by_judge(now, before, answers(a=9, b=9))["j"].doubts if "before" in s)
    assert told == "judges 4 of 4 canaries otherwise than before"
    assert by_judge(before, before, answers(a=9, b=9))["j"].doubts == ()


def test_one_order_alone_proves_no_love_of_a_place() -> None:
    made = [judgment(1, 0, f"q{i}") for i in range(60)]
    assert by_judge(made, [], answers(a=100, b=50))["j"].doubts == ()
