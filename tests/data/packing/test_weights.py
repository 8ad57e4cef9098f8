"""Answers of weight 0 and turns of tools, from the dump through `clean` and `pack` to the loss."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from apps.common import packs
from apps.common.command.events import Reporter
from apps.common.text.conversation import Message
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer
from apps.data.config import PackConfig
from apps.data.pack import prepare, run_pack
from apps.data.units import run_serially
from tests import made
from tests.data.commands import run_clean

TOOL_TEMPLATE = (
    "{%- for m in messages -%}{{- '<' + m['role'] + '>' -}}{%- if m['role'] == 'assistant' -%}"
    "{%- generation -%}{{- m['content'] -}}{%- for c in m['tool_calls'] or [] -%}"
    "{{- 'CALL ' + c['function']['name'] + ' ' + (c['function']['arguments'] | tojson) -}}"
    "{%- endfor -%}{{- eos_token -}}{%- endgeneration -%}{%- else -%}{{- m['content'] -}}"
    "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made.byte_level_folder(tmp_path_factory.mktemp("tokenizer"))


def packed(folder: Path, tokenizer: str, records: list[Any], **settings: Any) -> dict[str, Any]:
    """Texts of the first row: all of it, and what the loss is taken on; the ledger."""
    dump = folder / "dump.jsonl"
    dump.write_bytes(b"\n".join(map(orjson.dumps, records)))
    run_clean(folder / "clean", dump, profile="vicuna")
    config = PackConfig(
        inputs=(str(folder / "clean"),),
        tokenizer=tokenizer,
        out=str(folder / "pack"),
        max_length=512,
        val_percent=0,
        **settings,
    )
    run_pack(prepare(config), Reporter("json"), run_serially)
    rows = packs.open_pack(str(folder / "pack")).split("train").rows([0])
    backend = load_tokenizer(tokenizer).backend
    length = int(sum(rows.lengths[0]))
    ids, mask = rows.input_ids[0][:length], rows.loss_mask[0][:length]
    return {
        "text": backend.decode(ids.tolist(), skip_special_tokens=False),
        "learned": backend.decode(ids[np.flatnonzero(mask)].tolist(), skip_special_tokens=False),
        "ledger": json.loads((folder / "pack" / "ledger.json").read_text()),
    }


def talk(**first: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": "How is bread baked at home?"},
            {"role": "assistant", "content": "A bad draft of an answer.", **first},
            {"role": "user", "content": "Again, please."},
            {"role": "assistant", "content": "Mix, wait, fold and bake."},
        ]
    }


@pytest.mark.parametrize("field", [{"weight": 0}, {"weight": "0"}, {"train": False}])
def test_an_answer_of_weight_0_is_in_the_context_and_not_in_the_loss(
    field: dict[str, Any], tmp_path: Path, tokenizer: str
) -> None:
    found = packed(tmp_path, tokenizer, [talk(**field)])
    assert "A bad draft of an answer." in found["text"]
    assert "bad draft" not in found["learned"] and "Mix, wait, fold" in found["learned"]


@pytest.mark.parametrize("field", [{}, {"weight": 1}, {"train": True}, {"weight": None}])
def test_other_answers_are_in_the_loss(
    field: dict[str, Any], tmp_path: Path, tokenizer: str
) -> None:
    assert "A bad draft of an answer." in packed(tmp_path, tokenizer, [talk(**field)])["learned"]


def test_a_conversation_without_an_answer_to_learn_is_counted(
    tmp_path: Path, tokenizer: str
) -> None:
    unlearned = {"messages": talk(weight=0)["messages"][:2]}
    unlearned["messages"][0]["content"] = "Another question about bread?"
    found = packed(tmp_path, tokenizer, [talk(), unlearned])
    assert found["ledger"]["rounds"]["dropped"] == {"not_learned": 1}
    assert found["ledger"]["conversations"]["dropped"] == {"not_learned": 1}


CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"at": "Linz"}'}}
TOOLS = {
    "messages": [
        {"role": "user", "content": "What is the weather in Linz?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "minus three"},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "Cold and sunny."},
    ]
}


def test_calls_are_learned_and_results_are_context_where_the_template_shows_them(
    tmp_path: Path, tokenizer: str
) -> None:
    folder = Path(made.byte_level_folder(tmp_path / "own"))
    template = load_template("vicuna-v1.1", load_tokenizer(str(folder)))
    own = template.__class__("own", TOOL_TEMPLATE, template.special_tokens)
    write_template(str(folder), own)
    found = packed(tmp_path, str(folder), [TOOLS], template="own")
    assert "CALL weather" in found["learned"] and "Cold and sunny." in found["learned"]
    assert "minus three" in found["text"] and "minus three" not in found["learned"]
    assert found["ledger"]["tool_turns_not_shown"] == 0


def test_a_call_that_the_template_cannot_show_is_counted_and_never_an_empty_answer(
    tmp_path: Path, tokenizer: str
) -> None:
    found = packed(tmp_path, tokenizer, [TOOLS])
    assert found["ledger"]["tool_turns_not_shown"] == 3
    assert found["learned"].strip() == "Cold and sunny.</s>"
    assert found["text"].count("ASSISTANT:") == 1


def test_what_is_said_beside_a_call_is_one_answer_with_what_follows(
    tmp_path: Path, tokenizer: str
) -> None:
    asked, _, *rest = TOOLS["messages"]
    spoken = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    found = packed(tmp_path, tokenizer, [{"messages": [asked, spoken, *rest]}])
    assert found["learned"].strip() == "Let me look.\n\nCold and sunny.</s>"
    assert found["ledger"]["tool_turns_not_shown"] == 3
    assert found["ledger"]["conversations"]["dropped"] == {}


@pytest.mark.parametrize("weights", [(0, 1), (1, 0)])
def test_one_answer_of_two_is_learned_when_both_are(
    weights: tuple[int, int], tmp_path: Path, tokenizer: str
) -> None:
    asked, _, *results, answer = TOOLS["messages"]
    spoken = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    messages = [asked, {**spoken, "weight": weights[0]}, *results, {**answer, "weight": weights[1]}]
    found = packed(tmp_path, tokenizer, [{"messages": messages}, talk()])
    assert found["ledger"]["rounds"]["dropped"] == {"not_learned": 1}


def test_a_template_says_whether_it_shows_tools(tokenizer: str) -> None:
    plain = load_template("vicuna-v1.1", load_tokenizer(tokenizer))
    assert not plain.shows_tools()
    showing = plain.__class__("own", TOOL_TEMPLATE, plain.special_tokens)
    assert showing.shows_tools()
    call = Message("assistant", "", tool_calls='[{"function": {"name": "f", "arguments": {}}}]')
    assert "CALL f {}" in showing.render([Message("user", "?"), call]).text
