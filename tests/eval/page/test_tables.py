"""The heat tables have a row for every model that has figures."""

from apps.eval.page.tables import heat_tables
from apps.eval.records.question import Question
from apps.eval.scores.protocol import protocol_figures
from apps.eval.scores.statistics import Resampling
from tests.eval.scores.test_scores import answers, judgment


def test_a_model_whose_contests_all_miss_a_judgment_has_scores_and_stands_last() -> None:
    """The report of such a run ended in a traceback."""
    judged = [judgment(2, order, "q0", models=("b", "c"), scores=(8.0, 6.0)) for order in (0, 1)]
    judged += [judgment(1, 0, "q0", models=("a", "b"), scores=(9.0, 8.0))]
    judged += [judgment(None, 1, "q0", models=("a", "b"), scale=None)]
    question = Question(question_id="q0", category="x", turns=("Why?",))
    figures = protocol_figures(judged, [question], answers(a=1, b=1, c=1), Resampling())
    (table,) = heat_tables(figures)
    assert {name: row["x"] for name, row in table.rows.items()} == {"b": 8.0, "c": 6.0, "a": 9.0}
    assert [*table.rows] == ["b", "c", "a"]
