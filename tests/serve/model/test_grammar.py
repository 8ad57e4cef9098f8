import json

import pytest

from apps.common.errors import InputError
from apps.serve.engine.protocol import Grammar, RequestError
from apps.serve.model.grammar import GrammarCompiler
from tests.serve.model.letters import COMPILER, TOKENIZER, random_answer

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green"]},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colour", "size"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_mask_allows_matches_the_schema(seed: int) -> None:
    value = json.loads(random_answer(Grammar(kind="json_schema", text=json.dumps(SCHEMA)), seed))
    assert value["colour"] in ("red", "green") and 0 <= value["size"] <= 99


def test_a_json_object_is_an_object() -> None:
    mask = COMPILER(Grammar(kind="json_object"))
    bits = int.from_bytes(mask.bitmask(), "little")
    allowed = {TOKENIZER.decode([i]) for i in range(260) if bits >> i & 1}
    assert "{" in allowed and "[" not in allowed and '"' not in allowed


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[" * 30_000,
        '{"type": "bogus"}',
        '{"$ref": "http://example.com/x"}',
        '{"$ref": "file:///etc/passwd"}',
        '{"not": {}}',
        '{"$ref": "#"}',
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema: str) -> None:
    with pytest.raises(RequestError, match="cannot be followed") as caught:
        COMPILER(Grammar(kind="json_schema", text=schema))
    assert len(str(caught.value)) < 500


def test_a_token_outside_the_grammar_is_refused() -> None:
    with pytest.raises(RequestError):
        COMPILER(Grammar(kind="json_object")).accept(TOKENIZER.token_to_id("x"))


def test_answers_do_not_share_their_place_in_the_grammar() -> None:
    one, two = (COMPILER(Grammar(kind="json_object")) for _ in range(2))
    before = two.bitmask()
    one.accept(TOKENIZER.token_to_id("{"))
    assert two.bitmask() == before != one.bitmask()


def test_a_model_without_an_end_token_is_refused() -> None:
    with pytest.raises(InputError, match="eos_token_id"):
        GrammarCompiler(TOKENIZER, 260, ())


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(?=a)b", "look-ahead and"), ("[", "unclosed character class; simp")]
)
def test_a_pattern_that_is_refused_is_told_why(pattern: str, reason: str) -> None:
    schema = json.dumps({"type": "string", "pattern": pattern})
    with pytest.raises(RequestError, match=f"regex parse error: .*{reason}"):
        COMPILER(Grammar(kind="json_schema", text=schema))
