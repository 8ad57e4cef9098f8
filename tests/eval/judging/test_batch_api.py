"""Batches go under the same journal and budget, and a killed run finds its batch again."""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from apps.common.errors import CriaError
from apps.eval.calls import journal
from apps.eval.calls.endpoints import openai_endpoint
from apps.eval.calls.lines import charged_usd
from apps.eval.calls.rate_gate import Limits
from apps.eval.config import JudgeConfig
from apps.eval.judging import batch_api
from apps.eval.judging.asking import remaining
from apps.eval.judging.call import Call
from apps.eval.judging.job import Job, Persistence, RunResult
from apps.eval.judging.plan import make_plan
from apps.eval.judging.prices import Price
from apps.eval.protocols.parsing import parse_record
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question
from tests.eval.scripted_judge import Endpoint, Script, completion, error

LIMITS = Limits(requests_per_min=1e6, tokens_per_min=1e9, concurrency=8)
PRICE = Price(usd_per_million_prompt_tokens=15.0, usd_per_million_completion_tokens=30.0)


def planned(num_questions: int, judge: tuple[str, ...] = ("judge-4",)) -> list[Call]:
    questions = [
        Question(question_id=str(i), category="generic", turns=(f"Tell me about item {i}",))
        for i in range(num_questions)
    ]
    answers = {
        name: {
            q.question_id: Answer(question_id=q.question_id, turn_texts=(text,), model=name)
            for q in questions
        }
        for name, text in {"good": "I tell you about the item", "poor": "No."}.items()
    }
    config = JudgeConfig(dir="x", judge=judge, self_checks=0, canaries=False)
    return list(make_plan(config, questions, answers).calls)


@pytest.fixture(params=["folder", "bucket"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an evaluation lies: on a disk, or where no machine's loss reaches it."""
    if request.param == "folder":
        return str(tmp_path)
    name = f"batch-{uuid.uuid4().hex[:8]}"
    request.getfixturevalue("s3").create_bucket(Bucket=name)
    return f"s3://{name}/eval"


class Killed(BaseException):
    """The end of the process."""


async def judge(
    calls: list[Call],
    directory: Path | str,
    max_usd: float | None = None,
    places: dict[str, Endpoint] | None = None,
) -> RunResult:
    """Raises what lost the judge, where it is the only one."""
    endpoints = {"judge-4": openai_endpoint("judge-4", 5.0)}
    if places:
        where = {name: server.url for name, server in places.items()}
        endpoints = {n: replace(endpoints["judge-4"], base_url=url) for n, url in where.items()}
    job = Job(
        calls=tuple(calls),
        directory=str(directory),
        endpoints={name: (endpoint,) for name, endpoint in endpoints.items()},
        limits=dict.fromkeys(endpoints, (LIMITS,)),
        prices=dict.fromkeys(endpoints, PRICE),
        persistence=Persistence(max_asks=4),
        num_tasks=1,
        max_usd=max_usd,
    )
    result = await batch_api.run(job, lambda *_: None, 0.01)
    if not places:
        for error in result.tally.lost.values():
            raise error
    return result


async def test_a_batch_judges_everything_and_asks_again_for_what_failed(
    kept_in: str, serve
) -> None:
    endpoint: Endpoint = serve(Script(fault_share=0.3))
    calls = planned(12)
    result = await judge(calls, kept_in)
    records = journal.read_raw(kept_in)
    assert {parse_record(record)["status"] for record in records} == {"ok"}
    assert len(records) == len(calls) == result.tally.stored
    assert len(endpoint.batches) > 1
    assert result.spent_usd == pytest.approx(sum(map(charged_usd, records)))
    before = len(endpoint.batches)
    assert (await judge(calls, kept_in)).tally.stored == 0
    assert len(endpoint.batches) == before


async def test_the_budget_bounds_what_is_uploaded(kept_in: str, serve) -> None:
    endpoint: Endpoint = serve(Script())
    calls = planned(10)
    bound = PRICE.usd(calls[0].prompt_tokens_bound(), calls[0].max_tokens)
    result = await judge(calls, kept_in, max_usd=5.5 * bound)
    assert result.tally.stopped and endpoint.served.total() == 5


async def test_one_answer_that_breaks_off_is_paid_for_a_few_times(tmp_path: Path, serve) -> None:
    def breaking(request: web.Request, body: dict) -> web.StreamResponse | None:
        if "item 3" not in body["messages"][1]["content"]:
            return None
        made = completion(body, "A leads", is_cut=False)
        made["choices"][0]["finish_reason"] = "error"
        return web.json_response(made)

    endpoint: Endpoint = serve(Script(handle=breaking))
    calls = planned(5)
    tally = (await judge(calls, tmp_path)).tally
    assert (tally.stored, tally.failed, tally.paid_in_vain) == (len(calls) - 2, 2, 10)
    assert len(endpoint.batches) == 5


async def test_a_refusing_endpoint_is_one_sentence_and_costs_nothing(tmp_path, serve) -> None:
    serve(Script(status=401))
    with pytest.raises(CriaError, match=r"Batch API refuses .*scripted 401"):
        await judge(planned(2), tmp_path)
    serve(Script())
    bound = PRICE.usd(planned(2)[0].prompt_tokens_bound(), planned(2)[0].max_tokens)
    assert (await judge(planned(2), tmp_path, max_usd=4.1 * bound)).tally.stored == 4


async def test_a_run_killed_while_it_collects_stores_each_response_once(tmp_path, serve) -> None:
    endpoint: Endpoint = serve(Script())
    calls = planned(5)
    whole = await judge(calls, tmp_path)
    raw, notes = Path(journal.raw_path(str(tmp_path))), Path(batch_api.batches_path(str(tmp_path)))
    for file, kept in ((raw, 4), (notes, -1)):
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:kept]))
    again = await judge(calls, tmp_path)
    records = journal.read_raw(str(tmp_path))
    assert len({record["key"] for record in records}) == len(records) == len(calls)
    assert again.tally.stored == len(calls) - 4 and len(endpoint.batches) == 1
    assert again.spent_usd == pytest.approx(whole.spent_usd), "what was reserved is priced anew"


@pytest.mark.parametrize("is_created", [True, False])
async def test_a_run_killed_around_the_creation_of_a_batch_pays_once(
    kept_in: str, serve, monkeypatch: pytest.MonkeyPatch, is_created: bool
) -> None:
    endpoint: Endpoint = serve(Script())
    calls = planned(6)
    note = batch_api._Batches._note

    def killed(self, **record) -> None:
        if "batch" in record and is_created:
            raise Killed
        note(self, **record)
        if "attempts" in record and not is_created:
            raise Killed

    monkeypatch.setattr(batch_api._Batches, "_note", killed)
    with pytest.raises(Killed):
        await judge(calls, kept_in)
    monkeypatch.setattr(batch_api._Batches, "_note", note)
    assert len(endpoint.batches) == is_created
    await judge(calls, kept_in)
    assert remaining(calls, journal.read_raw(kept_in), 4) == []
    assert endpoint.served.total() == len(calls), "no call was made twice"


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Endpoint]:
    """Has an endpoint change the lines of every batch's output."""

    def change(endpoint: Endpoint, changed: Callable[[list[dict]], list]) -> Endpoint:
        keep = endpoint._file

        def file(data: bytes) -> dict:
            lines = [json.loads(line) for line in data.splitlines()]
            if "response" in lines[0]:
                made = [x if isinstance(x, str) else json.dumps(x) for x in changed(lines)]
                data = "\n".join(made).encode()
            return keep(data)

        monkeypatch.setattr(endpoint, "_file", file)
        return endpoint

    return change


def without_status(lines: list[dict]) -> list:
    for line in lines:
        del line["response"]["status_code"]
    return lines


@pytest.mark.parametrize(
    "changed", [lambda lines: [lines[0], *lines], without_status, lambda lines: ["", *lines]]
)
async def test_a_line_that_comes_twice_or_without_its_status_is_stored_once(
    tmp_path: Path, serve, output, changed
) -> None:
    endpoint: Endpoint = output(serve(Script()), changed)
    calls = planned(3)
    result = await judge(calls, tmp_path)
    records = journal.read_raw(str(tmp_path))
    assert len(records) == len({r["key"] for r in records}) == len(calls) == result.tally.stored
    assert len(endpoint.batches) == 1
    assert result.spent_usd == pytest.approx(sum(map(charged_usd, records)))


@pytest.mark.parametrize("line", ["{torn", "7", '{"response": null}'])
async def test_a_line_that_names_no_request_leaves_what_it_held_charged(
    tmp_path: Path, serve, output, line: str
) -> None:
    """Somebody's response was there, and it may be billed: it is asked for again."""
    changes = iter([lambda lines: [line, *lines[1:]]])
    endpoint: Endpoint = output(
        serve(Script()), lambda lines: next(changes, lambda same: same)(lines)
    )
    calls = planned(3)
    result = await judge(calls, tmp_path)
    records = journal.read_raw(str(tmp_path))
    assert len(records) == len(calls) and len(endpoint.batches) == 2
    bound = calls[0].usd_at_most(PRICE)
    assert result.spent_usd == pytest.approx(sum(map(charged_usd, records)) + bound)


BROKEN = {"message": {"content": "A leads: [[A]]. But"}}
DIED = {"message": "upstream died", "code": 502}


@pytest.mark.parametrize(
    ("status", "body", "is_charged"),
    [
        (200, {"choices": [{**BROKEN, "finish_reason": "error"}]}, True),
        (200, {"choices": [{**BROKEN, "finish_reason": "abort"}]}, True),
        (200, {"choices": [{**BROKEN, "finish_reason": "stop", "error": DIED}]}, True),
        (200, {"error": DIED}, True),
        (400, {"error": {"message": "no JSON", "code": "json_validate_failed"}}, True),
        (200, {"error": {"message": "no JSON", "code": "json_validate_failed"}}, True),
        (200, {"error": {"message": "busy", "code": 503}}, False),
        (502, {"error": DIED}, False),
        (429, {"error": {"message": "slow down"}}, False),
    ],
)
async def test_a_line_is_charged_where_something_was_written(
    tmp_path: Path, serve, output, status: int, body: dict, is_charged: bool
) -> None:
    def fail_first(lines: list[dict]) -> list:
        return [{**lines[0], "response": {"status_code": status, "body": body}}, *lines[1:]]

    changes = iter([fail_first])
    endpoint = output(serve(Script()), lambda lines: next(changes, lambda same: same)(lines))
    calls = planned(3)
    result = await judge(calls, tmp_path)
    records = journal.read_raw(str(tmp_path))
    assert len(records) == len(calls) and len(endpoint.batches) == 2
    charged = calls[0].usd_at_most(PRICE) if is_charged else 0.0
    assert result.spent_usd == pytest.approx(sum(map(charged_usd, records)) + charged)


async def test_what_a_batch_s_error_file_refuses_is_left_out_of_the_next(
    tmp_path: Path, serve
) -> None:
    def strict(request: web.Request, body: dict) -> web.StreamResponse | None:
        if "temperature" not in body:
            return None
        told = {"message": "Unsupported parameter: temperature", "code": "unsupported_parameter"}
        return web.json_response({"error": told}, status=400)

    endpoint: Endpoint = serve(Script(handle=strict))
    calls = planned(3)
    result = await judge(calls, tmp_path)
    records = journal.read_raw(str(tmp_path))
    assert len(records) == len(calls) and len(endpoint.batches) == 2
    assert result.spent_usd == pytest.approx(sum(map(charged_usd, records)))
    assert any("temperature" in sentence for sentence in result.tally.learned)


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_batches_of_which_every_line_is_refused_end_at_the_first(
    tmp_path: Path, serve, status: int
) -> None:
    endpoint = serve(Script(handle=lambda *_: error(status, None)))
    calls = planned(3)
    alike = replace(calls[0], question_id="alike", is_equal=True)
    with pytest.raises(CriaError, match=rf"answers no request for 'judge-4' .*scripted {status}"):
        await judge([*calls, alike], tmp_path)
    assert len(endpoint.batches) == 1
    assert [r["question_id"] for r in journal.read_raw(str(tmp_path))] == ["alike"]


async def test_replies_to_calls_that_are_planned_no_more_stay_charged(
    tmp_path: Path, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are paid for, and a budget that forgot them would be spent twice."""

    async def killed(self, *_: object) -> None:
        raise Killed

    serve(Script())
    calls = planned(4)
    with monkeypatch.context() as patch:
        patch.setattr(batch_api._Batches, "_collect", killed)
        with pytest.raises(Killed):
            await judge(calls, tmp_path)
    result = await judge(calls[:3], tmp_path)
    records = journal.read_raw(str(tmp_path))
    assert len(records) == 3
    bounds = sum(call.usd_at_most(PRICE) for call in calls[3:])
    assert result.spent_usd == pytest.approx(sum(map(charged_usd, records)) + bounds)
    assert (await judge(calls[:3], tmp_path)).spent_usd == pytest.approx(result.spent_usd)


async def test_a_judge_whose_account_refuses_leaves_the_others_their_batches(
    tmp_path: Path, serve
) -> None:
    barred, fine = serve(Script(status=401)), serve(Script())
    places = {"judge-4": barred, "judge-mini": fine}
    tally = (await judge(planned(3, judge=tuple(places)), tmp_path, places=places)).tally
    assert set(tally.lost) == {"judge-4"} and tally.stored == 6
    assert "Batch API refuses" in tally.lost["judge-4"].sentence


async def test_a_judge_waits_for_the_room_that_another_gives_back(tmp_path: Path, serve) -> None:
    """Both would pass the budget by their bounds, and neither does by what it costs."""
    places = {"judge-4": serve(Script()), "judge-mini": serve(Script())}
    calls = planned(3, judge=tuple(places))
    bound_usd = sum(PRICE.usd(c.prompt_tokens_bound(), c.max_tokens) for c in calls)
    result = await judge(calls, tmp_path, max_usd=0.8 * bound_usd, places=places)
    assert (result.tally.stopped, result.tally.stored) == ({}, len(calls))
    assert result.spent_usd <= 0.8 * bound_usd


async def test_who_waits_for_a_judge_that_is_lost_goes_on(tmp_path: Path, serve) -> None:
    """What that one has in flight stays charged: it may be billed."""
    places = {"judge-4": serve(Script()), "judge-mini": serve(Script())}
    calls = planned(3, judge=tuple(places))
    bound_usd = sum(PRICE.usd(c.prompt_tokens_bound(), c.max_tokens) for c in calls)

    class Gone(dict):
        def __getitem__(self, name: object) -> None:
            raise web.HTTPNotFound

    places["judge-4"].batches = Gone()
    result = await judge(calls, tmp_path, max_usd=1.1 * bound_usd, places=places)
    assert result.tally.lost.keys() == {"judge-4"} and result.tally.stored == len(calls) / 2
    assert bound_usd / 2 < result.spent_usd < bound_usd


async def test_longer_judgments_that_are_refused_do_not_lose_the_judge(
    tmp_path: Path, serve
) -> None:
    """A second run meets nothing but them: as in a live run they say nothing of its requests."""

    def short(request: web.Request, body: dict) -> web.Response:
        if body["max_tokens"] > 4096:
            return error(400, "context_length_exceeded")
        return web.json_response(completion(body, "I compare. ", is_cut=True))

    endpoint: Endpoint = serve(Script(handle=short))
    calls = planned(4)
    for num_batches in (3, 4):
        tally = (await judge(calls, tmp_path)).tally
        assert len(endpoint.batches) == num_batches, "what is refused for itself is not sent again"
        assert (tally.failed, tally.unreadable, tally.rejected.total()) == (0, len(calls), 0)


async def test_a_batch_is_looked_for_where_its_judge_has_it(tmp_path: Path, serve) -> None:
    serve(Script())
    path = Path(batch_api.batches_path(str(tmp_path)))
    path.parent.mkdir(parents=True)
    theirs = {"input_file": "file-of-another", "judge": "judge-5", "attempts": {"key": 1}}
    path.write_text(json.dumps({**theirs, "batch": "batch-of-another"}) + "\n")
    calls = planned(2)
    assert (await judge(calls, tmp_path)).tally.stored == len(calls)
    assert "file-of-another" not in path.read_text().split("\n", 1)[1], "it is left open"


async def test_a_batch_that_holds_no_replies_is_not_made_again_and_again(
    tmp_path: Path, serve, output
) -> None:
    def empty(lines: list[dict]) -> list:
        return [{**x, "response": {"status_code": 200, "body": {"choices": []}}} for x in lines]

    endpoint: Endpoint = output(serve(Script()), empty)
    with pytest.raises(CriaError, match=r"answers no request for 'judge-4' .*choices are empty"):
        await judge(planned(6), tmp_path)
    assert len(endpoint.batches) == 1


async def test_a_batch_is_not_taken_to_another_host(tmp_path: Path, serve) -> None:
    other = serve(Script())
    target = Endpoint(Script())

    async def moved(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{other.url}/files"})

    app = web.Application()
    app.router.add_post("/v1/files", moved)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_BASE_URL", target.url)
            with pytest.raises(CriaError, match="Batch API refuses"):
                await judge(planned(2), tmp_path)
    finally:
        await runner.cleanup()
    assert other.files == {}


async def test_a_form_that_batches_refuse_in_any_words_is_left_out(
    tmp_path: Path, serve, output
) -> None:
    """Nothing can be read at first; the second batch asks for the verdicts alone, with a form."""

    def text(line: dict, said: str) -> dict:
        line["response"]["body"]["choices"][0]["message"]["content"] = said
        return line

    def refused(line: dict) -> dict:
        body = {"error": {"message": "This response_format type is unavailable now"}}
        return {**line, "response": {"status_code": 400, "body": body}}

    rounds = iter(
        [
            lambda lines: [text(line, "Well.") for line in lines],
            lambda lines: [refused(line) for line in lines],
            lambda lines: [text(line, "[[B]]") for line in lines],
        ]
    )
    endpoint: Endpoint = output(serve(Script()), lambda lines: next(rounds)(lines))
    calls = planned(3)
    result = await judge(calls, tmp_path)
    assert len(endpoint.batches) == 3 and result.tally.stored == 2 * len(calls)
    forms = [b"response_format" in endpoint.files[f"file-{number}"] for number in (0, 2, 4)]
    assert forms == [False, True, False]
    assert any("response_format" in sentence for sentence in result.tally.learned)


async def test_what_an_earlier_runs_settings_had_refused_is_sent_again(
    tmp_path: Path, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed while it waited, and its endpoint's settings were mended since."""
    refusing = Script(handle=lambda *_: error(400, None))
    endpoint: Endpoint = serve(refusing)
    calls = planned(6)

    async def killed(self, *_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(batch_api._Batches, "_collect", killed)
        with pytest.raises(Killed):
            await judge(calls, tmp_path)
    refusing.handle = None
    tally = (await judge(calls, tmp_path)).tally
    assert (tally.stored, tally.failed) == (len(calls), 0) and len(endpoint.batches) == 2
