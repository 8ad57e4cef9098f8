from tests.serve.conftest import events


async def test_an_answer_has_the_shape_of_openai(api_saying) -> None:
    response = await api_saying("Hello you").chat()
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Hello you"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 10
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 10


async def test_a_stream_has_one_role_and_one_finish_reason(api_saying) -> None:
    response = await api_saying("Grüße 你好 🙂").chat(
        stream=True, stream_options={"include_usage": True}
    )
    chunks = events(response)
    *deltas, usage = chunks
    assert [c["choices"][0]["delta"].get("role") for c in deltas].count("assistant") == 1
    assert deltas[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in deltas)
    assert text == "Grüße 你好 🙂"
    finishes = [c["choices"][0]["finish_reason"] for c in deltas]
    assert finishes[-1] == "stop" and finishes[:-1] == [None] * (len(finishes) - 1)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 10
    assert all(c["usage"] is None for c in deltas)
