"""Offsets read off the vocabulary are those that the tokenizer keeps itself."""

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers

from apps.common.text.conversation import _token_edge
from apps.common.text.token_edges import Speller, TokenEdges, _doubled
from apps.common.text.tokenizer import load_tokenizer
from tests import made

TEXT = st.text(st.sampled_from("abc de\n.né你🙂<0xA▁"), min_size=1, max_size=40)


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def backend(request, tmp_path_factory) -> tokenizers.Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make = made.byte_level_folder if request.param == "byte-level" else made.sentencepiece_folder
    return load_tokenizer(make(folder)).backend


def test_every_edge_is_the_tokenizers_own(backend):
    speller = Speller(backend)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(TEXT, min_size=1, max_size=3))
    def check(parts):
        text = "<s>" + "</s>".join(parts)
        asked = backend.encode(text, add_special_tokens=False)
        ((ids, edges),) = speller.encode_batch([text])
        assert ids.tolist() == asked.ids
        for char in range(1, len(text) + 1):
            assert _token_edge(edges, len(ids), char) == _token_edge(asked, len(ids), char)

    check()


def test_plain_text_needs_no_offsets_of_the_tokenizer(backend):
    texts = ["<s>USER: an apple a day ASSISTANT: yes</s>", "", "x" * 300, "né 你\n"]
    for _, edges in Speller(backend).encode_batch(texts):
        assert isinstance(edges, TokenEdges)


def test_a_tokenizer_that_rewrites_text_is_asked_for_its_offsets():
    backend = tokenizers.Tokenizer(models.WordLevel({"ab": 0, "?": 1}, unk_token="?"))
    backend.normalizer = normalizers.Lowercase()
    speller = Speller(backend)
    for _ in range(3):
        found = speller.encode_batch(["AB"] * 10)
        assert [ids.tolist() for ids, _ in found] == [[0]] * 10
        assert not any(isinstance(edges, TokenEdges) for _, edges in found)


def test_the_worked_example_holds():
    """As the module's docstring draws it: `née` in two tokens that cut the é."""
    edges = TokenEdges(_doubled(np.array([0, 2]), "née".encode(), "née"), 3)
    assert [edges.at(char) for char in range(4)] == [(0, False), (1, True), (2, True), (2, False)]
