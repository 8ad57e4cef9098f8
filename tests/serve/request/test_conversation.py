"""Turns of one conversation are told from others', without an id."""

from apps.serve.request.conversation import FIRST_TOKENS, chat_digest, text_digest
from apps.serve.request.schemas import ChatRequest, CompletionRequest

SYSTEM = {"role": "system", "content": "Be brief. " * 500}


def chat(*texts: str, **fields: object) -> str:
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    body = {"model": "m", "messages": [SYSTEM, *turns], **fields}
    return chat_digest(ChatRequest.model_validate(body))


def test_later_turns_belong_to_the_first() -> None:
    assert chat("Hi") == chat("Hi", "Hello", "Why?") == chat("Hi", "Hello", "Why?", temperature=1)


def test_another_first_question_is_another_conversation() -> None:
    different = {chat("Hi"), chat("Ho"), chat("Hi", cache_salt="mine"), chat("ä")}
    assert len(different) == 4


def test_messages_without_a_question_are_a_conversation_too() -> None:
    body = ChatRequest.model_validate({"model": "m", "messages": [SYSTEM]})
    assert chat_digest(body) and chat_digest(body) != chat("Hi")


def test_a_prompt_that_grows_stays_what_it_was() -> None:
    body = CompletionRequest.model_validate({"model": "m", "prompt": "x"})
    ids = list(range(FIRST_TOKENS))
    assert text_digest(body, ids) == text_digest(body, [*ids, 7, 8])
    assert text_digest(body, ids) != text_digest(body, [9, *ids])
