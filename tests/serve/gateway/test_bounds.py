"""Nothing a client sends can be too large, too deep or of the wrong kind without a clear 4xx."""

import gzip
import hashlib
import json

import pytest

from apps.serve.config import ApiKey, GatewayConfig
from apps.serve.request.schemas import MAX_SCHEMA_DEPTH

USER = [{"role": "user", "content": "hi"}]
DEEP: dict = {}
for _ in range(MAX_SCHEMA_DEPTH + 1):
    DEEP = {"properties": DEEP}
WIDE = {"enum": list(range(5000))}


def json_schema(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


BAD = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{**USER[0], "extra": 1}]}, "messages[0].extra"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        "messages[0].content[0].text",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": 10**9}, "n"),
    ({"n": 2.5}, "n"),
    ({"n": "2"}, "n"),
    ({"n": True}, "n"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 2.01}, "temperature"),
    ({"temperature": 1e400}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"max_completion_tokens": 10**30}, "max_completion_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 0.5}, "seed"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": "x" * 257}, "stop"),
    ({"stop_token_ids": [0] * 65}, "stop_token_ids"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"foo": 1}}, "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 3}, "logprobs"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": json_schema(DEEP)}, "response_format"),
    ({"response_format": json_schema(WIDE)}, "response_format"),
    ({"response_format": json_schema({"enum": ["x" * 70_000]})}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "response_format.json_schema.name",
    ),
    ({"tools": [{"type": "function", "function": {"name": "f" * 65}}]}, "tools[0].function.name"),
    ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools"),
    ({"tool_choice": "required"}, "tools"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"no_such_field": 1}, "no_such_field"),
    ({"model": "nobody"}, "model"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "http://x"}}],
                }
            ]
        },
        "messages[0].content[0]",
    ),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[json.dumps(b[0])[:60] for b in BAD])
async def test_a_bad_field_is_refused_by_name(api_saying, fields: dict, param: str) -> None:
    body = json.dumps({"model": "scripted", "messages": USER, **fields})
    response = await api_saying("x").http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    error = response.json()["error"]
    assert response.status_code == (404 if param == "model" else 400), error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".") and len(error["message"]) < 400
    if "e400" not in body and "Infinity" not in body:
        assert error["param"] == param or error["param"].startswith((f"{param}[", f"{param}."))


async def test_what_cannot_change_the_answer_is_ignored(api_saying) -> None:
    response = await api_saying("x").chat(
        user="me", metadata={"a": "b"}, store=True, service_tier="auto", parallel_tool_calls=True,
        logit_bias={"foo": 0}, functions=[{"name": "f"}], function_call="none",
        audio={"voice": "alloy", "format": "wav"}, modalities=["text"], top_p=None, stop=None,
    )  # fmt: skip
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"model": "\xff"}', 400),
        (b'{"model": NaN}', 400),
        (b'{"model": "scripted", "prompt": "x", "temperature": 1e999}', 400),
        (b'{"model": "scripted", "prompt": "\\ud800"}', 400),
        (b'{"model": "scripted", "prompt": "x", "seed": ' + b"9" * 100_000 + b"}", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b" " * (64 << 10), 413),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_body_that_is_no_request_is_refused(api_saying, body: bytes, status: int) -> None:
    api = api_saying("x")
    limit = 4 << 20 if status == 400 else 16 << 10
    api.settings = GatewayConfig(max_body_bytes=limit)
    headers = {"content-type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize"):
        response = await api.http.post(path, content=body, headers=headers)
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_without_a_length_is_bounded_while_it_is_read(api_saying) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(max_body_bytes=4096)
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 1 << 20:
            sent += 1024
            yield b" " * 1024

    response = await api.http.post(
        "/v1/completions", content=endless(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413


async def test_other_content_types_and_unknown_paths_answer_in_openais_shape(api_saying) -> None:
    api = api_saying("x")
    form = await api.http.post("/v1/completions", data={"a": "b"})
    assert (form.status_code, form.json()["error"]["param"]) == (415, None)
    assert (await api.http.get("/v1/nothing")).json()["error"]["type"] == "not_found_error"
    assert (await api.http.get("/v1/chat/completions")).status_code == 405
    missing = await api.http.get("/v1/models/nobody")
    assert missing.json()["error"]["code"] == "model_not_found"
    embeddings = await api.http.post("/v1/embeddings", json={"model": "scripted", "input": "x"})
    assert embeddings.status_code == 404
    assert "make no embeddings" in embeddings.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/metrics", "/v1/models"])
async def test_monitors_may_ask_for_the_head_of_an_answer(api_saying, path: str) -> None:
    assert (await api_saying("x").http.head(path)).status_code == 200


async def test_a_page_of_another_site_sends_no_request_without_leave(api_saying) -> None:
    """Without a content type, as of a Blob, a browser asks nobody before it sends."""
    api, body = api_saying("x"), b'{"model": "scripted", "prompt": "x"}'
    other = {"origin": "https://b.example"}
    refused = await api.http.post("/v1/completions", content=body, headers=other)
    assert refused.status_code == 415 and not api.engine.requests
    assert (await api.http.post("/v1/completions", content=body)).status_code == 200


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([-1], "'prompt[0]': Input should be greater than or equal to 0 (got -1)."),
        (["a", 5], "'prompt[1]': Input should be a valid string (got 5)."),
        ([[1, "a"]], "'prompt[0][1]': Input should be a valid integer (got 'a')."),
        (5, "'prompt': Input should be a valid string (got 5)."),
    ],
)
async def test_of_a_field_that_may_be_several_things_the_nearest_is_named(
    api_saying, prompt: object, sentence: str
) -> None:
    error = (await api_saying("x").complete(prompt)).json()["error"]
    assert error["message"] == f"Invalid {sentence}"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"Temperature": 1}, "Temperature"),
        ({"max-tokens": 1}, "max-tokens"),
        ({"tools": [{"type": "function", "function": {"name": "f", "Strict": 1}}]},
         "tools[0].function.Strict"),
    ],
)  # fmt: skip
async def test_an_unknown_parameter_is_named_as_the_client_wrote_it(
    api_saying, fields: dict, name: str
) -> None:
    error = (await api_saying("x").chat(**fields)).json()["error"]
    assert (error["param"], error["message"]) == (name, f"Unknown parameter: {name!r}.")


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role",
         "expected one of 'system', 'developer', 'user', "),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "Missing required parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]},
         "messages[0].content[0].type", "'file' (got 'video')"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'json_schema' (got 'xml')"),
        ({"response_format": {}}, "response_format.type", "Missing required parameter"),
    ],
)  # fmt: skip
async def test_a_kind_that_nobody_knows_is_named_beside_those_there_are(
    api_saying, fields: dict, param: str, sentence: str
) -> None:
    error = (await api_saying("x").chat(**fields)).json()["error"]
    assert error["param"] == param and sentence in error["message"], error
    assert "tag" not in error["message"]


async def test_log_probabilities_of_a_prompt_are_bounded(api_saying, monkeypatch) -> None:
    monkeypatch.setattr("apps.serve.gateway.plan.MAX_PROMPT_LOGPROBS", 30)
    api = api_saying("x")
    assert (await api.complete([[5] * 10], echo=True, logprobs=2)).status_code == 200
    refused = await api.complete([[5] * 11], echo=True, logprobs=2)
    assert refused.status_code == 400 and "33 log-probabilities" in refused.text


async def test_one_request_is_a_bounded_number_of_sequences(api_saying) -> None:
    api = api_saying("x", max_waiting=10_000)
    refused = await api.complete(["x"] * 128, n=16)
    assert refused.status_code == 400
    assert not api.engine.requests
    assert len((await api.complete(["x"] * 128, n=2)).json()["choices"]) == 256


async def test_a_packed_body_is_not_unpacked(api_saying) -> None:
    bomb = gzip.compress(b" " * (32 << 20))
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = await api_saying("x").http.post("/v1/completions", content=bomb, headers=headers)
    assert response.status_code == 415 and "gzip" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "text", ["\x00", "\ufeff\u202e\x7f", "<|endoftext|>", "\U0010ffff", "{{ 7 * 7 }}"]
)
async def test_odd_characters_are_text_like_any_other(api_saying, served, text: str) -> None:
    api = api_saying("x")
    assert (await api.chat(text)).status_code == 200
    ids = list(api.engine.requests[0].prompt_ids)
    shown = served.tokenizer.backend.decode(ids, skip_special_tokens=False)
    assert text in shown or text[:1] + " " + text[1:] in shown


async def test_of_two_keys_with_one_name_the_last_holds(api_saying) -> None:
    body = b'{"model": "nobody", "model": "scripted", "prompt": "x"}'
    headers = {"content-type": "application/json"}
    response = await api_saying("x").http.post("/v1/completions", content=body, headers=headers)
    assert response.status_code == 200


async def test_keys_are_asked_for_and_compared_exactly(api_saying, monkeypatch) -> None:
    api = api_saying("x")
    digest = hashlib.sha256(b"Sesame").hexdigest()
    api.settings = GatewayConfig(api_keys=(ApiKey(name="ali", sha256=digest),))
    monkeypatch.setattr("apps.serve.gateway.guard.BAD_KEYS_PER_MINUTE", 1000)
    for header in (None, "Bearer ", "Bearer sesame", "Bearer Sesame2", "Basic Sesame", digest):
        headers = {} if header is None else {"authorization": header}
        for path in ("/v1/models", "/metrics", "/tokenize", "/v1/chat/completions"):
            response = await api.http.request("GET", path, headers=headers)
            assert response.status_code == 401, (path, header)
    assert (await api.http.get("/health")).status_code == 200
    ok = await api.http.get("/v1/models", headers={"authorization": "Bearer Sesame"})
    assert ok.status_code == 200


async def test_a_key_may_have_any_letters(api_saying) -> None:
    api = api_saying("x")
    key = "schlüssel".encode()
    keys = (ApiKey(name="ali", sha256=hashlib.sha256(key).hexdigest()),)
    api.settings = GatewayConfig(api_keys=keys)
    answer = await api.http.get("/v1/models", headers={b"authorization": b"Bearer " + key})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/v1/embeddings", "make no embeddings"),
        ("/v1/responses", "ask /v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions is: a client's base URL ends in /v1, once"),
        ("/v1/v1/completions", "/v1/completions is: a client's base URL ends in /v1, once"),
        ("/v1/files", "There is no POST /v1/files here."),
    ],
)
async def test_a_path_that_is_not_here_is_told_with_what_may_be_meant(
    api_saying, path: str, sentence: str
) -> None:
    answer = await api_saying("x").http.post(path, json={})
    assert answer.status_code == 404 and sentence in answer.json()["error"]["message"]
