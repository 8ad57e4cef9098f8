import shutil
from dataclasses import replace
from pathlib import Path

from apps.common.files import parts, storage
from apps.serve.page.arena.evaluation import Shelf
from apps.serve.page.arena.evaluation_lines import JudgmentLine
from tests.serve.page.live import Person

FOLDER = str(Path(__file__).parents[3] / "contracts" / "artifacts" / "evaluation")


def test_scores_and_verdicts_are_read_in_the_order_that_was_displayed() -> None:
    line = JudgmentLine(
        question_id="1", models=("a", "b"), order=0, judge="j", response_text="", status="ok"
    )
    assert replace(line, verdict="A").outcome() == 1
    assert replace(line, verdict="B>>A").outcome() == 0
    swapped = replace(line, verdict="A", order=1)
    assert (swapped.outcome(), swapped.winner(), swapped.displayed) == (0, "b", ("b", "a"))
    assert replace(line, scores=(7, 7)).winner() == "tie"
    assert replace(line, status="refused").outcome() is None


def test_an_evaluation_folder_is_shown_with_both_orders(open_page) -> None:
    page = open_page({"a": lambda m: "x", "b": lambda m: "y"}, evaluation=FOLDER)
    person = Person(page.url)
    overview = person.http.get("/evaluation.json").json()
    first = overview["questions"][0]
    assert overview["models"] == ["base", "tuned"] and first["won_by"] == ["tuned"]
    shown = person.http.get("/question.json", params={"id": first["id"]}).json()
    assert set(shown["answers"]) == {"base", "tuned"}
    assert {j["winner"] for j in shown["judgments"]} == {"tuned"}
    assert [j["models"] for j in shown["judgments"][:2]] == [["base", "tuned"], ["tuned", "base"]]
    assert person.http.get("/question.json?id=../x").status_code == 404
    judge = person.http.get("/leaderboard.json").json()["judge"]
    assert judge[0]["model"] == "tuned"


def test_a_folder_in_a_bucket_is_shown_while_its_files_lie_in_parts(s3) -> None:
    s3.create_bucket(Bucket="evaluation")
    for path in Path(FOLDER).rglob("*.jsonl"):
        uri = f"s3://evaluation/{path.relative_to(FOLDER)}"
        if path.parent.name == "answers":
            for line in path.read_bytes().splitlines():
                parts.append(uri, line)
        else:
            storage.write_atomic(uri, path.read_bytes())
    shown, expected = Shelf("s3://evaluation").evaluation(), Shelf(FOLDER).evaluation()
    assert shown.questions and shown == expected


def test_lines_whose_writer_was_killed_are_not_there_yet(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "evaluation")
    for path in (*folder.glob("answers/*.jsonl"), *folder.glob("judgments/*.jsonl")):
        path.write_bytes(path.read_bytes() + b'\n{"question_id": "to\n{')
    assert Shelf(str(folder)).evaluation() == Shelf(FOLDER).evaluation()


def test_a_folder_that_is_not_there_yet_is_an_empty_shelf(tmp_path: Path) -> None:
    assert Shelf(str(tmp_path / "none")).evaluation().questions == ()
