"""Every style of API is spoken, and a refused parameter is learned from the refusal."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from apps.common.errors import ConfigError
from apps.eval.calls import styles
from apps.eval.calls.client import MOST_BYTES, Endpoint, complete, connect
from apps.eval.calls.failure import CallFailure
from apps.eval.calls.parameters import ParameterFit
from apps.eval.calls.reply import Reply, part_thoughts
from tests.eval.scripted_judge import Script, completion, error

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
SETTINGS = {"temperature": 0.0, "max_tokens": 64}


def endpoint(url: str, model: str = "m", **settings) -> Endpoint:
    return Endpoint(model=model, base_url=url, api_key="k", timeout_s=5.0, **settings)


async def ask(target: Endpoint, settings: dict | None = None) -> Reply:
    async with connect(target) as client:
        return await complete(client, ASKED, settings or SETTINGS)


def picky(*refused: str, code: str | None = "unsupported_parameter"):
    """Refuses parameters as reasoning models do."""

    def handle(request: web.Request, body: dict) -> web.StreamResponse:
        for name in refused:
            if name in body:
                made = error(400, code)
                text = f"Unsupported parameter: '{name}' is not supported with this model."
                return web.json_response(
                    {"error": {"message": text, "code": code}}, status=made.status
                )
        return web.json_response(completion(body, "Hi.", is_cut=False))

    return Script(handle=handle)


@pytest.mark.parametrize("code", ["unsupported_parameter", None])
@pytest.mark.parametrize("model", ["gpt-6", "my-gpt5-deployment", "openai/o3-mini"])
async def test_a_refused_parameter_is_learned_once(serve, model: str, code: str | None) -> None:
    server = serve(picky("temperature", "top_p", "max_tokens", code=code))
    async with connect(endpoint(server.url, model)) as client:
        for _ in range(3):
            reply = await complete(client, ASKED, {**SETTINGS, "top_p": 1.0})
            assert reply.text == "Hi."
        told = len(client.fit.learned)
        assert server.requests.total() == 3 + told
    assert told == (0 if model == "openai/o3-mini" else 3)
    assert server.bodies[-1] == {
        "model": model,
        "messages": ASKED,
        "max_completion_tokens": 64,
    }


async def test_a_model_that_only_sounds_like_a_reasoning_model_gets_max_tokens(serve) -> None:
    server = serve(picky("max_completion_tokens"))
    assert (await ask(endpoint(server.url, "o1-my-finetune"))).text == "Hi."
    assert server.bodies[-1]["max_tokens"] == 64


async def test_an_endpoint_that_takes_no_bound_is_refused(serve) -> None:
    server = serve(picky("max_tokens", "max_completion_tokens"))
    with pytest.raises(CallFailure, match="max_completion_tokens"):
        await ask(endpoint(server.url))
    assert server.requests.total() == 2


async def test_another_bad_request_is_not_a_lesson(serve) -> None:
    server = serve(Script(status=400))
    with pytest.raises(CallFailure) as failure:
        await ask(endpoint(server.url))
    assert failure.value.kind == "rejected" and server.requests.total() == 1


def test_settings_of_an_endpoint_are_obeyed() -> None:
    fit = ParameterFit("m", ["temperature"], {"max_tokens": "max_new_tokens"})
    assert fit.fitted({**SETTINGS, "seed": None}) == {"max_new_tokens": 64}


async def test_azure_is_spoken_to_with_its_version_and_its_key(serve) -> None:
    def azure(request: web.Request, body: dict) -> web.StreamResponse:
        if "api-version" not in request.query:
            return error(404, "404")
        if request.headers.get("api-key") != "k" or "Authorization" in request.headers:
            return error(401, "401")
        return web.json_response(completion(body, "Hi.", is_cut=False))

    server = serve(Script(handle=azure))
    root = server.url.removesuffix("/v1")
    url = f"{root}/openai/deployments/gpt4o?api-version=2024-06-01"
    assert (await ask(endpoint(url, style="azure"))).text == "Hi."
    assert (await ask(endpoint(root, style="azure"))).text == "Hi."


@pytest.mark.parametrize(
    ("style", "base_url", "url"),
    [
        ("openai", None, "https://api.openai.com/v1/chat/completions"),
        ("openai", "http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("openai", "http://h:1/v1?k=2", "http://h:1/v1/chat/completions?k=2"),
        (
            "azure",
            "https://x.openai.azure.com/openai/deployments/d?api-version=7",
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=7",
        ),
        (
            "azure",
            "https://x.openai.azure.com",
            "https://x.openai.azure.com/openai/deployments/m/chat/completions"
            f"?api-version={styles.AZURE_VERSION}",
        ),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
    ],
)
def test_a_request_goes_where_its_style_says(style, base_url: str | None, url: str) -> None:
    assert styles.url(style, base_url, "m") == url


async def test_anthropic_is_spoken_to(serve) -> None:
    def anthropic(request: web.Request, body: dict) -> web.StreamResponse:
        assert request.headers["x-api-key"] == "k" and request.headers["anthropic-version"]
        content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi."}]
        usage = {"input_tokens": 12, "output_tokens": 3}
        reply = {"model": "claude", "content": content, "stop_reason": "max_tokens"}
        return web.json_response({**reply, "usage": usage})

    server = serve(Script(handle=anthropic))
    reply = await ask(endpoint(server.url, style="anthropic"), {**SETTINGS, "response_format": {}})
    assert (reply.text, reply.thoughts, reply.finish_reason) == ("Hi.", "hm", "length")
    assert (reply.prompt_tokens, reply.completion_tokens) == (12, 3)
    assert server.bodies[0] == {
        "model": "m",
        "system": "Be brief.",
        "messages": ASKED[1:],
        "temperature": 0.0,
        "max_tokens": 64,
    }


@pytest.mark.parametrize(
    "usage",
    [
        *(None, {}, [], "12", {"prompt_tokens": -3, "completion_tokens": 1.5}),
        {"prompt_tokens": "12", "completion_tokens": True},
    ],
)
def test_nonsense_is_no_count_of_tokens(usage: object) -> None:
    message = {"role": "assistant", "content": None}
    reply = styles.reply("openai", {"choices": [{"message": message}], "usage": usage})
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)
    assert reply.text == ""


def test_thoughts_beside_the_text_are_kept_apart() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hi."},
    ]
    for message in (
        {"content": parts},
        {"content": "Hi.", "reasoning_content": "hm"},
        {"content": "Hi.", "reasoning": "hm"},
    ):
        reply = styles.reply("openai", {"choices": [{"message": message}]})
        assert (reply.text, reply.thoughts) == ("Hi.", "hm")


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("<think>hm</think>\n\nHi.", ("hm", "Hi.")),
        ("\n<Thinking>hm</Thinking>Hi.", ("hm", "Hi.")),
        ("hm</think>Hi.", ("hm", "Hi.")),
        ("<think>hm", ("hm", "")),
        ("Use <think> tags.", ("", "Use <think> tags.")),
        ("Write <think>x</think> so.", ("", "Write <think>x</think> so.")),
        ("Hi.", ("", "Hi.")),
    ],
)
def test_tagged_thoughts_are_parted_from_the_answer(text: str, parted: tuple[str, str]) -> None:
    assert part_thoughts(text) == parted


async def test_an_endpoints_own_authorization_is_the_only_one(serve) -> None:
    seen: list[str] = []

    def note(request: web.Request, body: dict) -> None:
        seen.extend(request.headers.getall("Authorization"))

    server = serve(Script(handle=note))
    await ask(endpoint(server.url, headers={"authorization": "Basic own"}))
    assert seen == ["Basic own"]


async def test_no_password_of_a_netrc_file_goes_to_an_endpoint(
    serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp's reading of the environment failed beside a key, and sent it without one."""
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    seen: list[str | None] = []

    def note(request: web.Request, body: dict) -> None:
        seen.append(request.headers.get("Authorization"))

    server = serve(Script(handle=note))
    await ask(endpoint(server.url))
    await ask(replace(endpoint(server.url), api_key=None))
    assert seen == ["Bearer k", None]


async def test_requests_go_through_the_proxy_of_the_environment(
    serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[str] = []

    def note(request: web.Request, body: dict) -> None:
        hosts.append(request.host)

    server = serve(Script(handle=note))
    host = server.url.removesuffix("/v1").removeprefix("http://")
    monkeypatch.setenv("http_proxy", host)
    monkeypatch.setenv("no_proxy", "")
    assert (await ask(endpoint("http://far.example/v1"))).text
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert (await ask(endpoint(server.url))).text
    assert hosts == ["far.example", host]
    monkeypatch.setenv("http_proxy", "socks5://me:secret@far.example:1")
    with pytest.raises(ConfigError, match="HTTP_PROXY names a proxy of socks5") as refusal:
        await ask(endpoint("http://far.example/v1"))
    assert "secret" not in refusal.value.sentence


async def test_a_body_beyond_all_measure_is_left_unread(serve) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(2 * MOST_BYTES >> 20):
            await response.write(b" " * (1 << 20))
        return response

    runner = web.AppRunner(web.Application())
    runner.app.router.add_post("/v1/chat/completions", endless)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with pytest.raises(CallFailure, match="more than 32 MiB") as failure:
            await ask(endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1"))
        assert failure.value.may_be_billed
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("charset", "encoding"), [("iso-8859-1", "latin-1"), ("iso-8859-1", "utf-8"), (None, "utf-8")]
)
async def test_text_is_read_in_its_own_encoding(serve, charset: str | None, encoding: str) -> None:
    def encoded(request: web.Request, body: dict) -> web.Response:
        said = json.dumps(completion(body, "Caf\u00e9.", is_cut=False), ensure_ascii=False)
        json_type = "application/json"
        return web.Response(body=said.encode(encoding), content_type=json_type, charset=charset)

    assert (await ask(endpoint(serve(Script(handle=encoded)).url))).text == "Caf\u00e9."
