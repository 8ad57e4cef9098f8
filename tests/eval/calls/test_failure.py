"""Every failure of an endpoint is met as what it is, wherever the endpoint says it."""

import json

import pytest
from aiohttp import web

from apps.eval.calls.client import complete, connect, read_response
from apps.eval.calls.failure import CallFailure, FailureKind
from apps.eval.calls.reply import Reply
from apps.eval.protocols.parsing import parse
from tests.eval.calls.test_client import ASKED, SETTINGS, ask, endpoint
from tests.eval.scripted_judge import Script, completion


def failure(status: int, body: object, headers: dict[str, str] | None = None) -> CallFailure:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(CallFailure) as raised:
        read_response("openai", *stated(status, headers or {}, data))
    return raised.value


def stated(status: int, headers: dict[str, str], data: bytes):
    from apps.eval.calls.json_body import stated_status

    return stated_status(status, data), headers, data


@pytest.mark.parametrize(
    ("error", "kind", "may_be_billed"),
    [
        ({"message": "No auth credentials found", "code": 401}, "fatal", False),
        ({"message": "No credits", "code": "402"}, "fatal", False),
        ({"message": "slow down", "code": 429}, "rate_limited", False),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, "rate_limited", False),
        ({"message": "slow down", "status": "RESOURCE_EXHAUSTED"}, "rate_limited", False),
        ({"message": "busy", "type": "overloaded_error"}, "unavailable", False),
        ({"message": "upstream died", "code": 502}, "unavailable", True),
        ({"message": "upstream died", "code": None}, "unavailable", True),
        ("upstream died", "unavailable", True),
        ({"message": "too long", "code": 400}, "rejected", False),
    ],
)
def test_an_error_under_200_goes_the_way_of_its_own_status(
    error: object, kind: FailureKind, may_be_billed: bool
) -> None:
    for body in ({"error": error}, {"error": error, "choices": []}):
        met = failure(200, body)
        assert (met.kind, met.may_be_billed) == (kind, may_be_billed)
        words = error["message"] if isinstance(error, dict) else error
        assert str(words) in met.sentence
    if isinstance(error, dict):
        assert failure(200, {"object": "error", **error}).kind == kind


def test_the_words_of_the_provider_behind_a_router_are_kept() -> None:
    error = {"message": "Provider returned error", "code": 503, "metadata": {"raw": "no GPU"}}
    assert failure(200, {"error": error}).sentence == "HTTP 503: Provider returned error: no GPU"


def test_a_reply_that_broke_off_is_no_verdict() -> None:
    choice = {"message": {"content": "A leads: [[A]]. But"}, "finish_reason": "error"}
    met = failure(200, {"choices": [choice]})
    assert (met.kind, met.may_be_billed) == ("garbled", True)
    died = {**choice, "error": {"message": "upstream died", "code": 429}}
    met = failure(200, {"choices": [died]})
    assert "upstream died" in met.sentence and met.may_be_billed, "what it wrote is billed"
    beside = {"message": {"content": "A leads"}, "finish_reason": None}
    met = failure(200, {"choices": [beside], "error": {"message": "upstream died"}})
    assert met.kind == "garbled" and "upstream died" in met.sentence


@pytest.mark.parametrize("message", [{}, {"message": None}, {"message": {"content": None}}])
@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "content_filter: RECITATION"])
def test_a_reply_that_was_filtered_whole_is_a_refusal(message: dict, reason: str) -> None:
    """Gemini's has no message; asked for again it would be filtered again."""
    body = {"choices": [{"index": 0, "finish_reason": reason, **message}]}
    reply = read_response("openai", 200, {}, json.dumps(body).encode())
    assert reply.text == "" and parse("", "letter", reply.finish_reason).status == "refused"


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"finish_reason": "abort"}, "finish_reason 'abort'"),
        ({"finish_reason": "insufficient_system_resource"}, "insufficient_system_resource"),
        ({"finish_reason": "error"}, "finish_reason 'error'"),
        ({"finish_reason": "stop", "error": "upstream died"}, "upstream died"),
        ({"finish_reason": "length", "error": {"code": 503, "metadata": {"raw": "no GPU"}}}, "GPU"),
        ({"error": {"message": "upstream died", "code": 401}}, "upstream died"),
        ({"message": None, "finish_reason": "error"}, "finish_reason 'error'"),
    ],
)
def test_every_way_to_break_off_is_met_alike(end: dict[str, object], words: str) -> None:
    met = failure(200, {"choices": [{"message": {"content": "A leads: [[A]]. But"}, **end}]})
    assert (met.kind, met.may_be_billed) == ("garbled", True)
    assert "the endpoint broke off its answer" in met.sentence and words in met.sentence


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>Sign in</html>", r"\(no JSON\): <html>Sign in"),
        (b"", r"\(no JSON\): an empty body"),
        ({"choices": []}, "its choices are empty"),
        ({"id": "x"}, r"\(no 'choices'\): \{\"id\": \"x\"\}"),
        ({"choices": [{"text": "old"}]}, "no 'message'"),
        ({"choices": [7]}, "'7' is not an object"),
        ([1], r"'\[1\]' is not an object"),
        (b"[" * 100_000, "no JSON|too deep"),
    ],
)
def test_a_success_without_a_reply_says_what_came(body: object, words: str) -> None:
    met = failure(200, body)
    assert (met.kind, met.may_be_billed) == ("garbled", True)
    with pytest.raises(CallFailure, match=words):
        raise met
    assert len(met.sentence) < 450


async def test_half_of_a_surrogate_pair_is_read_and_replaced(serve) -> None:
    def half(request: web.Request, body: dict) -> web.StreamResponse:
        text = json.dumps(completion(body, "X", is_cut=False))
        whole = text.replace('"X"', '"Good \\ud83d \\ud83d\\ude00\\n[[A]]"')
        return web.Response(text=whole, content_type="application/json")

    server = serve(Script(handle=half))
    reply = await ask(endpoint(server.url))
    assert reply.text == "Good \N{REPLACEMENT CHARACTER} \N{GRINNING FACE}\n[[A]]"
    assert server.requests.total() == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("style", ["openai", "azure", "anthropic"])
async def test_a_redirect_takes_no_key_and_no_text_elsewhere(serve, status: int, style) -> None:
    other = serve(Script())
    there = f"{other.url}/chat/completions"

    def moved(request: web.Request, body: dict) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": there})

    server = serve(Script(handle=moved))
    target = endpoint(server.url, style=style, headers={"X-Team-Token": "t"})
    with pytest.raises(CallFailure, match=f"moved to {there}") as met:
        await ask(target)
    assert met.value.kind == "fatal" and met.value.advice and "give that URL" in met.value.advice
    assert (server.requests.total(), other.requests.total()) == (1, 0)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Request too large for gpt-4o on TPM: Limit 30000, Requested 31000.", "rejected"),
        ("Rate limit on tokens per min (TPM): Limit: 30,000, Requested: 31,000.", "rejected"),
        ("Rate limit reached: Limit 30000, Used 29000, Requested 5000.", "rate_limited"),
        ("Rate limit reached", "rate_limited"),
    ],
)
def test_a_request_beyond_the_rate_is_never_sent_again(message: str, kind: FailureKind) -> None:
    assert failure(429, {"error": {"message": message}}).kind == kind


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    ("message", "code", "is_filtered"),
    [
        ('Your chosen model requires moderation. Your input was flagged for "v"', 403, True),
        ("Your prompt was flagged as potentially violating our usage policy.", None, True),
        ("Content violates usage guidelines.", None, True),
        ("Blocked.", "data_inspection_failed", True),
        ("Your account was flagged for abuse of the content policy.", None, False),
        ("Your key may not use this model.", None, False),
    ],
)
def test_a_flagged_input_is_one_answers_fault(status, message, code, is_filtered) -> None:
    body = {"error": {"message": message, "code": code}}
    if is_filtered:
        reply = read_response("openai", *stated(status, {}, json.dumps(body).encode()))
        assert reply == Reply(text=message, finish_reason="content_filter", was_filtered=True)
    else:
        assert failure(status, body).kind == ("fatal" if status == 403 else "rejected")


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_nobody_sits_through_ends_the_run(status: int) -> None:
    body = {"error": {"message": "requests per day"}}
    met = failure(status, body, {"retry-after": "86400"})
    assert met.kind == "fatal" and "it asks to wait 24 hours" in met.sentence
    assert met.advice == "run the same command again then"
    near = failure(status, body, {"retry-after": "600"})
    assert near.kind != "fatal" and near.retry_after_s == 600


async def test_a_reply_that_missed_its_form_is_billed_and_the_next_has_none(serve) -> None:
    def strict(request: web.Request, body: dict) -> web.StreamResponse:
        if "response_format" in body:
            error = {"message": "Failed to generate JSON", "code": "json_validate_failed"}
            return web.json_response({"error": error}, status=400)
        return web.json_response(completion(body, "Hi.", is_cut=False))

    server = serve(Script(handle=strict))
    asked = {**SETTINGS, "response_format": {"type": "json_object"}}
    async with connect(endpoint(server.url)) as client:
        with pytest.raises(CallFailure) as met:
            await complete(client, ASKED, asked)
        assert (met.value.kind, met.value.may_be_billed) == ("unavailable", True)
        assert (await complete(client, ASKED, asked)).text == "Hi."
    assert server.requests.total() == 2


@pytest.mark.parametrize("words", ["", "; response_format is not supported", "; unknown seed"])
async def test_a_reply_that_was_written_is_no_lesson_whatever_the_words(serve, words: str) -> None:
    """It is billed, so that nothing may be sent again before it is written down."""

    def strict(request: web.Request, body: dict) -> web.StreamResponse:
        told = {"message": f"Failed to generate JSON{words}", "code": "json_validate_failed"}
        return web.json_response({"error": told}, status=400)

    server = serve(Script(handle=strict))
    with pytest.raises(CallFailure) as met:
        await ask(endpoint(server.url), {**SETTINGS, "seed": 1, "response_format": {}})
    assert (met.value.kind, met.value.may_be_billed) == ("unavailable", True)
    assert server.requests.total() == 1


async def test_a_form_is_not_blamed_for_another_fault(serve) -> None:
    server = serve(Script(status=400))
    async with connect(endpoint(server.url)) as client:
        for _ in range(2):
            with pytest.raises(CallFailure, match="scripted 400"):
                await complete(client, ASKED, {**SETTINGS, "response_format": {}})
        assert client.fit.learned == []
