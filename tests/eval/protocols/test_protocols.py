"""One's own rubric works wherever a built-in one does."""

import json
from pathlib import Path

import pytest
from aiohttp import web

from apps.common.errors import ConfigError, InputError
from apps.eval.config import JudgeConfig
from apps.eval.judging.call import digest
from apps.eval.judging.manifest import prompts_digest
from apps.eval.judging.plan import make_plan
from apps.eval.protocols.form import Form
from apps.eval.protocols.load import BUILT_IN, load_protocol
from apps.eval.protocols.parsing import parse
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question
from tests.eval.commands import command, jsonl
from tests.eval.scripted_judge import Script, completion

BREVITY = """
name: brevity
shows: single
format: rating
scale: [1, 5]
instruction: "Rate from 1 to 5 how concise the answer is, as in {short: true}."
"""
TONE = """
name: tone
shows: pair
orders: [0, 1]
format: choice
labels: {first is kinder: 1, no difference: 0, second is kinder: -1}
instruction: Decide which assistant is kinder to the user.
instructions: {math: Decide which assistant explains more patiently.}
shows_references: false
system: You are a kind judge.
"""
LETTERS = """
name: letters
shows: pair
format: letter
instruction: Decide which assistant is kinder to the user.
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def plan_of(protocol: str, category: str = "generic"):
    question = Question(
        question_id="1", category=category, turns=("Tell me",), reference=("Reference text",)
    )
    answers = {
        name: {"1": Answer(question_id="1", turn_texts=(f"{name} text",), model=name)}
        for name in ("a", "b")
    }
    config = JudgeConfig(
        dir="x", protocol=protocol, judge=("judge-4",), self_checks=0, canaries=False
    )
    return make_plan(config, [question], answers)


def test_a_rubric_of_ones_own_says_what_the_judge_is_asked(tmp_path: Path) -> None:
    plan = plan_of(written(tmp_path, BREVITY))
    assert plan.protocol == "brevity" and len(plan.calls) == 2
    call = plan.calls[0]
    task = call.messages[1]["content"]
    assert "as in {short: true}." in task and f"{call.nonce} [[3]]" in task
    assert "from 1 to 5 in place of 3" in task and "Reference text" in task


def test_a_choice_has_its_own_labels_orders_system_and_tasks(tmp_path: Path) -> None:
    plan = plan_of(written(tmp_path, TONE), "math")
    assert [call.order for call in plan.calls] == [0, 1]
    system, task = (message["content"] for message in plan.calls[0].messages)
    assert system == "You are a kind judge." and "more patiently" in task
    assert "first is kinder, no difference, second is kinder" in task
    assert "Reference text" not in task


@pytest.mark.parametrize(
    ("text", "status", "scores"),
    [
        ("Short. tag [[4]]", "ok", (4,)),
        ("tag [[4/5]]", "ok", (4,)),
        ("tag [[6]]", "unparsed", None),
        ("tag [[4/10]]", "unparsed", None),
        ('{"rating": 2}', "ok", (2,)),
        ("tag [[0]]", "unparsed", None),
    ],
)
def test_a_scale_of_ones_own_is_held(text: str, status: str, scores) -> None:
    parsed = parse(text, Form(fmt="rating", low=1, high=5), nonce="tag")
    assert (parsed.status, parsed.scores) == (status, scores)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("tag [[First is kinder]]", "A"),
        ("Verdict: second is kinder.", "B"),
        ('{"verdict": "no difference"}', "C"),
        ("[[third is kinder]]", None),
    ],
)
def test_a_choice_between_two_answers_is_a_verdict(text: str, verdict: str | None) -> None:
    labels = (("first is kinder", 1.0), ("no difference", 0.0), ("second is kinder", -1.0))
    form = Form(fmt="choice", labels=labels, is_pair=True)
    assert parse(text, form, nonce="tag").verdict == verdict


def test_a_choice_about_one_answer_is_a_score() -> None:
    form = Form(fmt="choice", labels=(("pass", 1.0), ("fail", 0.0)))
    assert parse("tag [[pass]]", form, nonce="tag").scores == (1.0,)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BREVITY.replace("rating", "letter"), "shows one answer"),
        (BREVITY.replace("[1, 5]", "[5, 1]"), "the lower first"),
        (BREVITY.replace("[1, 5]", "[1, .inf]"), "the lower first"),
        (BREVITY.replace("[1, 5]", "[.nan, 5]"), "the lower first"),
        (TONE.replace("no difference", "FIRST is kinder"), "more than their capitals"),
        (TONE.replace("no difference", "' '"), "more than their capitals"),
        (TONE.replace("no difference: 0", "no difference: .nan"), "expected numbers"),
        (TONE.replace(": -1", ": 1").replace(": 0", ": 1"), "all worth the same"),
        (BREVITY.replace("brevity", "single"), "a built-in protocol has the name"),
        (BREVITY.replace("brevity", "a/b"), "is not letters"),
        (BREVITY.replace("shows: single", "shows: three"), "three"),
        (BREVITY + "wait: 1", "wait"),
        (TONE.replace("[0, 1]", "[2]"), "expected 0, 1 or both"),
        (TONE.replace("format: choice", "format: letter"), "only it has labels"),
        (TONE.replace("format: choice", "format: rating"), "expected format scores"),
        ("shows: pair", "missing"),
        (TONE.replace(": -1", ": .5"), "one below 0"),
        (TONE.replace("[0, 1]", "[0, 0]"), "expected 0, 1 or both"),
        (TONE.replace("Decide which assistant explains more patiently.", "' '"), "is empty"),
        (TONE + "names: [Ann, Ann]", "two that differ"),
        (LETTERS + "names: [B, A]", "says A or B"),
        (LETTERS + "max_tokens: 0", "max_tokens is 0"),
        (LETTERS + "temperature: -1", "temperature is -1"),
    ],
)
def test_a_wrong_rubric_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_protocol(written(tmp_path, text))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ("{yes: 1, no: 0}", ["yes", "no"]),
        ("{On: 1, OFF: 0}", ["On", "OFF"]),
        ("{null: 0, ~: 1}", ["null", "~"]),
        ("{1: 0, 2: 1}", ["1", "2"]),
    ],
)
def test_labels_are_the_words_that_are_written(tmp_path: Path, labels: str, names: list) -> None:
    text = f"name: own\nshows: single\nformat: choice\nlabels: {labels}\ninstruction: Judge.\n"
    protocol = load_protocol(written(tmp_path, text))
    assert [*protocol.labels] == names
    (worth,) = parse(f"tag [[{names[1]}]]", protocol.form, nonce="tag").scores or ()
    assert worth == protocol.labels[names[1]]


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="expected vicuna-blog, pairwise-swap"):
        load_protocol("mine")


def test_the_offline_judge_cannot_read_a_rubric(tmp_path: Path) -> None:
    config = JudgeConfig(dir="x", protocol=written(tmp_path, BREVITY))
    question = Question(question_id="1", category="c", turns=("?",), reference=("R",))
    answers = {"a": {"1": Answer(question_id="1", turn_texts=("x",), model="a")}}
    with pytest.raises(InputError, match="cannot read the task of brevity"):
        make_plan(config, [question], answers)


def test_the_wording_of_the_built_in_protocols_does_not_change_unseen() -> None:
    """What is stored under their keys was asked in these words."""
    digests = {name: prompts_digest(plan_of(name, "math").calls) for name in BUILT_IN}
    assert digest(digests) == "462cb821ec2fa11d4ecb1c4ad47345b6"


@pytest.mark.ray
def test_a_rubric_is_judged_and_reported(tmp_path: Path, serve, ray_address: str, capsys) -> None:
    def kind(request: web.Request, body: dict) -> web.StreamResponse:
        prompt = body["messages"][1]["content"]
        if "concise" in prompt:
            return web.json_response(completion(body, "So.\n[[2]]", is_cut=False))
        place = prompt.index("good says") < prompt.index("poor says")
        label = "first is kinder" if place else "second is kinder"
        return web.json_response(completion(body, f"So.\n[[{label}]]", is_cut=False))

    serve(Script(handle=kind))
    asked = [{"question_id": i, "category": "c", "turns": ["?"]} for i in range(3)]
    files = {
        name: jsonl(
            tmp_path / f"{name}.jsonl",
            [{"question_id": i, "text": f"{name} says {i}"} for i in range(3)],
        )
        for name in ("good", "poor")
    }
    out = tmp_path / "eval"
    questions = ["--questions", jsonl(tmp_path / "q.jsonl", asked), "--out", str(out)]
    answers = [f"{name}={file}" for name, file in files.items()]
    assert command("answer", *questions, "--answers", *answers) == 0
    for rubric in (TONE, BREVITY):
        judge = ["judge", str(out), "--protocol", written(tmp_path, rubric), "--judge", "judge-4"]
        assert command(*judge, "--self-checks", "0", "--no-canaries") == 0
    assert "3 questions give a mean score from 1 to 5 to +-" in capsys.readouterr().out
    assert command("report", str(out)) == 0
    found = json.loads((out / "report.json").read_text())["protocols"]
    (pair,) = found["tone"]["pairs"]
    assert (pair["win"], pair["tie"], pair["loss"]) == (3, 0, 0)
    assert {name: row["mean"] for name, row in found["brevity"]["scores"].items()} == {
        "good": 2.0,
        "poor": 2.0,
    }
    assert all(
        1 <= row["low"] < 2 < row["high"] <= 5 for row in found["brevity"]["scores"].values()
    )
