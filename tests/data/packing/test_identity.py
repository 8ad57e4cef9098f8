"""Conversations about who the model is, from a file in any of the usual forms."""

import json
from pathlib import Path

import pytest

from apps.common.errors import InputError
from apps.common.text.conversation import Message
from apps.data.packing.identity import built_in, read_identity

ASKED, SAID = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I am Cria."}
ONE = json.dumps({"messages": [ASKED, SAID]})
SHARED = (
    ONE.replace("messages", "conversations")
    .replace('"role"', '"from"')
    .replace('"content"', '"value"')
    .replace('"user"', '"human"')
    .replace('"assistant"', '"chatgpt"')
)
READ = (Message("user", "Who?"), Message("assistant", "I am Cria."))


@pytest.mark.parametrize(
    ("text", "num_read"),
    [
        (ONE, 1),
        (f"{ONE}\n", 1),
        (f"{ONE}\n\n{SHARED}\r\n", 2),
        (f"[{ONE}, {SHARED}]", 2),
        (f"\ufeff[{ONE}]", 1),
        (f"\ufeff{ONE}\n{SHARED}", 2),
    ],
)
def test_a_file_of_any_usual_form_is_read(text: str, num_read: int, tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(text)
    assert read_identity(str(tmp_path / "identity"), "x", "y") == [READ] * num_read


def test_an_answer_of_weight_0_and_calls_stay_what_they_are(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "who", "arguments": {}}}
    messages = [
        ASKED,
        {"role": "assistant", "content": "I am Bob.", "weight": 0},
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Cria", "name": "who", "tool_call_id": "c"},
        SAID,
    ]
    (tmp_path / "identity").write_text(json.dumps({"messages": messages}))
    (read,) = read_identity(str(tmp_path / "identity"), "x", "y")
    assert [message.is_learned for message in read] == [True, False, True, True, True, True]
    assert json.loads(read[3].tool_calls or "") == [call]
    assert (read[4].name, read[4].tool_call_id) == ("who", "c")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no conversations"),
        ("[]", "holds no conversations"),
        ("3", "holds no conversations"),
        ("[3]", r"record 0 is no conversation \(not-an-object\)"),
        (f"[{ONE}, {{}}]", r"record 1 is no conversation \(no-messages\)"),
        (ONE.replace('"Who?"', "3"), r"record 0 is no conversation \(bad-message\)"),
        (ONE.replace('"user"', '"alien"'), r"record 0 is no conversation \(unknown-role\)"),
        (ONE.replace('"assistant"', '"user"'), "record 0 does not end with an assistant message"),
        (f"{ONE}\n{{", "line 2 is not JSON"),
    ],
)
def test_what_is_no_conversation_is_named(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "identity").write_text(text)
    with pytest.raises(InputError, match=why):
        read_identity(str(tmp_path / "identity"), "x", "y")


def test_the_built_in_ones_say_the_given_name_and_makers_only() -> None:
    made = built_in("Ada", "Acme")
    assert len(made) == 99
    assert len({messages[0].content for messages in made}) == 83
    for messages in made:
        assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all("Ada" in m.content and "Acme" in m.content for m in messages[1::2])
