"""FastChat's prompts are checked before anything is asked."""

import json
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.eval.protocols.prompt_file import load_prompts
from apps.eval.protocols.wording import file_messages

TEMPLATE = "{question}\n{answer_1}\n{answer_2}\n{prompt} as {{json}}"
PROMPT = {"system_prompt": "s", "prompt_template": TEMPLATE, "defaults": {"prompt": "Rate"}}


def written(tmp_path: Path, **changed: object) -> str:
    lines = [{"category": c, **PROMPT, **changed} for c in ("general", "coding", "math")]
    path = tmp_path / "prompt.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def test_a_whole_file_is_read_and_filled(tmp_path: Path) -> None:
    prompts = load_prompts(written(tmp_path))
    assert {*prompts} == {"general", "coding", "math"} and load_prompts(None) == {}
    _, asked = file_messages(prompts["math"], "Q", ["{one}", "two"])
    assert asked["content"] == "Q\n{one}\ntwo\nRate as {json}"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"category": None}, "line 1 has no text category"),
        ({"category": "general"}, "no prompt of category coding, math"),
        ({"defaults": "Rate"}, "no text defaults.prompt"),
        ({"prompt_template": None, "system_prompt": 1}, "system_prompt and no prompt_template"),
        ({"prompt_template": "{question} {ans}"}, "has the placeholder {ans}; expected {question}"),
        ({"prompt_template": "{question} {answer_1[0]} {answer_2}"}, "has the placeholder"),
        ({"prompt_template": "{} {answer_1} {answer_2}"}, "has the placeholder {}"),
        ({"prompt_template": "{question} {answer_1"}, "cannot be filled"),
        ({"prompt_template": "{answer_1:d} {answer_2}"}, "cannot be filled"),
        ({"prompt_template": "{question} {answer_1}"}, "does not show {answer_2}"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(
    tmp_path: Path, changed: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError) as refused:
        load_prompts(written(tmp_path, **changed))
    assert sentence in refused.value.sentence


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", "\ufffd"])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "prompt.jsonl").write_text(text)
    with pytest.raises(InputError, match="line 1 is not"):
        load_prompts(str(tmp_path / "prompt.jsonl"))
