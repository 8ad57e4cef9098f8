"""OpenAI's older form of tool calls, in the history and as a demand."""

from typing import Any

import pytest

from tests.serve.api import Api
from tests.serve.models import write_text_files

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<{{ c.id }} {{ c.function.name }} "
    "{{ c.function.arguments | tojson }}>{% endfor %}"
    "{% if m.tool_call_id %}={{ m.tool_call_id }}{% endif %}|{% endfor %}"
)
QUESTION = {"role": "user", "content": "q"}
CALL = {"name": "weather", "arguments": '{"city": "Rome"}'}


@pytest.fixture
def api(tmp_path, api_of) -> Api:
    return api_of(write_text_files(tmp_path, TEMPLATE))


async def prompt(api: Api, *messages: dict[str, Any]) -> str:
    body = {"model": "scripted", "messages": [QUESTION, *messages]}
    response = await api.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return api.model.tokenizer.backend.decode(list(api.engine.requests[-1].prompt_ids))


async def test_it_is_shown_as_the_tool_call_it_is(api: Api) -> None:
    older = await prompt(
        api,
        {"role": "assistant", "content": None, "function_call": CALL},
        {"role": "function", "name": "weather", "content": "sunny"},
    )
    call = {"id": "call00001", "type": "function", "function": CALL}
    newer = await prompt(
        api,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "content": "sunny"},
    )
    assert older == newer
    assert '<call00001 weather {"city": "Rome"}>' in older and "tool:sunny=call00001" in older


async def test_results_go_to_the_last_call_of_their_function(api: Api) -> None:
    shown = await prompt(
        api,
        {"role": "assistant", "function_call": CALL},
        {"role": "function", "name": "weather", "content": "sunny"},
        {"role": "assistant", "function_call": {"name": "add", "arguments": "{}"}},
        {"role": "function", "name": "add", "content": "3"},
        {"role": "assistant", "function_call": CALL},
        {"role": "function", "name": "weather", "content": "rain"},
        {"role": "function", "name": "other", "content": "?"},
    )
    for result in ("sunny=call00001|", "3=call00003|", "rain=call00005|", "?|"):
        assert f"tool:{result}" in shown


async def test_both_forms_in_one_message_are_refused(api: Api) -> None:
    call = {"id": "1", "type": "function", "function": CALL}
    both = {"role": "assistant", "tool_calls": [call], "function_call": CALL}
    body = {"model": "scripted", "messages": [QUESTION, both]}
    response = await api.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[1].function_call"


async def test_forcing_a_call_the_older_way_is_refused(api: Api) -> None:
    response = await api.chat(function_call={"name": "weather"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "function_call"
    for harmless in ("auto", "none", None):
        assert (await api.chat(function_call=harmless)).status_code == 200
