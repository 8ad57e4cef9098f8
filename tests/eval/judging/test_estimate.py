"""What a run will take is foretold by what its judges have taken so far."""

from pathlib import Path

import pytest
from aiohttp import web

from apps.eval.calls import journal
from apps.eval.calls.lines import charged_usd
from apps.eval.calls.rate_gate import Limits
from apps.eval.judging.asking import standings
from apps.eval.judging.estimate import Estimate, estimate_calls
from apps.eval.judging.judges import Judge
from apps.eval.judging.typical import TYPICAL_LENGTH_SHARE
from tests.eval.one_run import FAST, PRICE, judge, planned
from tests.eval.scripted_judge import Script, completion, error

LIMITS = Limits(requests_per_min=6, tokens_per_min=1e9, concurrency=8)
JUDGES = {"judge-4": Judge(name="judge-4", endpoints=(), limits=(LIMITS,), price=PRICE)}


def estimated(calls, directory: Path) -> Estimate:
    responses = journal.read_raw(str(directory))
    return estimate_calls(standings(calls, responses, FAST.max_asks), responses, JUDGES)


async def test_a_judge_that_thinks_long_is_foretold_by_what_it_took(tmp_path: Path, serve) -> None:
    """Half of its judgments are cut off and asked again: eight times what reviews take."""

    def thinking(request: web.Request, body: dict) -> web.Response:
        is_cut = body["max_tokens"] < 4096 and "item 1" in body["messages"][1]["content"]
        made = completion(body, "It is better. " * 500 + "\n[[A]]", is_cut)
        made["usage"] = {"prompt_tokens": 400, "completion_tokens": 2048}
        return web.json_response(made)

    serve(Script(handle=thinking))
    calls = planned(40)
    first = estimated(calls, tmp_path)
    assert first.completion_tokens == int(80 * 2048 * TYPICAL_LENGTH_SHARE)
    await judge([c for c in calls if int(c.question_id) in range(5, 15)], tmp_path)
    half = estimated(calls, tmp_path)
    assert half.requests == {"judge-4": 1.5} and (half.calls, half.stored) == (60, 20)
    assert half.minutes == pytest.approx(60 * 1.5 / 6, rel=0.01)
    assert half.usd == pytest.approx(60 * 1.5 * PRICE.usd(400, 2048), rel=0.01)
    paid = sum(map(charged_usd, journal.read_raw(str(tmp_path))))
    assert half.usd == pytest.approx(3 * paid, rel=0.01)


def test_few_judgments_foretell_nothing(tmp_path: Path) -> None:
    estimate = estimated(planned(2), tmp_path)
    assert (estimate.calls, estimate.requests) == (4, {})


async def test_what_is_asked_with_more_room_is_not_foretold_to_be_twice_as_long(
    tmp_path: Path, serve
) -> None:
    """What a judgment takes is told as a share of its first request's longest reply."""

    def thinking(request: web.Request, body: dict) -> web.Response:
        if body["max_tokens"] > 2048:
            return error(400, None)  # so that the first responses are all that is stored
        made = completion(body, "It is better. " * 500, "item 1" in body["messages"][1]["content"])
        made["choices"][0]["message"]["content"] += "\n[[A]]"
        made["usage"] = {"prompt_tokens": 400, "completion_tokens": 2048}
        return web.json_response(made)

    serve(Script(handle=thinking))
    calls = planned(20)
    await judge(calls, tmp_path)
    left = estimated(calls, tmp_path)
    assert left.calls == 2 * 11
    assert left.usd == pytest.approx(22 * PRICE.usd(400, 2048), rel=0.01)
    assert left.usd_at_most and left.usd_at_most > 22 * PRICE.usd(400, 4096)
