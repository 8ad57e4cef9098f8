"""The page shows the scores of every scale, also where no score is a share of another."""

from pathlib import Path

import orjson
import pytest

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import storage
from apps.eval.calls import journal
from apps.eval.calls.reply import Reply
from apps.eval.config import JudgeConfig, ReportConfig
from apps.eval.folder import questions_uri, write_plan
from apps.eval.judging.plan import make_plan
from apps.eval.judging.prices import Price
from apps.eval.records.answer import Answer, answers_uri
from apps.eval.records.question import Question, dump_questions
from apps.eval.report import report

PRICE = Price(usd_per_million_prompt_tokens=1.0, usd_per_million_completion_tokens=1.0)
RUBRIC = "name: own\nshows: single\ninstruction: Judge.\n"


def judged(folder: Path, rubric: str, verdicts: dict[str, str]) -> str:
    """A folder in which every answer of a model got the same verdict."""
    protocol, directory = folder / "own.yaml", str(folder / "eval")
    protocol.write_text(RUBRIC + rubric)
    questions = [Question(question_id=str(i), category="c", turns=("?",)) for i in range(4)]
    storage.write_atomic(questions_uri(directory), dump_questions(questions))
    answers = {
        name: {
            q.question_id: Answer(question_id=q.question_id, turn_texts=(name,), model=name)
            for q in questions
        }
        for name in verdicts
    }
    for name, made in answers.items():
        lines = b"".join(item.to_json() for item in made.values())
        storage.write_atomic(answers_uri(directory, name), lines)
    config = JudgeConfig(
        dir=directory, protocol=str(protocol), judge=("judge-4",), self_checks=0, canaries=False
    )
    plan = make_plan(config, questions, answers)
    write_plan(config, plan)
    said = [
        call.response_line(
            Reply(
                text=f"{call.nonce} [[{verdicts[call.models[0]]}]]",
                finish_reason="stop",
                prompt_tokens=1,
                completion_tokens=1,
            ),
            PRICE,
            created_s=1.0,
        )
        for call in plan.calls
    ]
    lines = b"".join(orjson.dumps(line) + b"\n" for line in said)
    storage.write_atomic(journal.raw_path(directory), lines)
    return directory


@pytest.mark.parametrize(
    ("rubric", "verdicts", "scale", "has_shares"),
    [
        ("format: choice\nlabels: {bad: -1, fine: 0, good: 1}", ("good", "bad"), [-1, 1], False),
        ("format: rating\nscale: [0, 100]", ("80", "40"), [0, 100], False),
        ("format: rating\nscale: [1, 5]", ("4", "2"), [1, 5], True),
    ],
)
def test_scores_of_every_scale_are_shown(
    tmp_path: Path, rubric: str, verdicts: tuple[str, str], scale, has_shares: bool
) -> None:
    directory = judged(tmp_path, rubric, dict(zip("ab", verdicts, strict=True)))
    report(ReportConfig(dir=directory), Reporter("json"))
    record = storage.read_json(f"{directory}/report.json")
    found = record["protocols"]["own"]
    assert found["scale"] == scale
    assert all(one["scale"] == scale for one in record["evidence"]["judgments"]), "the page tells"
    assert (found.get("relative_quality") is not None) == has_shares
    page = (Path(directory) / "report.html").read_text()
    assert f"Mean score of {scale[1]}" in page and f"mean of {scale[1]}" in page


def test_scores_of_two_runs_on_different_scales_are_not_compared(tmp_path: Path, capsys) -> None:
    """A rubric that went from five points to ten would double every model."""
    folders = {}
    for high, verdicts in ((5, {"a": "4", "b": "2"}), (10, {"a": "8", "b": "4"})):
        (tmp_path / str(high)).mkdir()
        rubric = f"format: rating\nscale: [1, {high}]"
        folders[high] = judged(tmp_path / str(high), rubric, verdicts)
    report(ReportConfig(dir=folders[10], previous=folders[5]), Reporter("json"))
    assert "own gave scores from 1 to 5 in" in capsys.readouterr().out
    figures = storage.read_json(f"{folders[10]}/report.json")["protocols"]["own"]
    assert figures.get("comparison") is None
    report(ReportConfig(dir=folders[10], previous=folders[10]), Reporter("json"))
    figures = storage.read_json(f"{folders[10]}/report.json")["protocols"]["own"]
    assert figures["comparison"]["models"]["a"]["now"] == 8


@pytest.mark.parametrize(
    "text",
    [
        *("{not json", "[1, 2]", "{}", '{"questions": 1, "texts": 2, "contaminated": 3}'),
        '{"questions": 1, "texts": 2, "contaminated": [{"question_id": "1"}]}',
    ],
)
def test_another_file_than_contaminations_is_refused(tmp_path: Path, text: str) -> None:
    directory = judged(tmp_path, "format: rating", {"a": "4"})
    path = tmp_path / "contamination.json"
    row = {"question_id": "1", "overlap": 1.0, "similarity": 1, "example": "Why?"}
    path.write_bytes(orjson.dumps({"questions": 1, "texts": 2, "contaminated": [row]}))
    report(ReportConfig(dir=directory, contamination=str(path)), Reporter("json"))
    assert "Why?" in (Path(directory) / "report.html").read_text()
    path.write_text(text)
    with pytest.raises(InputError, match=r"is not what .* makes"):
        report(ReportConfig(dir=directory, contamination=str(path)), Reporter("json"))
