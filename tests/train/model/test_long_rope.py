"""LongRoPE's factors go by the conversation, whatever else is in the micro-batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from apps.train.batches.micro_batch import ArrayRows, micro_batch
from apps.train.batches.order import NO_ROW
from apps.train.config import RopeConfig
from apps.train.model import load
from apps.train.model.long_rope import conversation_tokens
from tests.train.families import FAMILIES, LONG_ROPE, Family, save_family

CPU = torch.device("cpu")
ORIGINAL_TOKENS = LONG_ROPE["original_max_position_embeddings"]
LENGTHS = [
    [ORIGINAL_TOKENS, ORIGINAL_TOKENS],
    [ORIGINAL_TOKENS // 4],  # and a tail of more than the original tokens
    [ORIGINAL_TOKENS // 2, ORIGINAL_TOKENS + 20],
    [2 * ORIGINAL_TOKENS],
]
PARTIAL = {**LONG_ROPE, "partial_rotary_factor": 0.75}
PARTIAL |= {name: PARTIAL[name][:3] for name in ("short_factor", "long_factor")}
KINDS = {
    "phi3": FAMILIES["phi3"],
    "phi4-mini": replace(
        FAMILIES["phi3"],
        changes={
            **FAMILIES["phi3"].changes, "rope_parameters": PARTIAL, "partial_rotary_factor": 0.75,
        },
    ),
    "llama": Family(model_type="llama", changes={"rope_parameters": LONG_ROPE}),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_each_conversation_is_turned_as_transformers_turns_it_alone(
    tmp_path: Path, name: str
) -> None:
    base = save_family(tmp_path, KINDS[name])
    row_tokens = 2 * ORIGINAL_TOKENS
    ours = load.build_on_meta(load.read_config(base, RopeConfig(), row_tokens))
    load.materialize(ours, CPU)
    load.load_weights(ours, base)
    theirs = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    )
    ids = np.random.default_rng(0).integers(3, 200, (len(LENGTHS), row_tokens))
    rows = ArrayRows(ids, np.ones_like(ids, dtype=bool), LENGTHS)
    for chosen in ([0], [1, NO_ROW], [2], [0, 1, 2, 3]):
        batch = micro_batch(rows, np.array(chosen), CPU)
        with torch.no_grad():
            packed = ours(
                input_ids=batch.ids_BT, position_ids=batch.position_ids_BT, packing=batch.packing
            ).logits
        for slot, index in enumerate(chosen):
            start = 0
            for length in LENGTHS[index] if index != NO_ROW else []:
                part = slice(start, start + length)
                with torch.no_grad():
                    alone = theirs(input_ids=batch.ids_BT[slot : slot + 1, part]).logits[0]
                torch.testing.assert_close(packed[slot, part], alone, atol=2e-5, rtol=2e-5)
                start += length


def test_a_conversation_s_tokens_are_counted_within_its_row() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    expected = [[3, 3, 3, 2, 2], [1, 4, 4, 4, 4]]
    assert conversation_tokens(positions).tolist() == expected
