"""Thirty things that clients of OpenAI's API rely on, asked over HTTP with the openai client.

Ours answers with the torch engine and a random model; CRIA_CHECK_URL=http://host:port/v1 and
CRIA_CHECK_MODEL=NAME ask any other server the same.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

MODEL = os.environ.get("CRIA_CHECK_MODEL", "random")
HELLO: Any = [{"role": "user", "content": "Say something."}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "size": {"enum": [1, 2]}},
    "required": ["ok", "size"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> str:
    given = os.environ.get("CRIA_CHECK_URL")
    return given or f"{request.getfixturevalue('random_server').url}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ask(client: openai.OpenAI):
    def ask(**fields: Any) -> Any:
        wanted = {"model": MODEL, "messages": HELLO, "temperature": 0, "max_tokens": 24, **fields}
        return client.chat.completions.create(**wanted)

    return ask


def text(answer: Any, index: int = 0) -> str:
    return answer.choices[index].message.content


def test_01_models_are_listed(client) -> None:
    assert MODEL in [model.id for model in client.models.list()]


def test_02_a_model_is_found_by_its_name(client) -> None:
    assert client.models.retrieve(MODEL).object == "model"


def test_03_an_unknown_model_is_a_404(ask) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(model="no-such-model")


def test_04_an_answer_has_an_id_a_role_and_a_finish_reason(ask) -> None:
    answer = ask()
    assert answer.id and answer.object == "chat.completion" and answer.created
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_05_usage_adds_up(ask) -> None:
    usage = ask().usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_06_the_longest_answer_is_kept_to(ask) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        answer = ask(**{"max_tokens": None, field: 5})
        assert answer.usage.completion_tokens == 5
        assert answer.choices[0].finish_reason == "length"


def test_07_a_stream_has_the_text_of_the_whole_answer(ask) -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(stream=True)]
    assert len(pieces) > 2 and "".join(pieces) == text(ask())


def test_08_a_stream_names_the_role_once_and_first(ask) -> None:
    roles = [chunk.choices[0].delta.role for chunk in ask(stream=True)]
    assert roles[0] == "assistant" and not any(roles[1:])


def test_09_a_stream_has_one_finish_reason_at_its_end(ask) -> None:
    reasons = [chunk.choices[0].finish_reason for chunk in ask(stream=True)]
    assert reasons[-1] and not any(reasons[:-1])


def test_10_usage_ends_a_stream_that_asks_for_it(ask) -> None:
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and not any(chunk.usage for chunk in chunks[:-1])
    streamed, whole = chunks[-1].usage, ask().usage
    streamed.prompt_tokens_details = whole.prompt_tokens_details  # only the second hits the cache
    assert streamed == whole


def test_11_a_stream_that_does_not_ask_has_no_usage(ask) -> None:
    assert not any(chunk.usage or not chunk.choices for chunk in ask(stream=True))


def test_12_a_stream_is_server_sent_events_up_to_done(url) -> None:
    body = {"model": MODEL, "messages": HELLO, "stream": True, "max_tokens": 3}
    response = httpx.post(f"{url}/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.strip().split("\n\n")
    assert all(event.startswith("data: ") for event in events) and events[-1] == "data: [DONE]"


def test_13_the_likeliest_answer_is_the_same_every_time(ask) -> None:
    assert len({text(ask()) for _ in range(3)}) == 1


def test_14_a_seed_repeats_an_answer_and_another_gives_another(ask) -> None:
    first, again, other = (text(ask(temperature=1, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_15_sampling_holds_for_its_own_request_only(ask) -> None:
    before = text(ask())
    assert text(ask(temperature=2, seed=1)) != before
    assert text(ask(temperature=2, seed=1, top_p=0)) == before
    assert text(ask()) == before


def test_16_a_stop_string_ends_the_answer_and_is_no_part_of_it(ask) -> None:
    whole = text(ask())
    stop = whole[5:7]
    answer = ask(stop=[stop])
    assert text(answer) == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_17_n_answers_are_numbered_and_differ(ask) -> None:
    choices = ask(n=3, temperature=1, seed=4).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.message.content for choice in choices}) == 3


def test_18_logprobs_have_the_chosen_token_and_the_likeliest(ask) -> None:
    for count in (0, 5, 20):
        content = ask(logprobs=True, top_logprobs=count).choices[0].logprobs.content
        assert len(content) == 24
        for token in content:
            likeliest = [one.logprob for one in token.top_logprobs]
            assert len(likeliest) == count and likeliest == sorted(likeliest, reverse=True)
            assert not count or token.logprob == likeliest[0]


def test_19_streamed_logprobs_are_those_of_the_whole_answer(ask) -> None:
    fields = {"logprobs": True, "top_logprobs": 2}
    streamed = [
        token
        for chunk in ask(stream=True, **fields)
        for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert streamed == ask(**fields).choices[0].logprobs.content


def test_20_a_bias_forbids_a_token_and_forces_another(ask, url) -> None:
    root = url.removesuffix("/v1")
    ids = httpx.post(f"{root}/tokenize", json={"model": MODEL, "prompt": "x"}).json()["tokens"]
    assert set(text(ask(logit_bias={str(ids[-1]): 100}))) == {"x"}
    fields = {"temperature": 1, "seed": 1, "logit_bias": {str(ids[-1]): -100}}
    assert "x" not in text(ask(n=8, max_tokens=100, **fields))


def test_21_a_json_object_is_json(ask) -> None:
    answer = ask(response_format={"type": "json_object"}, max_tokens=200, temperature=1, seed=2)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text(answer)), dict)
    assert text(answer).lstrip().startswith("{")


def test_22_a_json_schema_is_followed(ask) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    for seed in range(3):
        found = json.loads(
            text(ask(response_format=shape, max_tokens=200, temperature=1, seed=seed))
        )
        assert found.keys() == {"ok", "size"}
        assert isinstance(found["ok"], bool) and found["size"] in (1, 2)


def test_23_a_required_tool_is_called_with_arguments_of_its_schema(ask) -> None:
    fields = {"tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    choice = ask(**fields).choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "look")
    assert json.loads(call.function.arguments).keys() == {"ok", "size"}
    deltas = [chunk.choices[0].delta for chunk in ask(**fields, stream=True)]
    pieces = [call for delta in deltas for call in delta.tool_calls or []]
    streamed = "".join(piece.function.arguments or "" for piece in pieces)
    assert streamed == call.function.arguments


def test_24_a_completion_goes_on_from_its_prompt(client) -> None:
    fields: Any = {"model": MODEL, "prompt": "Once", "max_tokens": 8, "temperature": 0}
    plain = client.completions.create(**fields).choices[0].text
    assert client.completions.create(**fields, echo=True).choices[0].text == "Once" + plain


def test_25_several_prompts_are_answered_in_their_order(client) -> None:
    fields: Any = {"model": MODEL, "max_tokens": 8, "temperature": 0}
    alone = [client.completions.create(prompt=p, **fields).choices[0].text for p in ("a b", "c")]
    both = client.completions.create(prompt=["a b", "c"], **fields).choices
    assert [(choice.index, choice.text) for choice in both] == list(enumerate(alone))


@pytest.mark.parametrize(
    "messages",
    [None, [], "hi", [{"role": "robot", "content": "x"}], [{"role": "user"}], [{"content": "x"}]],
    ids=str,
)
def test_26_wrong_messages_are_a_400_with_a_reason(url, messages: object) -> None:
    body = {"model": MODEL, "messages": messages}
    response = httpx.post(f"{url}/chat/completions", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and "messages" in error["message"]


@pytest.mark.parametrize(
    "fields",
    [{"temperature": -1}, {"top_p": 2}, {"max_tokens": -5}, {"n": 0}, {"top_logprobs": 21}],
    ids=str,
)
def test_27_numbers_out_of_bounds_are_a_400_that_names_them(ask, fields: dict) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(fields))):
        ask(logprobs=True, **fields)


def test_28_an_unknown_field_is_refused_by_name(ask) -> None:
    with pytest.raises(openai.BadRequestError, match="no_such_field"):
        ask(extra_body={"no_such_field": 1})


def test_29_a_prompt_longer_than_the_context_is_a_400_and_the_next_one_is_served(ask) -> None:
    long: Any = [{"role": "user", "content": "word " * 60_000}]
    with pytest.raises(openai.BadRequestError, match="context"):
        ask(messages=long)
    assert text(ask())


def test_30_answers_do_not_depend_on_what_else_is_asked(ask) -> None:
    def one(i: int) -> str:
        return text(ask(temperature=1, seed=i, max_tokens=4 + 3 * i))

    alone = [one(i) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, range(12))) == alone
