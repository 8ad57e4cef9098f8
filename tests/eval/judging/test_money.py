"""Spending by what an endpoint truly counts never exceeds the budget, whatever it says."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from apps.common.errors import CriaError
from apps.eval.calls import journal
from apps.eval.calls.lines import Usage, charged_usd
from apps.eval.calls.reply import Reply
from apps.eval.judging.charge import charge
from tests.eval.one_run import PRICE, judge, planned
from tests.eval.scripted_judge import Script, completion, error

WAYS = (
    *("honest", "omit", "null", "zero", "negative", "words", "half", "tenth", "dozen"),
    *("hidden", "total"),
    *("garbage", "500", "502", "drop", "repeat", "429", "503"),
)
ANSWERS = ("[[A]]", "Both are fine.", "I'm sorry, I can't judge.", "Because of this. " * 40)


class Liar:
    """An endpoint that counts what it does, and says something else."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.spent_usd = 0.0
        self.ways = self._rng.sample(WAYS, k=4)
        self._last: web.Response | None = None

    def __call__(self, request: web.Request, body: dict) -> web.StreamResponse:
        way = self._rng.choice(self.ways)
        if way in ("429", "503"):
            return error(int(way), None, {"Retry-After": "0.01"})
        text = self._rng.choice(ANSWERS)[: 4 * body["max_tokens"]]
        made = completion(body, text, is_cut=self._rng.random() < 0.1)
        usage = made["usage"]
        self.spent_usd += PRICE.usd(usage["prompt_tokens"], usage["completion_tokens"])
        if way == "drop":
            assert request.transport is not None
            request.transport.close()
        if way in ("500", "502"):
            return error(int(way), None)
        if way == "garbage":
            return web.Response(text="<html>")
        if way in ("hidden", "total"):  # it thinks beside the text, and only its total shows that
            thinking = self._rng.randrange(body["max_tokens"] - usage["completion_tokens"])
            self.spent_usd += PRICE.usd(0, thinking)
            usage["total_tokens"] += thinking
            if way == "hidden":
                usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
        made["usage"] = self._said(way, usage)
        if made["usage"] is None:
            del made["usage"]
        if way == "repeat" and self._last is not None:
            return web.Response(body=self._last.body, content_type="application/json")
        self._last = web.json_response(made)
        return self._last

    def _said(self, way: str, usage: dict) -> object:
        shares = {"zero": 0, "half": 2, "tenth": 10, "dozen": 12}
        if way in shares:
            return {k: v // shares[way] if shares[way] else 0 for k, v in usage.items()}
        lies = {"omit": None, "null": {"prompt_tokens": None, "completion_tokens": None}}
        lies |= {"negative": {k: -v for k, v in usage.items()}}
        lies |= {"words": {k: f"{v} tokens" for k, v in usage.items()}}
        return lies.get(way, usage)


@pytest.mark.parametrize("seed", range(12))
async def test_true_spending_never_exceeds_the_budget(tmp_path: Path, serve, seed: int) -> None:
    """Over endpoints that lie, omit, repeat and die, and over runs that go on with a folder."""
    liar = Liar(seed)
    serve(Script(handle=liar))
    calls = planned(8)
    one_usd = PRICE.usd(calls[0].prompt_tokens_bound(), calls[0].max_tokens)
    for share in (1.5, 4.0, 9.0):
        with contextlib.suppress(CriaError):  # it gave the endpoint up
            await judge(calls, tmp_path, max_usd=share * one_usd)
        assert liar.spent_usd <= share * one_usd, liar.ways
        stored = journal.read_raw(str(tmp_path))
        unknown = journal.unknown_attempts(journal.read_intents(str(tmp_path)), stored)
        charged = sum(map(charged_usd, stored)) + sum(unknown.values())
        assert liar.spent_usd <= charged + 1e-9 <= share * one_usd + 2e-9, liar.ways


MOST: Usage = {"prompt_tokens": 3000, "completion_tokens": 2048}
PROMPT = ["word " * 400]


@pytest.mark.parametrize(
    "usage",
    [
        (None, None),
        (None, 20),
        (510, None),
        (0, 0),
        (100, 20),
        (510, 0),
    ],
)
def test_a_count_that_cannot_be_true_is_charged_the_bound(usage: tuple) -> None:
    said = Reply(
        text="It is the better one. " * 4,
        finish_reason="stop",
        prompt_tokens=usage[0],
        completion_tokens=usage[1],
    )
    cost = charge(said, PROMPT, MOST, PRICE)
    assert cost.is_estimated and cost.usage == MOST
    assert cost.usd == cost.charged_usd == PRICE.usd(3000, 2048)


def test_a_count_that_can_be_true_is_shown_and_the_budget_takes_no_less_than_the_text() -> None:
    said = Reply(text="[[A]]", finish_reason="stop", prompt_tokens=420, completion_tokens=900)
    cost = charge(said, PROMPT, MOST, PRICE)
    assert not cost.is_estimated and cost.usd == PRICE.usd(420, 900)
    assert cost.charged_usd == PRICE.usd(500, 900), "2,000 letters are about 500 tokens"
    free = charge(said, PROMPT, MOST, None)
    assert (free.usd, free.charged_usd) == (0, 0)


async def test_an_endpoint_without_usage_stops_at_the_budget(tmp_path: Path, serve) -> None:
    def without(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "[[A]]", is_cut=False)
        del made["usage"]
        return web.json_response(made)

    endpoint = serve(Script(handle=without))
    calls = planned(20)
    one_usd = PRICE.usd(calls[0].prompt_tokens_bound(), calls[0].max_tokens)
    tally = await judge(calls, tmp_path, max_usd=3.5 * one_usd)
    assert endpoint.requests.total() == tally.stored == tally.estimated == 3
    assert "--max-usd" in tally.stopped["judge-4"]
    assert all(record.get("is_estimated") for record in journal.read_raw(str(tmp_path)))


async def test_thinking_that_only_the_total_shows_is_charged(tmp_path: Path, serve) -> None:
    """As Gemini's and xAI's endpoints count: the budget ends the run where the bill does."""

    def thinking(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "It is A.\n[[A]]", is_cut=False)
        made["usage"]["completion_tokens_details"] = {"reasoning_tokens": 2000}
        made["usage"]["total_tokens"] += 2000
        return web.json_response(made)

    endpoint = serve(Script(handle=thinking))
    calls = planned(20)
    one_usd = PRICE.usd(calls[0].prompt_tokens_bound(), calls[0].max_tokens)
    tally = await judge(calls, tmp_path, max_usd=3.5 * one_usd)
    stored = journal.read_raw(str(tmp_path))
    assert tally.stopped and len(stored) == endpoint.requests.total() <= 4
    assert all(record["usage"]["completion_tokens"] > 2000 for record in stored)
    assert sum(record["usd"] for record in stored) <= 3.5 * one_usd


def thinks(times: Callable[[], float], spent_usd: list[float]) -> Script:
    """An endpoint whose thinking takes `times` max_tokens beside the text; what it counts."""

    def thinking(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "It is A.\n[[A]]", is_cut=False)
        usage = made["usage"]
        usage["total_tokens"] += int(times() * body["max_tokens"])
        completed = usage["total_tokens"] - usage["prompt_tokens"]
        spent_usd.append(PRICE.usd(usage["prompt_tokens"], completed))
        return web.json_response(made)

    return Script(handle=thinking)


@pytest.mark.parametrize("times", [2, 5, 14])
@pytest.mark.parametrize("num_calls", [4, 20, 60])
async def test_thinking_beyond_the_limit_passes_the_budget_by_one_call_at_most(
    tmp_path: Path, serve, times: int, num_calls: int
) -> None:
    """32 were in flight, each reserved at its bound, and spent 4 to 15 times the budget."""
    spent_usd: list[float] = []
    serve(thinks(lambda: times, spent_usd))
    calls = planned(60)
    one_usd = PRICE.usd(calls[0].prompt_tokens_bound(), calls[0].max_tokens)
    max_usd = num_calls * one_usd
    for _ in range(2):
        tally = await judge(calls, tmp_path, max_usd=max_usd)
        assert "times its bound as one did before" in tally.stopped["judge-4"]
        assert sum(spent_usd) <= max_usd or len(spent_usd) == 1
    assert journal.read_intents(str(tmp_path))[-1].get("bound_usd", one_usd) <= one_usd * 1.01
    num_paid = len(spent_usd)
    assert (await judge(calls, tmp_path)).stored == len(calls) - num_paid


@pytest.mark.parametrize("seed", range(6))
async def test_thinking_of_any_length_stays_within_what_the_dearest_calls_took(
    tmp_path: Path, serve, seed: int
) -> None:
    rng, spent_usd = random.Random(seed), list[float]()
    serve(thinks(lambda: rng.choice([0.2, 1, 3, 8]), spent_usd))
    calls = planned(60)
    one_usd = PRICE.usd(calls[0].prompt_tokens_bound(), calls[0].max_tokens)
    for share in (20, 40, 80):
        assert (await judge(calls, tmp_path, max_usd=share * one_usd)).stopped
        assert sum(spent_usd) <= share * one_usd + max(spent_usd)


async def test_a_text_beyond_the_limit_without_a_count_is_charged_as_long_as_it_is(
    tmp_path: Path, serve
) -> None:
    def endless(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "word " * 20_000 + "\n[[A]]", is_cut=False)
        del made["usage"]
        return web.json_response(made)

    serve(Script(handle=endless))
    tally = await judge(planned(1), tmp_path)
    assert tally.estimated == tally.stored == 2
    for record in journal.read_raw(str(tmp_path)):
        assert record["usage"]["completion_tokens"] >= 25_000
        assert record["usd"] == charged_usd(record) >= PRICE.usd(0, 25_000)


async def test_counts_that_contradict_each_other_are_charged_the_bound(tmp_path, serve) -> None:
    def contradicting(request: web.Request, body: dict) -> web.StreamResponse:
        made = completion(body, "[[A]]", is_cut=False)
        made["usage"]["total_tokens"] = made["usage"]["prompt_tokens"] - 1
        return web.json_response(made)

    serve(Script(handle=contradicting))
    calls = planned(2)
    tally = await judge(calls, tmp_path)
    assert tally.estimated == tally.stored == len(calls)
    for record, call in zip(journal.read_raw(str(tmp_path)), calls, strict=True):
        assert record["usage"]["completion_tokens"] == call.max_tokens
