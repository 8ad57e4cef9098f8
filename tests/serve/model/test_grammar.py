import json
import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from apps.common.errors import InputError
from apps.serve.engine.protocol import Grammar, RequestError
from apps.serve.model.grammar import GrammarCompiler

EOS = 0


def letters() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"</s>": EOS} | {c: i + 1 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = letters()
COMPILER = GrammarCompiler(TOKENIZER, 260, (EOS,))
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green"]},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colour", "size"],
    "additionalProperties": False,
}


def random_answer(grammar: Grammar, seed: int) -> str:
    """Any allowed token each time, the end as soon as it is allowed."""
    mask, rng, ids = COMPILER(grammar), random.Random(seed), []
    while len(ids) < 400:
        bits = int.from_bytes(mask.bitmask(), "little")
        allowed = [i for i in range(260) if bits >> i & 1]
        assert allowed
        if EOS in allowed:
            break
        ids.append(rng.choice(allowed))
        mask.accept(ids[-1])
    return TOKENIZER.decode(ids)


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
