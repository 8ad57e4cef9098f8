"""One search over all answers of a conversation decides as a look at each of them would."""

import dataclasses

from apps.data.rules.profiles import none
from apps.data.rules.rules import RULES
from apps.data.rules.verdict import Drop
from tests.data.rules.test_rules import record

CONVERSATION = ("Who are you?", "A cook.", "Really? 999999999", "I am X, and I was made by Y.")


def _verdict(name: str, *texts: str, **settings: object) -> object:
    return RULES[name](record(*texts), dataclasses.replace(none(), **settings))  # type: ignore[arg-type]


def test_a_users_expression_may_begin_where_any_answer_begins() -> None:
    for kind in ("identity", "cutoff"):
        settings = {kind: "drop", "phrases": (f"{kind}=^I am X",)}
        assert _verdict(kind, *CONVERSATION, **settings) == Drop("I am X")


def test_a_phrase_of_a_later_answer_is_found_and_that_of_a_question_is_not() -> None:
    assert _verdict("identity", *CONVERSATION, identity="drop") == Drop("I was made by")
    assert _verdict("identity", CONVERSATION[3], "Fine.", identity="drop") is None


def test_digits_of_a_later_question_are_found() -> None:
    assert isinstance(_verdict("digit_run", *CONVERSATION, digit_run="trim"), Drop)


def test_a_phrase_that_only_two_answers_together_have_is_none() -> None:
    texts = ("a", "It is not appropriate", "b", "to answer, and that is that.")
    assert _verdict("moralizing", *texts, moralizing="drop") is None


def test_personal_data_of_the_last_turn_is_masked_alone() -> None:
    turns = _verdict("personal_data", "Hi", "Write to a@example.org.", personal_data="mask")
    assert isinstance(turns, list)
    assert [turn.text for turn in turns] == ["Hi", "Write to <EMAIL>."]
