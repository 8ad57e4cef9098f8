"""Judges and contestants of other people's endpoints, through the public commands."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from apps.common.command.events import Reporter
from apps.eval.calls.client import Endpoint as ClientEndpoint
from apps.eval.calls.client import connect
from apps.eval.calls.failure import CallFailure
from apps.eval.calls.retry import Asker
from tests.eval.commands import command, jsonl
from tests.eval.scripted_judge import Endpoint, Script, completion, error, respond

QUESTIONS = [
    {"question_id": i, "category": "generic", "turns": [f"Tell me about item {i}"]}
    for i in range(4)
]
LIMITS = ["--self-checks", "0", "--no-canaries", "--max-attempts", "2"]


def imported(tmp_path: Path) -> Path:
    """A folder with the answers of two chatbots."""
    good = [{"question_id": i, "text": f"I tell about item {i}"} for i in range(4)]
    poor = [{"question_id": i, "text": "No idea."} for i in range(4)]
    questions, out = jsonl(tmp_path / "q.jsonl", QUESTIONS), tmp_path / "eval"
    answers = [f"good={jsonl(tmp_path / 'good.jsonl', good)}"]
    answers += [f"poor={jsonl(tmp_path / 'poor.jsonl', poor)}"]
    asked = ["--questions", questions, "--out", str(out), "--answers", *answers]
    assert command("answer", *asked) == 0
    return out


@pytest.mark.ray
def test_each_judge_has_an_endpoint_of_its_own(
    tmp_path: Path, serve, ray_address: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """One by URL, one from a file and two places that serve one; OpenAI hears of none."""
    out = imported(tmp_path)
    servers: list[Endpoint] = [serve(Script()) for _ in range(4)]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    file = tmp_path / "endpoints.yaml"
    file.write_text(f"filed: {{base_url: '{servers[1].url}', model: judge-filed}}")
    judges = [f"typed={servers[0].url}#judge-typed", "filed"]
    judges += [f"both={servers[2].url}#judge-b", f"both={servers[3].url}#judge-b"]
    asked = ["judge", str(out), "--endpoints", str(file), "--judge", *judges, *LIMITS]
    assert command(*asked, "--concurrency", "1") == 0
    models = [{body["model"] for body in server.bodies} for server in servers]
    assert models == [{"judge-typed"}, {"judge-filed"}, {"judge-b"}, {"judge-b"}]
    counts = [server.requests.total() for server in servers]
    assert counts[:2] == [8, 8] and counts[2] + counts[3] == 8 and min(counts) > 0
    lines = (out / "judgments" / "plan.jsonl").read_text().splitlines()
    assert {json.loads(line)["judge"] for line in lines} == {"typed", "filed", "both"}
    assert command(*asked, "--concurrency", "1") == 0
    assert sum(server.requests.total() for server in servers) == 24, "all is stored"


@pytest.mark.ray
def test_a_judge_that_is_lost_leaves_the_others_their_calls(
    tmp_path: Path, serve, ray_address: str, capsys
) -> None:
    """One that refuses and one that nobody can read; a place that is lost leaves its calls too."""
    out = imported(tmp_path)
    fine, barred = serve(Script(latency_s=0.1)), serve(Script(status=401))
    mute = serve(Script(answer=lambda model, messages: "I like both."))
    judges = [f"fine={fine.url}#judge", f"fine={barred.url}#judge"]
    judges += [f"barred={barred.url}#judge", f"mute={mute.url}#judge"]
    asked = ["judge", str(out), *LIMITS, "--concurrency", "8", "--judge"]
    assert command(*asked, *judges) == 1
    told = capsys.readouterr()
    assert fine.requests.total() == 8 and max(fine.requests.values()) == 1
    assert '"lost_endpoints": 2' in told.out
    assert f"{barred.url} was asked no more, the others of fine went on: the endpoint" in told.out
    assert "'barred' (HTTP 401" in told.err and "8 of its judgments stay open" in told.err
    assert "verdicts of 'mute' can be read, so it is asked no more" in told.err
    manifest = json.loads((out / "judgments" / "manifest-pairwise-swap.json").read_text())
    assert set(manifest["prices"]) == {"fine", "barred", "mute"}, "of what is stored until then"
    assert command(*asked, judges[0], *judges[2:]) == 1, "and so does one that was lost before"
    assert command(*asked, judges[0]) == 0
    assert fine.requests.total() == 8


@pytest.mark.ray
def test_an_address_without_a_name_is_refused_before_anything_leaves(
    tmp_path: Path, serve, capsys
) -> None:
    out, server = imported(tmp_path), serve(Script())
    for judge in (server.url, f"local={server.url.removeprefix('http://')}"):
        assert command("judge", str(out), "--judge", judge, *LIMITS) == 2
        assert "http" in capsys.readouterr().err
    assert not server.requests


@pytest.mark.ray
def test_what_an_endpoint_refuses_and_does_not_count_is_said(
    tmp_path: Path, serve, ray_address: str, capsys
) -> None:
    def odd(request: web.Request, body: dict) -> web.StreamResponse:
        if "temperature" in body:
            made = {"error": {"message": "temperature is not supported", "code": None}}
            return web.json_response(made, status=400)
        made = completion(body, respond("judge", body["messages"]), is_cut=False)
        del made["usage"]
        return web.json_response(made)

    out, server = imported(tmp_path), serve(Script(handle=odd))
    assert command("judge", str(out), "--judge", f"odd={server.url}", *LIMITS) == 0
    told = capsys.readouterr().out
    assert "The endpoint of odd: it refuses temperature, which is left out." in told
    assert "8 responses came without a count of tokens" in told
    assert command("report", str(out)) == 0
    assert "(estimated for 8 calls)" in (out / "report.html").read_text()
    (paid,) = json.loads((out / "report.json").read_text())["costs"]
    assert paid["estimated_calls"] == paid["calls"] == 8


@pytest.mark.ray
def test_a_judge_that_is_never_read_ends_the_command_and_says_what_comes_next(
    tmp_path: Path, serve, ray_address: str, capsys
) -> None:
    out = imported(tmp_path)
    server = serve(Script(answer=lambda model, messages: "I like both of them."))
    asked = ["judge", str(out), "--judge", "judge-4", "--protocol", "pairwise-swap", *LIMITS]
    assert command(*asked) == 1
    assert "none of the first 5 verdicts of 'judge-4' can be read" in capsys.readouterr().err
    first = server.requests.total()
    assert first <= 13
    assert command(*asked) == 1
    told = capsys.readouterr()
    assert server.requests.total() == first, "nothing more is paid"
    assert "5 judgments without a verdict are final and will not be asked for again" in told.out


def test_one_dead_contestant_does_not_stop_the_others(tmp_path: Path, serve, capsys) -> None:
    fine = serve(Script())
    dead = serve(Script(status=404))
    questions = jsonl(tmp_path / "q.jsonl", QUESTIONS)
    asked = ["answer", "--questions", questions, "--out", str(tmp_path / "eval")]
    assert command(*asked, "--model", f"dead={dead.url}", f"fine={fine.url}") == 1
    assert fine.requests.total() == 4
    told = capsys.readouterr()
    assert "dead's endpoint refuses requests" in told.err and "fine" not in told.err
    assert len((tmp_path / "eval" / "answers" / "fine.jsonl").read_text().splitlines()) == 4
    assert command(*asked, "--model", f"fine={fine.url}") == 0
    assert fine.requests.total() == 4


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("length", "4 were cut off before any text: give --max-tokens more"),
        ("content_filter", "4 were stopped by a content filter"),
    ],
)
def test_an_answer_without_text_is_unanswered_and_said(
    tmp_path: Path, serve, capsys, reason: str, sentence: str
) -> None:
    def silent(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "", is_cut=False)
        made["choices"][0] |= {"finish_reason": reason}
        made["choices"][0]["message"]["content"] = None
        return web.json_response(made)

    server = serve(Script(handle=silent))
    questions = jsonl(tmp_path / "q.jsonl", QUESTIONS)
    asked = ["answer", "--questions", questions, "--out", str(tmp_path / "eval")]
    assert command(*asked, "--model", f"m={server.url}") == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "eval" / "answers" / "m.jsonl").exists()


def test_a_filtered_question_is_unanswered_and_the_others_are_kept(
    tmp_path: Path, serve, capsys
) -> None:
    def filtering(request: web.Request, body: dict) -> web.StreamResponse | None:
        return error(400, "content_filter") if "item 3" in str(body) else None

    server = serve(Script(handle=filtering))
    questions = jsonl(tmp_path / "q.jsonl", QUESTIONS)
    asked = ["answer", "--questions", questions, "--out", str(tmp_path / "eval")]
    assert command(*asked, "--model", f"m={server.url}") == 1
    assert "m left 1 questions unanswered: 1 were stopped by a content filter" in (
        capsys.readouterr().err
    )
    assert len((tmp_path / "eval" / "answers" / "m.jsonl").read_text().splitlines()) == 3


def test_thoughts_are_kept_apart_and_not_sent_back(tmp_path: Path, serve) -> None:
    server = serve(
        Script(answer=lambda model, messages: f"<think>\nlong\n</think>\n\nAnswer {len(messages)}")
    )
    two = [{"question_id": 1, "category": "generic", "turns": ["One?", "Two?"]}]
    questions, out = jsonl(tmp_path / "q.jsonl", two), tmp_path / "eval"
    asked = ["answer", "--questions", questions, "--out", str(out)]
    assert command(*asked, "--model", f"m={server.url}") == 0
    (line,) = map(json.loads, (out / "answers" / "m.jsonl").read_text().splitlines())
    assert line["turn_texts"] == ["Answer 1", "Answer 3"] and line["thoughts"] == ["long", "long"]
    assert "<think>" not in json.dumps(server.bodies[-1])


def test_answers_are_asked_for_within_what_the_account_allows(tmp_path: Path, serve) -> None:
    server: Endpoint = serve(Script(requests_per_min=120))
    file = tmp_path / "endpoints.yaml"
    limits = "{requests_per_min: 120, concurrency: 2}"
    file.write_text(f"mine: {{base_url: '{server.url}', model: chatty, limits: {limits}}}")
    asked = ["--questions", jsonl(tmp_path / "q.jsonl", QUESTIONS), "--out", str(tmp_path / "out")]
    assert command("answer", *asked, "--endpoints", str(file), "--model", "mine") == 0
    assert server.requests.total() == len(QUESTIONS), "none was refused for its rate"
    assert server.most_in_flight <= 2


def test_an_endpoint_that_refuses_everybody_is_not_asked_by_all(tmp_path: Path, serve) -> None:
    server: Endpoint = serve(Script(status=401))
    many = [{"question_id": i, "category": "x", "turns": [f"Tell {i}"]} for i in range(40)]
    asked = ["--questions", jsonl(tmp_path / "q.jsonl", many), "--out", str(tmp_path / "out")]
    model = f"mine={server.url}#chatty"
    assert command("answer", *asked, "--model", model, "--concurrency", "4") == 1
    assert server.requests.total() <= 4


async def test_a_refusal_is_no_outage_to_wait_for(serve) -> None:
    """Five thousand questions would else pause longer and longer for nobody."""
    server: Endpoint = serve(Script(status=401))
    client_endpoint = ClientEndpoint(model="m", base_url=server.url, api_key=None, timeout_s=10)
    with Reporter("json").progress("ask", total=200) as bar:
        async with connect(client_endpoint) as client:
            asker = Asker(client, 4, 3, bar, {})
            asked = [{"role": "user", "content": "Hi"}]
            told = [asker.ask(asked, {"max_tokens": 8}) for _ in range(200)]
            ended = await asyncio.gather(*told, return_exceptions=True)
    assert {type(one) for one in ended} == {CallFailure} and server.requests.total() <= 4
    assert asker._gate.state()["errors"] == 0
