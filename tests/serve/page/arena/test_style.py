"""Style control: length that buys votes is taken out of the ratings, and found as an effect."""

import numpy as np

from apps.serve.page.arena.style import StyledVote, controlled, features


def test_features_count_what_people_see() -> None:
    assert features("# Head\n\n- a\n- **b**\n1. c") == [24, 1, 3, 1]
    assert features("") == [0, 0, 0, 0]


def votes_for_length(num_votes: int) -> list[StyledVote]:
    """Two models of one strength; voters like the longer answer, and `wordy` is longer."""
    rng = np.random.default_rng(3)
    found = []
    for i in range(num_votes):
        wordy, terse = "x" * int(rng.integers(300, 900)), "y" * int(rng.integers(100, 700))
        lean = 2.0 * (len(wordy) - len(terse)) / (len(wordy) + len(terse))
        won = float(rng.random() < 1 / (1 + np.exp(-lean)))
        sides = (("wordy", wordy, won), ("terse", terse, 1 - won))
        left, right = sides if i % 2 else sides[::-1]
        found.append(
            StyledVote(
                visitor_id=f"v{i % 150}",
                left=left[0],
                right=right[0],
                outcome=left[2],
                left_text=left[1],
                right_text=right[1],
            )
        )
    return found


def test_length_that_wins_votes_is_an_effect_and_not_a_strength() -> None:
    votes = votes_for_length(1500)
    won = [v.outcome if v.left == "wordy" else 1 - v.outcome for v in votes]
    assert np.mean(won) > 0.55, "without control the wordy one leads"
    table = controlled(votes)
    rows = {row.model: row for row in table.ratings}
    assert rows["wordy"].low <= rows["terse"].high and {row.rank for row in table.ratings} == {1}
    assert 1.3 < table.effects["length"] < 2.7
    assert abs(table.effects["bold"]) < 0.01


def test_no_votes_are_an_empty_table_and_one_is_finite() -> None:
    assert controlled([]).ratings == []
    one = controlled(votes_for_length(1))
    assert all(500 < row.low <= row.rating <= row.high < 1500 for row in one.ratings)
