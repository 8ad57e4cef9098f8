import dataclasses

import pytest

from apps.serve.config import Limits
from apps.serve.engine.protocol import Request
from tests.serve.api import Api, events, spaced_api


async def test_a_completion_has_the_shape_of_openai(api_saying) -> None:
    body = (await api_saying("lo").complete("Hel")).json()
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "lo", "logprobs": None, "finish_reason": "stop"}
    ]


async def test_several_prompts_of_text_or_tokens_are_answered_in_order(api_saying, served) -> None:
    def repeat(request: Request) -> list[int]:
        return list(request.prompt_ids)

    api = api_saying(repeat)
    ids = served.tokenizer.backend.encode("two").ids
    texts = (await api.complete(["one", "three"], n=2)).json()["choices"]
    assert [c["text"] for c in texts] == ["one", "one", "three", "three"]
    assert [c["index"] for c in texts] == [0, 1, 2, 3]
    for prompt in (ids, [ids]):
        assert (await api.complete(prompt)).json()["choices"][0]["text"] == "two"


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_puts_the_prompt_before_the_answer(api_saying, stream: bool) -> None:
    response = await api_saying("lo").complete("Hel", echo=True, stream=stream)
    chunks = events(response) if stream else [response.json()]
    assert "".join(c["text"] for chunk in chunks for c in chunk["choices"]) == "Hello"


async def test_streamed_and_whole_logprobs_are_equal(api_saying) -> None:
    api = api_saying("né!")
    whole = (await api.complete("x", logprobs=2)).json()["choices"][0]["logprobs"]
    chunks = events(await api.complete("x", logprobs=2, stream=True))
    parts = [c["logprobs"] for chunk in chunks for c in chunk["choices"]]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [value for part in parts for value in part[field]] == whole[field]


async def test_tokens_that_are_parts_of_a_character_are_named_by_their_bytes(api_saying) -> None:
    body = (await api_saying("é").complete("x", logprobs=2)).json()
    found = body["choices"][0]["logprobs"]
    assert found["tokens"] == [r"bytes:\xc3", r"bytes:\xa9"]
    assert [len(top) for top in found["top_logprobs"]] == [2, 2]


async def test_an_echoed_prompt_has_logprobs_but_for_its_first_token(api_saying) -> None:
    api = api_saying("lo")
    found = (await api.complete("Hel", echo=True, logprobs=1)).json()["choices"][0]["logprobs"]
    assert found["tokens"] == list("Hello")
    assert found["token_logprobs"] == [None, -0.5, -0.5, -0.5, -0.5]
    assert found["top_logprobs"] == [None, {"e": -0.5}, {"l": -0.5}, {"l": -0.5}, {"o": -0.5}]
    assert found["text_offset"] == [0, 1, 2, 3, 4]
    chunks = events(await api.complete("Hel", echo=True, logprobs=1, stream=True))
    parts = [c["logprobs"] for chunk in chunks for c in chunk["choices"]]
    for name, values in found.items():
        assert [value for part in parts for value in part[name]] == values


async def test_a_prompt_is_scored_without_an_answer(api_saying) -> None:
    api = api_saying("lo")
    body = (await api.complete(["Hel", "p"], echo=True, logprobs=0, max_tokens=0)).json()
    assert [choice["text"] for choice in body["choices"]] == ["Hel", "p"]
    assert body["choices"][0]["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert body["usage"]["completion_tokens"] == 0 and not api.engine.running


async def test_best_of_returns_the_likeliest(api_saying, served) -> None:
    def by_seed(request: Request) -> list[int]:
        return served.tokenizer.backend.encode("abcd"[: 1 + request.params.seed % 4]).ids

    api = api_saying(by_seed)
    api.engine.logprob_of = lambda request, token: -1.0 / (1 + request.params.seed % 4)
    body = (await api.complete("x", n=1, best_of=8, seed=3)).json()
    longest = max(1 + request.params.seed % 4 for request in api.engine.requests)
    assert body["choices"][0]["text"] == "abcd"[:longest]
    assert len(api.engine.requests) == 8 and len(body["choices"]) == 1


async def test_a_suffix_is_filled_in_with_the_models_own_tokens(api_saying, served) -> None:
    api = api_saying("mid")
    await api.complete("before", suffix="after")
    text = served.tokenizer.backend.decode(
        list(api.engine.requests[0].prompt_ids), skip_special_tokens=False
    )
    assert text == "<|fim_prefix|>before<|fim_suffix|>after<|fim_middle|>"


async def test_offsets_are_those_of_the_text_which_has_no_special_tokens(
    api_saying, served
) -> None:
    ids = [2, *served.tokenizer.backend.encode("Hel").ids]
    (choice,) = (await api_saying("lo").complete(ids, echo=True, logprobs=1)).json()["choices"]
    assert choice["text"] == "Hello" and len(choice["logprobs"]["tokens"]) == 6
    assert choice["logprobs"]["text_offset"] == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
async def test_offsets_index_the_text_where_tokens_are_parts_of_characters_and_words(
    tmp_path, stream: bool, echo: bool
) -> None:
    prompt, says = "the 世é", " hat 🙂é the"
    api = spaced_api(tmp_path, says)
    fields = {"logprobs": 0, "max_tokens": 40, "echo": echo, "stream": stream}
    response = await api.complete(prompt, **fields)
    chunks = events(response) if stream else [response.json()]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["text"] for choice in choices)
    names = [name for choice in choices for name in choice["logprobs"]["tokens"]]
    offsets = [place for choice in choices for place in choice["logprobs"]["text_offset"]]
    assert text.startswith(prompt) == echo and text.endswith("🙂é the")
    assert len(names) == len(offsets) and offsets == sorted(offsets)
    assert any(name.startswith("bytes:") for name in names)
    for name, place in zip(names, offsets, strict=True):
        if name.startswith("bytes:"):
            assert text[place] in "世🙂"
        else:
            assert text[place:].startswith(name.lstrip(" ") if place == 0 else name)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cut", [True, False])
async def test_tokens_of_a_stop_string_are_shown_where_it_is(
    api_saying, stream: bool, cut: bool
) -> None:
    stop = {"stop": ["END"], "include_stop_str_in_output": not cut, "stream": stream}
    shown = "one E, " + ("" if cut else "END")
    response = await api_saying("one E, END two").complete(logprobs=0, max_tokens=40, **stop)
    chunks = events(response) if stream else [response.json()]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == shown
    found = [choice["logprobs"] for choice in choices]
    assert "".join(name for one in found for name in one["tokens"]) == shown
    assert [i for one in found for i in one["text_offset"]] == list(range(len(shown)))
    response = await api_saying("one E, END two").chat(logprobs=True, **stop)
    choices = [c for e in (events(response) if stream else [response.json()]) for c in e["choices"]]
    tokens = [t["token"] for c in choices if c["logprobs"] for t in c["logprobs"]["content"]]
    assert "".join(tokens) == shown


async def test_a_stop_string_that_never_ends_was_none(api_saying) -> None:
    (choice,) = (await api_saying("one EN").complete(logprobs=0, stop=["END"])).json()["choices"]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"]) == "one EN"


async def test_a_completion_begins_with_its_space(tmp_path) -> None:
    api = spaced_api(tmp_path, "the hat")
    for echo, text in ((False, " the hat"), (True, "the hat the hat")):
        body = (await api.complete("the hat", echo=echo)).json()
        assert body["choices"][0]["text"] == text


async def test_tokens_taken_from_the_cache_are_counted_once_for_a_prompt(api_saying) -> None:
    api = api_saying("x")
    api.engine.cached_tokens = 7
    usage = (await api.complete(["first prompt", "another one"], n=3)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 14
    assert (await api.chat(n=4)).json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 7


async def test_tokens_taken_from_the_cache_are_not_counted_again_after_a_move(
    api_saying, dying
) -> None:
    api = api_saying("a long answer")
    api.engine.cached_tokens = 7
    losses = dying(api, after_tokens=3, times=2)
    usage = (await api.chat()).json()["usage"]
    assert losses.count == 2 and usage["prompt_tokens_details"]["cached_tokens"] == 7


async def test_the_usual_length_stays_within_the_limit(api_saying, served) -> None:
    config = dataclasses.replace(served.config, limits=Limits(max_output_tokens=3))
    api = Api(dataclasses.replace(served, config=config), api_saying("abcdef").engine)
    choice = (await api.complete()).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("abc", "length")
