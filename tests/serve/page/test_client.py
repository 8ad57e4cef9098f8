import pytest

from apps.serve.page.client import AnswerError, ChatClient
from tests.serve.api import LiveServer


async def test_the_page_streams_the_answer_so_far(api_saying) -> None:
    with LiveServer(api_saying("Hello you", step_s=0.02)) as server:
        client = ChatClient(f"{server.url}/v1", "")
        assert await client.some_model() == "scripted"
        messages = [{"role": "user", "content": "Hi"}]
        shown = [text async for text in client.stream("scripted", messages, {"temperature": 0})]
        await client.close()
    assert shown[-1] == "Hello you" and len(shown) > 2
    assert all(shown[-1].startswith(text) for text in shown)


async def test_the_real_cause_of_a_failure_is_shown(api_saying) -> None:
    with LiveServer(api_saying("x")) as server:
        client = ChatClient(f"{server.url}/v1", "")
        messages = [{"role": "user", "content": "long " * 200}]
        with pytest.raises(AnswerError, match="512"):
            [text async for text in client.stream("scripted", messages, {})]
        await client.close()
    gone = ChatClient("http://127.0.0.1:9/v1", "")
    with pytest.raises(AnswerError, match="cannot be reached"):
        await gone.models()
    await gone.close()
