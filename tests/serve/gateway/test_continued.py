"""From what a client has of an answer to the request for its rest."""

from typing import Any

import pytest

from apps.serve.config import ModelConfig
from apps.serve.gateway.continued import ChoiceSoFar, can_continue, continued
from apps.serve.gateway.forward import limited_body
from apps.serve.request.schemas import ChatRequest, CompletionRequest


def after(*choices: dict[str, object]) -> ChoiceSoFar:
    so_far = ChoiceSoFar()
    for choice in choices:
        so_far.take(choice)
        so_far.num_tokens += 1
    return so_far


def said(text: str) -> dict[str, object]:
    return {"index": 0, "delta": {"content": text}}


def rest_of_text(so_far: ChoiceSoFar, **fields: Any) -> dict[str, Any]:
    body = {"model": "p", "prompt": "Once", "max_tokens": 50, **fields}
    request = CompletionRequest.model_validate(body)
    assert can_continue(request, so_far)
    return continued(body, request, so_far)


def rest_of_chat(last: dict[str, object], so_far: ChoiceSoFar) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Count."}, last]
    body = {"model": "p", "messages": messages, "continue_final_message": True}
    request = ChatRequest.model_validate(body)
    assert can_continue(request, so_far)
    return continued(body, request, so_far)


def test_a_completion_goes_on_behind_its_prompt_which_is_echoed_once() -> None:
    rest = rest_of_text(after({"text": " upon"}))
    assert rest["prompt"] == "Once upon" and rest["max_tokens"] == 49
    for pieces in (["Once", " upon"], ["Once upon"]):
        rest = rest_of_text(after(*({"text": piece} for piece in pieces)), echo=True)
        assert (rest["prompt"], rest["echo"]) == ("Once upon", False)


@pytest.mark.parametrize("text", ["On", "<s>Once upon"])
def test_an_echo_that_broke_off_or_differs_is_not_continued(text: str) -> None:
    request = CompletionRequest.model_validate({"model": "p", "prompt": "Once", "echo": True})
    assert not can_continue(request, after({"text": text}))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("one", "one two"),
        ([{"type": "text", "text": "on"}, {"type": "text", "text": "e"}], "one two"),
        ([{"type": "refusal", "refusal": "No"}], "No two"),
        (None, " two"),
        ([], " two"),
    ],
)
def test_a_message_that_the_client_began_goes_on_from_its_text(content: object, text: str) -> None:
    last = {"role": "assistant", "content": content, "name": "ann", "reasoning_content": "hm"}
    rest = rest_of_chat(last, after(said(" two")))
    assert rest["messages"][-1] == {**last, "content": text}
    assert len(rest["messages"]) == 2


def test_a_refusal_that_the_client_began_goes_on_as_text() -> None:
    rest = rest_of_chat({"role": "assistant", "refusal": "I cannot"}, after(said(" do that")))
    assert rest["messages"][-1] == {"role": "assistant", "content": "I cannot do that"}


def test_an_answer_becomes_the_last_message() -> None:
    body = {"model": "p", "messages": [{"role": "user", "content": "Count."}], "n": 2}
    rest = continued(body, ChatRequest.model_validate(body), after(said("one"), said(" two")))
    assert rest["messages"][-1] == {"role": "assistant", "content": "one two"}
    assert rest["continue_final_message"] and rest["n"] == 1


def test_a_completion_without_a_length_does_not_begin_its_sixteen_tokens_anew() -> None:
    request = CompletionRequest(model="m", prompt="Once")
    pool = ModelConfig(name="m", engine="pool", options={"joinable": True})
    so_far = ChoiceSoFar(text=" upon", num_tokens=10)
    assert continued(limited_body(request, pool), request, so_far)["max_tokens"] == 6
