"""Style control gives back what style explains, and says how sure it is."""

import numpy as np
import pytest

from apps.eval.records.answer import Answer
from apps.eval.scores.judgments import Contest
from apps.eval.scores.style_control import STYLES, controlled, style

LIST = "\n".join(f"- point {i}" for i in range(6))


def made(text: str, question: str = "q") -> Answer:
    return Answer(question_id=question, turn_texts=(text,), model="m")


def test_marks_are_counted_outside_code() -> None:
    text = "# Title\n\n- one\n- two\n1. three\n**bold** and __more__\n```\n# no\n- no\n```"
    assert style(made(text)) == (float(len(text)), 3.0, 1.0, 2.0)


def battles(seed: int, list_effect: float, gap: float, n: int = 400):
    """Contests of equal length in which a list moves the judge by `list_effect` log-odds."""
    rng = np.random.default_rng(seed)
    held, answers = [], {"a": {}, "b": {}}
    for i in range(n):
        has = {"a": rng.random() < 0.8, "b": rng.random() < 0.2}
        for name in ("a", "b"):
            answers[name][f"q{i}"] = made(LIST if has[name] else "x" * len(LIST), f"q{i}")
        difference = (int(has["a"]) - int(has["b"])) * 6 / 7
        p = 1 / (1 + np.exp(-(gap + list_effect * difference)))
        outcome = float(rng.random() < p)
        fields = {"judge": "j", "repeat": 0, "kind": "contest", "is_consistent": None}
        held.append(Contest(question_id=f"q{i}", models=("a", "b"), outcome=outcome, **fields))
    return held, answers


def test_wins_that_lists_explain_are_taken_back() -> None:
    found = controlled(*battles(1, list_effect=2.0, gap=0.0))
    assert found is not None
    (pair,) = found.pairs
    assert pair.raw > 0.65 and pair.low <= 0.5 <= pair.high
    effects = {effect.style: effect for effect in found.effects}
    assert tuple(effects) == STYLES
    assert effects["list items"].low > 0.5
    assert effects["headings"].low <= 0 <= effects["headings"].high


def test_the_interval_of_an_effect_holds_it() -> None:
    held = 0
    for seed in range(60):
        found = controlled(*battles(seed, list_effect=1.0, gap=0.3, n=300))
        assert found is not None
        effect = found.effects[STYLES.index("list items")]
        held += effect.low <= 1.0 <= effect.high
    assert held >= 53


def alike(outcomes: list[float], judges: int = 1):
    """Contests whose answers differ in length alone, which moves nobody."""
    rng = np.random.default_rng(len(outcomes))
    answers = {
        name: {f"q{i}": made("x" * int(rng.integers(50, 400)), f"q{i}") for i in range(99)}
        for name in ("a", "b")
    }
    fields = {"repeat": 0, "kind": "contest", "is_consistent": None}
    held = [
        Contest(question_id=f"q{i}", models=("a", "b"), outcome=outcome, judge=f"j{j}", **fields)
        for i, outcome in enumerate(outcomes)
        for j in range(judges)
    ]
    found = controlled(held, answers)
    assert found is not None
    return found


@pytest.mark.parametrize("judges", [1, 3])
def test_outcomes_that_are_all_alike_claim_no_certainty(judges: int) -> None:
    """80 of 80 were said to be 97.2 to 98.0 %, and ten ties 50.0 to 50.0 %."""
    for n, low in ((1, 0.4), (10, 0.85), (80, 0.97)):
        (won,) = alike([1.0] * n, judges).pairs
        (lost,) = alike([0.0] * n, judges).pairs
        assert won.low < low and won.high == 1.0 and lost.low == 0.0
        found = alike([0.5] * n, judges)
        assert found.pairs[0].high - found.pairs[0].low > 0.5 / (n + 3)
        assert all(effect.high - effect.low > 0 for effect in found.effects[:1])


@pytest.mark.parametrize(("n", "share"), [(3, 0.5), (10, 0.5), (10, 0.7), (80, 0.5), (80, 0.9)])
def test_the_interval_of_a_rate_holds_it(n: int, share: float) -> None:
    rng = np.random.default_rng(7)
    pairs = [alike([float(rng.random() < share) for _ in range(n)]).pairs[0] for _ in range(400)]
    assert np.mean([pair.low <= share <= pair.high for pair in pairs]) >= 0.92
