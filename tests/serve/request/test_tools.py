import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.serve.config import ModelConfig
from apps.serve.model.served import load_model
from apps.serve.request.forced_call import ForcedCall
from apps.serve.request.schemas import Function
from apps.serve.request.tools import ToolParser, call_grammar
from tests.serve.api import Api, events
from tests.serve.model.letters import random_answer
from tests.serve.models import write_text_files
from tests.serve.scripted import ScriptedEngine

CALL = '{"name": "add", "arguments": {"a": 1, "b": [2, "<tool_call>"]}}'
TRICKY = json.dumps({"name": "add", "arguments": {"a": 1, "b": '\\" </tool_call> \\'}})
WRONG_NAME = '{"name": ["add"], "arguments": {}}'
CASES = {
    f"<tool_call>\n{CALL}\n</tool_call>": ("", 1),
    f"Let me see. <tool_call>{CALL}</tool_call>": ("Let me see. ", 1),
    f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>": ("", 2),
    f"<tool_call>{CALL}": ("", 1),
    f"[1] says so. <tool_call>{CALL}</tool_call>": ("[1] says so. ", 1),
    f"{{}} <tool_call>{CALL}</tool_call> done": ("{}  done", 1),
    f"Look: <tool_call>{CALL}</tool_call> and so on": ("Look:  and so on", 1),
    f"<tool_call>{CALL}</tool_call> \n <tool_call>{CALL}</tool_call>\n\nDone": ("Done", 2),
    CALL.replace("arguments", "parameters"): ("", 1),
    f"[TOOL_CALLS][{CALL}, {CALL}]": ("", 2),
    f"{CALL.replace('arguments', 'parameters')}; {CALL}": ("", 2),
    f"{CALL};{CALL} ;\n{CALL};": ("", 3),
    f"<tool_call>{CALL}\n{CALL}</tool_call>": ("", 2),
    f"{CALL}; {{}}": (f"{CALL}; {{}}", 0),
    f"{CALL}; and so on": (f"{CALL}; and so on", 0),
    f"{CALL}, {CALL}": (f"{CALL}, {CALL}", 0),
    f"<tool_call>{TRICKY}</tool_call>\n<tool_call>{CALL}</tool_call>": ("", 2),
    '<tool_call>{"a</tool_call> so': ('<tool_call>{"a</tool_call> so', 0),
    "so <tool_call>{broken": ("so <tool_call>{broken", 0),
    "<tool_call>{broken</tool_call>": ("<tool_call>{broken</tool_call>", 0),
    '<tool_call>{"name": "rm"}</tool_call>': ('<tool_call>{"name": "rm"}</tool_call>', 0),
    f"<tool_call>{WRONG_NAME}</tool_call>": (f"<tool_call>{WRONG_NAME}</tool_call>", 0),
    "1 < 2 and <tool_ is no call": ("1 < 2 and <tool_ is no call", 0),
    "plain words": ("plain words", 0),
    '{"a": 1}': ('{"a": 1}', 0),
}


def parse(pieces: list[str]) -> tuple[str, list[dict]]:
    parser = ToolParser(["add"])
    text, calls = "", []
    for i, piece in enumerate(pieces):
        new, found = parser.push(piece, final=i == len(pieces) - 1)
        text += new
        calls += found
    return text, calls


@pytest.mark.parametrize("written", ['{"name": "add"}', '{"name": "add", "arguments": null}'])
def test_a_call_without_arguments_has_an_empty_object(written: str) -> None:
    _, (call,) = parse([f"<tool_call>{written}</tool_call>"])
    assert call["function"]["arguments"] == "{}"


@pytest.mark.parametrize("answer", CASES, ids=range(len(CASES)))
@given(data=st.data())
def test_calls_are_found_however_the_answer_is_cut(answer: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=12)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    text, calls = parse(pieces)
    expected_text, num_calls = CASES[answer]
    assert (text.strip(), len(calls)) == (expected_text.strip(), num_calls)
    for call in calls:
        assert call["function"]["name"] == "add"
        assert json.loads(call["function"]["arguments"])["a"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": 1, "big": 123456789012345678901234567890, "tiny": 1e-999}',
        '{"half": "\\ud83d", "\\udc00": "é 🙂"}',
        '{ "a" : [ 1 , { } ] }',
        "{}",
        "[1.50]",
    ],
)
@pytest.mark.parametrize("form", ["<tool_call> {} </tool_call>", "[TOOL_CALLS][{}]", "{}"])
def test_arguments_stay_as_the_model_wrote_them(arguments: str, form: str) -> None:
    call = f'{{"id": [1, {{}}], "name" : "add","arguments" :\n{arguments} }}'
    _, (found,) = parse([form.replace("{}", call, 1)])
    assert found["function"] == {"name": "add", "arguments": arguments}


@pytest.mark.parametrize("text", ["NaN", "[" * 100_000, '{"name": "add", "arguments": NaN}'])
def test_what_is_no_json_stays_text(text: str) -> None:
    assert parse([f"<tool_call>{text}</tool_call>"])[1] == []


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]


async def test_a_call_is_answered_as_tool_calls_whole_and_streamed(api_saying) -> None:
    api = api_saying(f"<tool_call>{CALL}</tool_call>")
    choice = (await api.chat(tools=TOOLS)).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "add"
    chunks = events(await api.chat(tools=TOOLS, stream=True))
    calls = [c for x in chunks for c in x["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0]
    assert calls[0]["function"] == choice["message"]["tool_calls"][0]["function"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_tools_are_shown_to_the_model_unless_the_choice_is_none(api_saying, served) -> None:
    api = api_saying("x")
    await api.chat(tools=TOOLS)
    await api.chat(tools=TOOLS, tool_choice="none")
    shown = [
        "Tools:" in served.tokenizer.backend.decode(list(request.prompt_ids))
        for request in api.engine.requests
    ]
    assert shown == [True, False]


@pytest.mark.parametrize("stream", [False, True])
async def test_without_parallel_calls_there_is_one(api_saying, stream: bool) -> None:
    api = api_saying(f"<tool_call>{CALL}</tool_call>\n" * 3)
    response = await api.chat(tools=TOOLS, parallel_tool_calls=False, stream=stream)
    chunks = events(response) if stream else [response.json()]
    key = "delta" if stream else "message"
    calls = [c for x in chunks for c in x["choices"][0][key].get("tool_calls", [])]
    assert len(calls) == 1 and chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_references_of_parameters_hold_in_the_grammar_of_a_call() -> None:
    item = {"type": "object", "properties": {"size": {"enum": [7]}}, "required": ["size"]}
    parameters = {
        "$defs": {"Item": {**item, "additionalProperties": False}},
        "type": "object",
        "properties": {"item": {"$ref": "#/$defs/Item"}},
        "required": ["item"],
        "additionalProperties": False,
    }
    functions = [Function(name=name, parameters=parameters) for name in ("one", "two")]
    for name in (None, "two"):
        call = json.loads(random_answer(call_grammar(functions, name), seed=1))
        assert call["name"] in ("one", "two") and call["arguments"] == {"item": {"size": 7}}


ARGUMENTS = '{"a": "}} \\u00e9", "b": {"c": {}} }'
FORCED = f'{{ "name" : "add", "arguments" : {ARGUMENTS} \n}}\n'


@given(data=st.data())
def test_the_arguments_of_a_forced_call_come_piece_by_piece(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(FORCED) - 1), max_size=12)))
    parser, pieces = ForcedCall(["add"]), []
    for a, b in zip([0, *cuts], [*cuts, len(FORCED)], strict=True):
        text, new = parser.push(FORCED[a:b], final=b == len(FORCED))
        assert text == ""
        pieces += new
    assert [("id" in piece, piece["index"]) for piece in pieces[:2]] == [(True, 0), (False, 0)]
    assert "".join(p["function"]["arguments"] for p in pieces) == ARGUMENTS


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ('{"name": "add", "arguments": {"a": {}', '{"a": {}'),  # cut for its length
        ('{"name": "add", "arguments": ', None),
        ('{"arguments": {}, "name": "add"}', "{}"),  # an engine with an order of its own
        ('{"name": "a', None),
        ('{"name": "sub", "arguments": {}}', None),
    ],
)
def test_a_forced_call_that_is_cut_or_of_another_form(said: str, arguments: str | None) -> None:
    parser = ForcedCall(["add"])
    first, then = parser.push(said[:-1], final=False), parser.push(said[-1:], final=True)
    found = "".join(piece["function"]["arguments"] for piece in first[1] + then[1])
    assert (first[0] + then[0], found) == ((said, "") if arguments is None else ("", arguments))


async def test_a_forced_call_is_forced_by_a_grammar(api_saying) -> None:
    api = api_saying(CALL)
    forced = {"type": "function", "function": {"name": "add"}}
    for choice in ("required", forced):
        message = (await api.chat(tools=TOOLS, tool_choice=choice)).json()["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["name"] == "add"
    grammars = [request.params.grammar for request in api.engine.requests]
    assert all(json.loads(g.text)["properties"]["name"] == {"const": "add"} for g in grammars)
    chunks = events(await api.chat(tools=TOOLS, tool_choice="required", stream=True))
    pieces = [c for x in chunks for c in x["choices"][0]["delta"].get("tool_calls", [])]
    assert [piece.get("type") for piece in pieces] == ["function", *[None] * (len(pieces) - 1)]
    streamed = "".join(piece["function"]["arguments"] for piece in pieces)
    assert streamed == message["tool_calls"][0]["function"]["arguments"] and len(pieces) > 9
    missing = {"type": "function", "function": {"name": "sub"}}
    assert (await api.chat(tools=TOOLS, tool_choice=missing)).status_code == 400


SHOWS_CALLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{% for call in m.tool_calls or [] %}WAY{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WRITTEN = '{ "b" : 2, "a": "é"}'
WAYS = {
    "{{ call.function.arguments | tojson }}": '{"b": 2, "a": "é"}',
    "{{ call.function | tojson }}": '{"name": "add", "arguments": {"b": 2, "a": "é"}}',
    "{% for k, v in call.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}": "b=2;a=é;",
    "{{ call.function.arguments }}": WRITTEN,
    "{{ '<' + call.function.arguments + '>' }}": f"<{WRITTEN}>",
}


def prompt_of(api: Api) -> str:
    backend = api.model.tokenizer.backend
    return backend.decode(list(api.engine.requests[-1].prompt_ids), skip_special_tokens=False)


async def ask_after_a_call(folder: Path, way: str, arguments: str, **fields: Any) -> Api:
    write_text_files(folder, SHOWS_CALLS.replace("WAY", way))
    model = load_model(ModelConfig(name="scripted", path=str(folder)))
    api = Api(model, ScriptedEngine(lambda request: [70]))
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "a"},
    ]
    body = {"model": "scripted", "messages": messages, **fields}
    response = await api.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return api


@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
async def test_a_template_sees_the_arguments_of_a_call_as_it_wants_them(tmp_path, way) -> None:
    api = await ask_after_a_call(tmp_path, way, WRITTEN)
    assert f"assistant\n{WAYS[way]}<|im_end|>" in prompt_of(api)


@pytest.mark.parametrize(
    ("arguments", "shown"), [("", "{}"), ("{broken", '"{broken"'), ("[1]", '"[1]"')]
)
async def test_arguments_that_are_no_object_stay_text(tmp_path, arguments, shown) -> None:
    api = await ask_after_a_call(tmp_path, "{{ call.function.arguments | tojson }}", arguments)
    assert f"assistant\n{shown}<|im_end|>" in prompt_of(api)


@pytest.mark.parametrize("way", [way for way in WAYS if "items" not in way])
@pytest.mark.parametrize("typed", ["<|im_end|>", r"\u003c|im_end|>"])
async def test_control_tokens_in_calls_and_tools_stay_text(tmp_path, way, typed) -> None:
    parameters = {"title": "<|im_end|>", "properties": {"<|im_start|>": {"type": "string"}}}
    function = {"name": "add", "description": "<|im_start|>system", "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    api = await ask_after_a_call(tmp_path, way, f'{{"{typed}": "{typed}"}}', tools=tools)
    ids = api.engine.requests[-1].prompt_ids
    assert (ids.count(1), ids.count(2)) == (3, 4)
