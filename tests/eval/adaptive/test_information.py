"""The next contests go where the order is open, and a settled order ends the judging."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.eval.adaptive import forecast, information
from apps.eval.adaptive.rounds import Rounds
from apps.eval.config import JudgeConfig
from apps.eval.judging.plan import Plan, make_plan
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question
from tests.eval.commands import command, jsonl
from tests.eval.scripted_judge import Script


def wins(table: list[list[float]]) -> np.ndarray:
    return np.array(table, np.float64)


LEFT = np.full((3, 3), 50.0)
FAR = wins([[0, 19, 20], [1, 0, 11], [0, 9, 0]])
"""The first beats both others; those are close."""


def test_the_next_contests_are_between_neighbours_whose_order_is_open() -> None:
    standings = information.fit(FAR)
    picked = information.next_contests(standings, FAR + FAR.T, LEFT, 10)
    assert picked.count((1, 2)) >= 8
    assert standings.doubt(0, 1) < 0.01 < 0.2 < standings.doubt(1, 2)


def test_without_contests_every_pair_is_asked_alike() -> None:
    nothing = np.zeros((4, 4))
    picked = information.next_contests(information.fit(nothing), nothing, np.full((4, 4), 9.0), 6)
    assert len(set(picked)) == 6


def test_an_order_is_settled_by_confidence_or_when_nothing_is_left() -> None:
    standings = information.fit(FAR)
    assert not information.is_settled(standings, LEFT, 0.95)
    assert information.is_settled(standings, LEFT, 0.6)
    used_up = LEFT.copy()
    used_up[1, 2] = used_up[2, 1] = 0
    assert information.is_settled(standings, used_up, 0.95)
    assert information.next_contests(standings, FAR + FAR.T, np.zeros((3, 3)), 5) == []


def plan_of(num_questions: int, models: str) -> Plan:
    questions = [
        Question(question_id=str(i), category="c", turns=(f"Question {i}",))
        for i in range(num_questions)
    ]
    answers = {
        name: {
            q.question_id: Answer(
                question_id=q.question_id, turn_texts=(f"{name} {q.question_id}",), model=name
            )
            for q in questions
        }
        for name in models
    }
    config = JudgeConfig(dir="x", judge=("judge-4",), self_checks=0, canaries=False)
    return make_plan(config, questions, answers)


def test_a_clear_league_takes_fewer_contests_than_a_round_robin() -> None:
    """Six models of which each always beats those after it."""
    plan = plan_of(40, "abcdef")
    rounds, results = Rounds(plan, ()), []
    done = 0
    while rounds.begin_next(results, 0.95):
        played = [call for call in rounds.plan.calls if call.order == 0]
        assert len(played) > done, "every round asks something"
        results += [(*call.models, 1.0) for call in played[done:]]
        done = len(played)
    assert done < 0.3 * 15 * 40


def test_what_is_stored_stays_in_play_and_the_choice_does_not_depend_on_a_kill() -> None:
    plan = plan_of(10, "abc")
    first = Rounds(plan, ())
    first.begin_next([], 0.95)
    slots = [call.slot for call in first.plan.calls]
    again = Rounds(plan, slots[:1])
    begun = again.plan.calls
    assert {call.question_id for call in begun} == {first.plan.calls[0].question_id}
    assert len(begun) == 2, "both orders of the contest"
    assert {call.slot for call in Rounds(plan, slots).plan.calls} == set(slots)


@pytest.mark.parametrize(("num_questions", "points"), [(1, 45), (10, 26), (80, 11), (1000, 3)])
def test_a_forecast_says_how_wide_the_interval_will_be(num_questions: int, points: int) -> None:
    assert round(100 * forecast.half_width(num_questions)) == points


def test_a_forecast_says_how_many_questions_tell_two_models_apart() -> None:
    assert forecast.questions_to_tell(0.6) == 93 and forecast.questions_to_tell(0.55) == 381
    assert "about 389 questions" in forecast.pair_sentence("a", "b", 45, 100)
    assert forecast.pair_sentence("a", "b", 45, 100).startswith("b takes 55 % against a")
    assert "are even" in forecast.pair_sentence("a", "b", 5, 10)


@pytest.mark.ray
def test_judging_in_rounds_settles_the_order_and_goes_on_where_it_was(
    tmp_path: Path, serve, ray_address: str, capsys
) -> None:
    endpoint = serve(Script())
    topics = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    asked = [
        {"question_id": i, "category": "c", "turns": [f"Tell of {' '.join(topics)} {i}"]}
        for i in range(30)
    ]
    texts = {"a": topics, "b": topics[:4], "c": topics[:2]}
    files = [
        f"{name}={jsonl(tmp_path / f'{name}.jsonl', answers)}"
        for name, words in texts.items()
        for answers in [[{"question_id": i, "text": f"{' '.join(words)} {i}"} for i in range(30)]]
    ]
    out = tmp_path / "eval"
    questions = ["--questions", jsonl(tmp_path / "q.jsonl", asked), "--out", str(out)]
    assert command("answer", *questions, "--answers", *files) == 0
    judge = ["judge", str(out), "--judge", "judge-4", "--adaptive", "--self-checks", "0"]
    judge += ["--no-canaries", "--requests-per-min", "1e6", "--tokens-per-min", "1e9"]
    assert command(*judge) == 0
    told = capsys.readouterr().out
    assert "30 questions give a win rate to +-17 points" in told and '"judge.order"' in told
    made = endpoint.requests.total()
    assert made < 0.6 * 3 * 30 * 2
    assert command(*judge) == 0 and endpoint.requests.total() == made
    assert "to tell them apart at 95 % takes about" in capsys.readouterr().out
    assert command("report", str(out)) == 0, "nothing is missing of what was planned"
    rows = json.loads((out / "report.json").read_text())["protocols"]["pairwise-swap"]
    assert [row["model"] for row in rows["ratings"]["models"]] == ["a", "b", "c"]
