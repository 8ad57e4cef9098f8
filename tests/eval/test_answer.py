"""Only what a model said as its answer is stored; the rest is asked again."""

import json
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from apps.eval.calls.hold import hold_answers
from tests.eval.commands import command, jsonl
from tests.eval.scripted_judge import Script, completion

CALL = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}


def said(reason: str, text: str | None = "", **message: object) -> dict[str, object]:
    return {
        "index": 0,
        "finish_reason": reason,
        "message": {"role": "assistant", "content": text, **message},
    }


def answered(tmp_path: Path, serve, choice: dict[str, object]) -> tuple[int, list[dict]]:
    """(exit code, lines of answers) of one question that is answered with a choice."""

    def handle(request: web.Request, body: dict) -> web.StreamResponse:
        return web.json_response({**completion(body, "", is_cut=False), "choices": [choice]})

    server, out = serve(Script(handle=handle)), tmp_path / "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?"]}])
    model = ["--model", f"m={server.url}", "--max-attempts", "2"]
    code = command("answer", "--questions", questions, "--out", str(out), *model)
    file = out / "answers" / "m.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return code, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (said("tool_calls", None, tool_calls=[CALL]), "a tool's call (tool_calls)"),
        (said("stop", None, tool_calls=[CALL]), "a tool's call (tool_calls)"),
        (said("stop", reasoning_content="long thoughts"), "only thoughts"),
        (said("stop", "<think>long thoughts</think>"), "only thoughts"),
        (said("model_length"), "1 were cut off before any text"),
        (said("MAX_TOKENS"), "1 were cut off before any text"),
        (said("error", "Paris is the"), "the endpoint broke off its answer"),
        (said("abort", "Paris is the"), "the endpoint broke off its answer"),
    ],
)
def test_what_is_no_answer_is_not_stored(
    tmp_path: Path, serve, capsys, choice: dict[str, object], told: str
) -> None:
    code, lines = answered(tmp_path, serve, choice)
    assert code == 1 and lines == []
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("choice", "text", "reason"),
    [
        (said("stop", "Paris."), "Paris.", "stop"),
        (said("eos_token", "Paris."), "Paris.", "stop"),
        (said("max_tokens", "Paris is"), "Paris is", "length"),
        (said("stop", ""), "", "stop"),
        (said("stop", "Paris.", tool_calls=[CALL]), "Paris.", "stop"),
        (said("stop", "R1 writes `</think>`, then answers."), None, "stop"),
    ],
)
def test_what_a_model_said_is_stored_whole(
    tmp_path: Path, serve, choice: dict[str, object], text: str | None, reason: str
) -> None:
    code, (line,) = answered(tmp_path, serve, choice)
    whole = "R1 writes `</think>`, then answers." if text is None else text
    assert code == 0 and line["turn_texts"] == [whole]
    assert line["finish_reasons"] == [reason]


def test_models_are_asked_at_the_same_time(tmp_path: Path, serve) -> None:
    server, out = serve(Script(latency_s=0.5, answer=lambda model, _: f"I am {model}.")), "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Who?"]}])
    models = ["--model", f"a={server.url}#m-a", f"b={server.url}#m-b"]
    told = ["answer", "--questions", questions, "--out", str(tmp_path / out), *models]
    assert command(*told) == 0 and server.most_in_flight == 2
    for name in "ab":
        line = json.loads((tmp_path / out / "answers" / f"{name}.jsonl").read_text())
        assert line["turn_texts"] == [f"I am m-{name}."]


def test_models_of_one_account_share_what_it_allows(tmp_path: Path, serve) -> None:
    server = serve(Script(latency_s=0.05, answer=lambda *_: "Paris."))
    questions = jsonl(
        tmp_path / "q.jsonl", [{"question_id": str(n), "turns": [f"{n}?"]} for n in range(6)]
    )
    models = [f"m{number}={server.url}#m{number}" for number in range(4)]
    told = ["answer", "--questions", questions, "--out", str(tmp_path / "eval")]
    assert command(*told, "--concurrency", "3", "--model", *models) == 0
    assert server.requests.total() == 24 and server.most_in_flight == 3


def test_a_dead_model_beside_a_living_one_of_its_account_is_given_up(
    tmp_path: Path, serve, monkeypatch, capsys
) -> None:
    """Only the account's gate paused for outages, and it hears the living model's answers."""
    monkeypatch.setattr("apps.eval.calls.outage.FIRST_OUTAGE_S", 0.0)

    def handle(request: web.Request, body: dict) -> web.StreamResponse | None:
        return web.json_response({"error": "down"}, status=503) if body["model"] == "dead" else None

    server = serve(Script(handle=handle, answer=lambda *_: "Paris."))
    questions = jsonl(
        tmp_path / "q.jsonl", [{"question_id": str(n), "turns": [f"{n}?"]} for n in range(60)]
    )
    models = ["--model", f"live={server.url}#live", f"dead={server.url}#dead"]
    told = ["answer", "--questions", questions, "--out", str(tmp_path / "eval"), *models]
    assert command(*told, "--concurrency", "8", "--max-attempts", "20") == 1
    asked = Counter(body["model"] for body in server.bodies)
    assert asked["live"] == 60 and 24 <= asked["dead"] <= 40
    assert "dead has answered nothing for" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("well", "asked"), [(0, 5), (9, 9 + 24)])
def test_a_model_that_only_breaks_off_is_given_up(
    tmp_path: Path, serve, monkeypatch, capsys, well: int, asked: int
) -> None:
    """Each of its replies is paid for, and the next run asks for them again."""
    monkeypatch.setattr("apps.eval.calls.retry.MAX_WAIT_S", 0.01)
    served = 0

    def handle(request: web.Request, body: dict) -> web.StreamResponse | None:
        nonlocal served
        served += 1
        broken = {**completion(body, "", is_cut=False), "choices": [said("error", "Paris is")]}
        return None if served <= well else web.json_response(broken)

    server, out = serve(Script(handle=handle, answer=lambda *_: "Paris.")), tmp_path / "eval"
    questions = jsonl(
        tmp_path / "q.jsonl", [{"question_id": str(n), "turns": [f"{n}?"]} for n in range(60)]
    )
    told = ["answer", "--questions", questions, "--out", str(out), "--model", f"m={server.url}"]
    assert command(*told, "--concurrency", "4") == 1
    assert asked <= server.requests.total() <= asked + 4
    assert "in a row were paid and say nothing" in " ".join(capsys.readouterr().err.split())


def test_a_question_that_breaks_off_is_paid_for_a_few_times(
    tmp_path: Path, serve, monkeypatch
) -> None:
    monkeypatch.setattr("apps.eval.calls.retry.MAX_WAIT_S", 0.01)

    def handle(request: web.Request, body: dict) -> web.StreamResponse | None:
        broken = {**completion(body, "", is_cut=False), "choices": [said("error", "Paris is")]}
        return web.json_response(broken) if "3?" in str(body["messages"]) else None

    server = serve(Script(handle=handle, answer=lambda *_: "Paris."))
    questions = jsonl(
        tmp_path / "q.jsonl", [{"question_id": str(n), "turns": [f"{n}?"]} for n in range(6)]
    )
    told = ["answer", "--questions", questions, "--out", str(tmp_path / "eval")]
    assert command(*told, "--model", f"m={server.url}", "--max-attempts", "20") == 1
    assert sorted(server.requests.values()) == [1] * 5 + [5]


def test_nothing_is_asked_beside_answers_of_other_settings(tmp_path: Path, serve, capsys) -> None:
    server, out = serve(Script(answer=lambda *_: "Paris.")), tmp_path / "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?"]}])
    told = ["answer", "--questions", questions, "--out", str(out), "--temperature"]
    assert command(*told, "0", "--model", f"b={server.url}") == 0
    both = ["--model", f"a={server.url}", f"b={server.url}"]
    assert command(*told, "1", *both) == 2 and server.requests.total() == 1
    assert "b answered question 1 with" in " ".join(capsys.readouterr().err.split())


def test_two_runs_do_not_ask_one_model_for_one_folder(tmp_path: Path, serve, capsys) -> None:
    """Both would pay for every answer."""
    server, out = serve(Script(answer=lambda *_: "Paris.")), tmp_path / "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?"]}])
    told = ["answer", "--questions", questions, "--out", str(out), "--model"]
    held = hold_answers(str(out / "answers" / "a.jsonl"), "a")
    assert command(*told, f"a={server.url}", f"b={server.url}") == 2
    assert "another run is asking a for" in " ".join(capsys.readouterr().err.split())
    assert server.requests.total() == 0 and command(*told, f"b={server.url}") == 0
    held.release()
    assert command(*told, f"a={server.url}", f"b={server.url}") == 0


def test_answers_under_another_system_prompt_are_not_mixed(tmp_path: Path, serve, capsys) -> None:
    server, out = serve(Script(answer=lambda *_: "Paris.")), tmp_path / "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?"]}])
    told = ["answer", "--questions", questions, "--out", str(out), "--model", f"m={server.url}"]
    assert command(*told, "--system", "Be brief.") == 0
    assert command(*told, "--system", "Be brief.") == 0
    for other in ([], ["--system", "Be thorough."]):
        assert command(*told, *other) == 2
    assert server.requests.total() == 1
    assert "'system': 'Be brief.'" in " ".join(capsys.readouterr().err.split())
    file = out / "answers" / "m.jsonl"
    line = json.loads(file.read_text())
    del line["sampling"]["system"]
    file.write_text(json.dumps(line) + "\n")
    assert command(*told) == 0, "older lines do not tell it"


def test_thoughts_in_imported_answers_are_kept_apart(tmp_path: Path) -> None:
    out = tmp_path / "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?", "Why?"]}])
    turns = ["<think>\nFrance, so\n</think>\n\nParis.", "Because `</think>` ends a thought."]
    given = {"question_id": "1", "choices": [{"turns": turns}]}
    answers = f"m={jsonl(tmp_path / 'a.jsonl', [given])}"
    assert command("answer", "--questions", questions, "--out", str(out), "--answers", answers) == 0
    line = json.loads((out / "answers" / "m.jsonl").read_text())
    assert line["turn_texts"] == ["Paris.", turns[1]] and line["thoughts"] == ["France, so", ""]


def test_refused_answers_leave_nothing_in_the_folder(tmp_path: Path, capsys) -> None:
    out = tmp_path / "eval"
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?"]}])
    others = jsonl(tmp_path / "o.jsonl", [{"question_id": "7", "text": "Paris."}])
    told = ["answer", "--questions", questions, "--out", str(out), "--answers"]
    assert command(*told, f"m={jsonl(tmp_path / 'empty.jsonl', [])}") == 2 and not out.exists()
    assert "holds no answers" in capsys.readouterr().err
    assert command(*told, f"m={others}") == 2 and not out.exists()
    assert "answers none of the questions" in " ".join(capsys.readouterr().err.split())


def test_the_mark_of_a_failed_request_is_no_answer(tmp_path: Path, capsys) -> None:
    questions = jsonl(tmp_path / "q.jsonl", [{"question_id": "1", "turns": ["Capital?", "Why?"]}])
    given = {"question_id": "1", "choices": [{"turns": ["Paris.", "$ERROR$"]}]}
    answers = f"m={jsonl(tmp_path / 'a.jsonl', [given])}"
    out = tmp_path / "eval"
    assert command("answer", "--questions", questions, "--out", str(out), "--answers", answers) == 2
    assert "question 1 with '$ERROR$'" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
