"""The next contests go where the order is open, and a settled order ends the judging."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.eval.adaptive import information
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
    assert not information.is_settled(standings, FAR + FAR.T, LEFT, 0.95)
    assert information.is_settled(standings, FAR + FAR.T, LEFT, 0.6)
    used_up = LEFT.copy()
    used_up[1, 2] = used_up[2, 1] = 0
    assert information.is_settled(standings, FAR + FAR.T, used_up, 0.95)
    assert information.next_contests(standings, FAR + FAR.T, np.zeros((3, 3)), 5) == []


def test_models_that_meet_a_baseline_alone_are_told_apart_through_it() -> None:
    """The first is far above both others, which never meet and whose order is open."""
    won = wins([[0, 36, 34], [4, 0, 0], [6, 0, 0]])
    left = wins([[0, 40, 40], [40, 0, 0], [40, 0, 0]])
    standings = information.fit(won)
    assert standings.neighbours() == [(0, 2), (2, 1)] and standings.doubt(0, 2) < 0.01
    assert not information.is_settled(standings, won + won.T, left, 0.95)
    picked = information.next_contests(standings, won + won.T, left, 20)
    assert 5 <= picked.count((0, 1)) <= 15
    assert information.is_settled(standings, won + won.T, np.zeros((3, 3)), 0.95), "all is asked"


def settled_wrongly(seed: int, spread: float) -> tuple[int, int]:
    """Of a league of five judged until it is settled: neighbours in a wrong order, and all."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0.0, spread, 5)
    chance = 1 / (1 + np.exp(true[None] - true[:, None]))
    won, left = np.zeros((5, 5)), 80.0 * (1 - np.eye(5))
    while True:
        standings = information.fit(won)
        if won.any() and information.is_settled(standings, won + won.T, left, 0.95):
            break
        for pair in information.next_contests(standings, won + won.T, left, 12):
            won[pair if rng.random() < chance[pair] else pair[::-1]] += 1
            left[pair] -= 1
            left[pair[::-1]] -= 1
    claimed = [pair for pair in standings.neighbours() if left[pair] > 0]
    return sum(true[a] < true[b] for a, b in claimed), len(claimed)


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_an_order_called_settled_at_95_is_seldom_wrong(spread: float) -> None:
    """Though it is looked at after every round."""
    wrong, claimed = np.sum([settled_wrongly(seed, spread) for seed in range(15)], axis=0)
    assert claimed > 15 and wrong <= 0.08 * claimed


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
