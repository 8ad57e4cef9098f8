"""A judge that cannot be read is not paid again and again."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from apps.common.errors import CriaError
from apps.eval.calls import journal
from apps.eval.config import JudgeConfig
from apps.eval.folder import load_folder
from apps.eval.judging.asking import ask_again, remaining, standings, unreadable_judges
from apps.eval.judging.plan import make_plan
from apps.eval.judging.readability import UnreadableJudgeError
from apps.eval.records.answer import Answer
from apps.eval.records.question import Question
from tests.eval.commands import command, jsonl
from tests.eval.one_run import FAST, PRICE, judge, planned, statuses
from tests.eval.scripted_judge import Script, completion, error


def says(text: str):
    return Script(answer=lambda model, messages: text)


async def test_a_judge_that_is_never_read_stops_after_few_calls(tmp_path: Path, serve) -> None:
    """64 may be in flight; the repairs go one by one, so that the fifth ends the run."""
    endpoint = serve(says("I like both of them."))
    calls = planned(100)
    with pytest.raises(UnreadableJudgeError, match="none of the first 5 verdicts of 'judge-4'"):
        await judge(calls, tmp_path)
    assert endpoint.requests.total() <= 32 + 5 + 5, "those in flight, and the repairs"
    assert max(endpoint.requests.values()) == 1, "no request is made twice"
    known = standings(calls, journal.read_raw(str(tmp_path)), FAST.max_asks)
    assert isinstance(unreadable_judges(known)["judge-4"], UnreadableJudgeError)


async def test_a_repair_sends_the_judges_own_text_and_asks_for_the_form(
    tmp_path: Path, serve
) -> None:
    def careless(request: web.Request, body: dict) -> web.StreamResponse:
        is_repair = len(body["messages"]) > 2
        text = '{"verdict": "B"}' if is_repair else "Answer B, clearly, I would say."
        return web.json_response(completion(body, text, is_cut=False))

    endpoint = serve(Script(handle=careless))
    calls = planned(10)
    tally = await judge(calls, tmp_path)
    assert (tally.stored, tally.unreadable) == (40, 0)
    assert statuses(tmp_path).count("ok") == len(calls)
    repairs = [body for body in endpoint.bodies if len(body["messages"]) > 2]
    assert len(repairs) == len(calls)
    for body in repairs:
        assert body["messages"][-2]["content"] == "Answer B, clearly, I would say."
        assert '{"verdict": "A"}' in body["messages"][-1]["content"]
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["verdict"]
    assert remaining(calls, journal.read_raw(str(tmp_path)), FAST.max_asks) == []


async def test_a_few_unreadable_verdicts_among_readable_ones_are_final(tmp_path, serve) -> None:
    def sometimes(model: str, messages: list[dict[str, str]]) -> str:
        return "Hm." if "item 3" in str(messages[1]["content"]) else "[[A]]"

    endpoint = serve(Script(answer=sometimes))
    calls = planned(20)
    tally = await judge(calls, tmp_path)
    assert tally.unreadable == 2 and endpoint.requests.total() == len(calls) + 2
    again = await judge(calls, tmp_path)
    assert again.stored == 0 and endpoint.requests.total() == len(calls) + 2


async def test_a_refusal_is_final(tmp_path: Path, serve) -> None:
    endpoint = serve(says("I'm sorry, but I can't judge that."))
    calls = planned(4)
    tally = await judge(calls, tmp_path)
    assert endpoint.requests.total() == len(calls) == tally.unreadable
    assert statuses(tmp_path) == ["refused"] * len(calls)
    await judge(calls, tmp_path)
    assert endpoint.requests.total() == len(calls)


async def test_a_filtered_pair_is_refused_and_never_asked_again(tmp_path: Path, serve) -> None:
    def filtering(request: web.Request, body: dict) -> web.StreamResponse:
        if "item 3" in str(body["messages"]):
            return error(400, "content_filter")
        return web.json_response(completion(body, "[[A]]", is_cut=False))

    endpoint = serve(Script(handle=filtering))
    calls = planned(8)
    tally = await judge(calls, tmp_path)
    assert (tally.failed, tally.unreadable) == (0, 2)
    assert sorted(statuses(tmp_path)) == ["ok"] * 14 + ["refused"] * 2
    assert endpoint.requests.total() == len(calls)
    await judge(calls, tmp_path)
    assert endpoint.requests.total() == len(calls)


def without_repairs(first: str, *readable: str):
    """An endpoint that never answers a request for the verdict alone."""

    def broken(request: web.Request, body: dict) -> web.StreamResponse:
        if len(body["messages"]) > 2:
            return error(400, None)
        is_readable = any(item in body["messages"][1]["content"] for item in readable)
        return web.json_response(completion(body, "[[A]]" if is_readable else first, False))

    return Script(handle=broken)


async def test_a_repair_that_finds_no_response_does_not_hold_up_the_others(
    tmp_path: Path, serve
) -> None:
    """Its judgment is left for the next run, which asks for the verdict alone."""
    serve(without_repairs("Well.", "item 1"))
    calls = planned(20)
    tally = await judge(calls, tmp_path)
    read = statuses(tmp_path).count("ok")
    assert tally.failed == len(calls) - read == statuses(tmp_path).count("unparsed")
    left = remaining(calls, journal.read_raw(str(tmp_path)), FAST.max_asks)
    assert all(call.repair for call in left) and len(left) == len(calls) - read


async def test_five_repairs_without_a_response_end_the_trial_in_every_run(
    tmp_path: Path, serve
) -> None:
    endpoint = serve(without_repairs("Well."))
    calls = planned(100)
    with pytest.raises(UnreadableJudgeError, match=r"gives none \(HTTP 400: scripted 400\)"):
        await judge(calls, tmp_path)
    paid = len(statuses(tmp_path))
    assert paid <= 32 + 5
    before = endpoint.requests.total()
    with pytest.raises(UnreadableJudgeError, match="asks for the others again"):
        await judge(calls, tmp_path)
    assert len(statuses(tmp_path)) == paid, "no new judgment is paid before one can be read"
    assert endpoint.requests.total() <= before + 2 * 5, "each with its form and without"


@pytest.mark.parametrize("num_paid", [0, 1, 4])
@pytest.mark.parametrize("num_new", [1, 10])
async def test_a_budget_that_ends_before_all_repairs_ends_the_run(
    tmp_path: Path, serve, num_paid: int, num_new: int
) -> None:
    """Of more verdicts in doubt than a chunk has in hand, those never sent hold up no new call."""

    def uncounted(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "Well.", is_cut=False)
        del made["usage"]  # so that each is charged its bound
        return web.json_response(made)

    serve(Script(handle=uncounted))
    calls = planned(45)
    in_doubt, new = calls[: FAST.width + 16], calls[-num_new:]
    repairs = [ask_again(call, "unparsed", "Well.", FAST.max_asks) for call in in_doubt]
    bound = max(call.usd_at_most(PRICE) for call in repairs if call)
    max_usd = (num_paid + 0.5) * bound
    async with asyncio.timeout(60):
        tally = await judge([*filter(None, repairs), *new], tmp_path, max_usd)
    assert tally.stopped and tally.stored == num_paid


@pytest.mark.parametrize(
    "words",
    [
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported.",
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`.",
        "Guided decoding needs a backend",
    ],
)
async def test_a_refused_form_of_the_repair_is_left_out_whatever_the_words(
    tmp_path: Path, serve, words: str
) -> None:
    def picky(request: web.Request, body: dict) -> web.StreamResponse:
        if "response_format" in body:
            return web.json_response({"error": {"message": words}}, status=400)
        is_repair = len(body["messages"]) > 2
        return web.json_response(completion(body, "[[B]]" if is_repair else "Well.", False))

    endpoint = serve(Script(handle=picky))
    calls = planned(10)
    tally = await judge(calls, tmp_path)
    assert (tally.failed, tally.unreadable, tally.stored) == (0, 0, 2 * len(calls))
    refused = [body for body in endpoint.bodies if "response_format" in body]
    assert len(refused) == 1, "learned from the first, which the trial sends alone"


async def test_an_endpoint_that_never_reads_stops_after_few_calls_though_it_refuses_the_form(
    tmp_path: Path, serve
) -> None:
    def picky(request: web.Request, body: dict) -> web.StreamResponse:
        if "response_format" in body:
            return web.json_response({"error": {"message": "unavailable now"}}, status=422)
        return web.json_response(completion(body, "Hard to say.", False))

    endpoint = serve(Script(handle=picky))
    with pytest.raises(UnreadableJudgeError):
        await judge(planned(100), tmp_path)
    assert endpoint.requests.total() <= 32 + 5 + 6


async def test_a_judge_that_is_always_cut_stops_where_longer_judgments_are_refused(
    tmp_path: Path, serve
) -> None:
    def short(request: web.Request, body: dict) -> web.StreamResponse:
        if body["max_tokens"] > 2048:
            return error(400, None)
        return web.json_response(completion(body, "I compare. ", is_cut=True))

    serve(Script(handle=short))
    with pytest.raises(UnreadableJudgeError, match=r"asked again it gives none \(HTTP 400"):
        await judge(planned(100), tmp_path)
    assert len(statuses(tmp_path)) <= FAST.width + 5


async def test_equal_answers_are_a_tie_that_nobody_is_asked_for(tmp_path: Path, serve) -> None:
    endpoint = serve(Script())
    calls = planned(3, texts={"good": lambda q: " ", "poor": lambda q: ""})
    await judge(calls, tmp_path, max_usd=0.0)
    assert not endpoint.requests and statuses(tmp_path) == ["ok"] * 6
    for record in journal.read_raw(str(tmp_path)):
        assert (
            record.get("is_computed") and record["usd"] == 0 and "[[C]]" in record["response_text"]
        )
    asked = planned(3, texts={"good": lambda q: "x", "poor": lambda q: "x"}, judge_equal=True)
    await judge(asked, tmp_path / "asked")
    assert endpoint.requests.total() == 6


async def test_an_endpoint_that_rejects_everything_still_stops_the_run(tmp_path, serve) -> None:
    serve(Script(status=400))
    with pytest.raises(CriaError, match="rejects every request"):
        await judge(planned(30), tmp_path)


def test_thoughts_are_judged_only_when_asked() -> None:

    question = Question(question_id="1", category="generic", turns=("Tell me",))
    made = Answer(question_id="1", turn_texts=("Four.",), thoughts=("two and two",), model="m")
    other = Answer(question_id="1", turn_texts=("Five.",), model="n")
    answers = {"m": {"1": made}, "n": {"1": other}}
    settings = {"dir": "x", "judge": ("judge-4",), "self_checks": 0, "canaries": False}
    plain = make_plan(JudgeConfig(**settings), [question], answers).calls
    asked = make_plan(JudgeConfig(**settings, judge_thoughts=True), [question], answers).calls
    assert not any("two and two" in str(call.messages) for call in plain)
    shown = "<think>\ntwo and two\n</think>\n\nFour."
    assert all(shown in call.messages[1]["content"] for call in asked)
    assert [call.answers_digest for call in plain] == [call.answers_digest for call in asked]


async def test_the_next_run_says_which_verdicts_it_asks_for_again(
    tmp_path: Path, serve, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [{"question_id": str(i), "turns": [f"Tell me about {i}"]} for i in range(8)]
    answers = [{"question_id": str(i), "text": f"{i} is a number"} for i in range(8)]
    file, folder = jsonl(tmp_path / "q.jsonl", questions), str(tmp_path / "eval")
    given = []
    for name in ("good", "poor"):
        said = [{**answer, "text": f"{name}: {answer['text']}"} for answer in answers]
        given.append(f"{name}={jsonl(tmp_path / f'{name}.jsonl', said)}")
    assert command("answer", "--questions", file, "--out", folder, "--answers", *given) == 0
    serve(without_repairs("Well."))
    settings = {"judge": ("judge-4",), "self_checks": 0, "canaries": False}
    plan = make_plan(JudgeConfig(dir=folder, **settings), *load_folder(folder))
    with pytest.raises(UnreadableJudgeError):
        await judge(list(plan.calls), Path(folder))
    capsys.readouterr()
    typed = ("--judge", "judge-4", "--self-checks", "0", "--no-canaries", "--dry-run")
    assert command("judge", folder, *typed) == 0
    told = capsys.readouterr().out
    unread = statuses(Path(folder)).count("unparsed")
    assert unread and f"{unread} stored judgments cannot be read" in told
    assert "it is asked for first, before any new judgment" in told
