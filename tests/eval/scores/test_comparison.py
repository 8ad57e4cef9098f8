"""Two runs side by side: what moved, and which questions turned."""

import pytest

from apps.eval.scores.comparison import compare_runs
from apps.eval.scores.statistics import Resampling
from tests.eval.scores.test_scores import judgment


def run(leads: list[int], judge: str = "j") -> list:
    return [
        judgment(lead, order, f"q{i}", judge=judge)
        for i, lead in enumerate(leads)
        for order in (0, 1)
    ]


def test_a_question_that_the_other_model_wins_now_has_turned() -> None:
    found = compare_runs(run([1, 1, -1, 0]), run([1, -1, -1, 1, 1], "k"), Resampling())
    assert found is not None
    assert (found.n, found.only_now, found.only_before, found.num_turned) == (4, 0, 1, 1)
    (turned,) = found.turned
    assert (turned.question_id, turned.before, turned.now) == ("q1", 0.0, 1.0)
    a, b = found.models["a"], found.models["b"]
    assert (a.before, a.now) == (0.5, 0.625) and (b.before, b.now) == (0.5, 0.375)
    assert a.low < 0.125 < a.high
    assert (found.judges_now, found.judges_before) == (("j",), ("k",))


def test_a_score_turns_when_it_moves_by_two() -> None:
    def scored(*values: float) -> list:
        return [
            judgment(None, 0, f"q{i}", models=("a",), scores=(value,), status="ok")
            for i, value in enumerate(values)
        ]

    found = compare_runs(scored(8, 5, 7), scored(8.5, 7, 7), Resampling())
    assert found is not None
    assert [(t.question_id, t.before, t.now) for t in found.turned] == [("q1", 7.0, 5.0)]
    assert found.models["a"].now - found.models["a"].before < 0


@pytest.mark.parametrize("scale", [(0.0, 100.0), (0.0, 1.0), (1.0, 5.0), (-1.0, 1.0)])
def test_what_counts_as_turned_is_a_share_of_the_scale(scale: tuple[float, float]) -> None:
    def scored(*shares: float) -> list:
        low, high = scale
        return [
            judgment(
                None,
                question=f"q{i}",
                models=("a",),
                scores=(low + share * (high - low),),
                scale=scale,
                status="ok",
            )
            for i, share in enumerate(shares)
        ]

    width = scale[1] - scale[0]
    before = [0.1 + i / 200 for i in range(40)]
    found = compare_runs(scored(*(share + 0.5 for share in before)), scored(*before), Resampling())
    assert found is not None and found.num_turned == 40
    a = found.models["a"]
    assert a.low < a.now - a.before < a.high <= width
    assert a.high - a.low < 0.2 * width
    found = compare_runs(scored(*(share + 0.2 for share in before)), scored(*before), Resampling())
    assert found is not None and found.num_turned == 0


def test_runs_without_a_common_question_are_not_compared() -> None:
    other = [judgment(1, order, "elsewhere") for order in (0, 1)]
    assert compare_runs(run([1]), other, Resampling()) is None
