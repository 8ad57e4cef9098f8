from pathlib import Path

from apps.serve.page.arena.evaluation import Shelf, outcome_of
from tests.serve.page.live import Person

FOLDER = str(Path(__file__).parents[3] / "contracts" / "artifacts" / "evaluation")


def test_scores_and_verdicts_are_read_in_the_order_that_was_displayed() -> None:
    line = {"models": ["a", "b"], "order": 0, "status": "ok"}
    assert outcome_of({**line, "verdict": "A"}) == 1
    assert outcome_of({**line, "verdict": "B>>A"}) == 0
    assert outcome_of({**line, "verdict": "A", "order": 1}) == 0
    assert outcome_of({**line, "scores": [7, 7]}) == 0.5
    assert outcome_of({**line, "status": "refused"}) is None


def test_an_evaluation_folder_is_shown_with_both_orders(open_page) -> None:
    page = open_page({"a": lambda m: "x", "b": lambda m: "y"}, evaluation=FOLDER)
    person = Person(page.url)
    overview = person.http.get("/evaluation.json").json()
    first = overview["questions"][0]
    shown = person.http.get("/question.json", params={"id": first["id"]}).json()
    assert set(shown["answers"]) == {"base", "tuned"}
    assert [j["models"] for j in shown["judgments"][:2]] == [["base", "tuned"], ["tuned", "base"]]
    assert person.http.get("/question.json?id=../x").status_code == 404
    judge = person.http.get("/leaderboard.json").json()["judge"]
    assert judge[0]["model"] == "tuned"


def test_a_folder_that_is_not_there_yet_is_an_empty_shelf(tmp_path: Path) -> None:
    assert Shelf(str(tmp_path / "none")).evaluation().questions == ()
