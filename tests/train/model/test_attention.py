import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from apps.common.packs import open_pack
from apps.train.batches.micro_batch import ArrayRows, PackRows, micro_batch
from apps.train.model import attention
from apps.train.model.loss import IGNORE
from apps.train.parallel import strategy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(small_base):
    return AutoModelForCausalLM.from_pretrained(
        small_base, dtype=torch.float32, attn_implementation=attention.NAME
    )


@pytest.fixture(scope="module")
def plain(small_base):
    return AutoModelForCausalLM.from_pretrained(
        small_base, dtype=torch.float32, attn_implementation="eager"
    )


@pytest.fixture(scope="module")
def rows(small_pack) -> PackRows:
    pack = open_pack(str(small_pack))
    return PackRows(pack.split("train"), pack.info.pad_id)


def segments(rows: PackRows, indices: list[int]):
    """(row in the batch, start, ids, mask) of every conversation."""
    for slot, index in enumerate(indices):
        ids, mask, lengths = rows.row(index)
        start = 0
        for length in lengths:
            stop = start + length
            yield slot, start, torch.tensor(ids[start:stop]).long(), torch.tensor(mask[start:stop])
            start = stop


def plain_loss(model, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What transformers computes for one conversation: the mean over its supervised tokens."""
    return model(input_ids=ids[None], labels=torch.where(mask, ids, IGNORE)[None]).loss


def test_packed_logits_equal_those_of_each_conversation_alone(model, plain, rows) -> None:
    chosen = [0, 3, 5]
    batch = micro_batch(rows, np.array(chosen), CPU)
    with torch.no_grad():
        packed = model(
            input_ids=batch.ids_BT,
            position_ids=batch.position_ids_BT,
            packing=batch.packing,
        ).logits
        for slot, start, ids, _ in segments(rows, chosen):
            alone = plain(input_ids=ids[None]).logits[0]
            torch.testing.assert_close(
                packed[slot, start : start + len(ids)], alone, atol=2e-5, rtol=2e-5
            )


def test_packed_gradients_equal_the_sum_over_conversations(model, plain, rows) -> None:
    chosen = [1, 2]
    supervised = int(rows.supervised[chosen].sum())
    packed = strategy.PackedModel(model)
    packed.zero_grad()
    loss = packed(micro_batch(rows, np.array(chosen), CPU), 1 / supervised)
    loss.backward()
    plain.zero_grad()
    total = 0.0
    for _, _, ids, mask in segments(rows, chosen):
        alone = plain_loss(plain, ids, mask) * int(mask[1:].sum()) / supervised
        alone.backward()
        total += alone.item()
    assert loss.item() == pytest.approx(total, rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-5, rtol=2e-4, msg=name)


def test_loss_of_one_conversation_equals_plain_transformers(model, plain, rows) -> None:
    _, _, ids, mask = next(iter(segments(rows, [4])))
    alone = ArrayRows(ids.numpy()[None], mask.numpy()[None], [[len(ids)]])
    batch = micro_batch(alone, np.array([0]), CPU)
    with torch.no_grad():
        ours = strategy.PackedModel(model)(batch, 1 / int(alone.supervised[0]))
        assert ours.item() == pytest.approx(plain_loss(plain, ids, mask).item(), rel=1e-5)


def test_changing_one_conversation_leaves_the_others_bit_identical(model, rows) -> None:
    ids, mask, lengths = (copy.deepcopy(x) for x in rows.row(0))
    assert len(lengths) >= 2
    other = ids.copy()
    other[: lengths[0]] = (other[: lengths[0]] + 7) % 400
    logits = []
    for tokens in (ids, other):
        batch = micro_batch(ArrayRows(tokens[None], mask[None], [lengths]), np.array([0]), CPU)
        with torch.no_grad():
            logits.append(
                model(
                    input_ids=batch.ids_BT,
                    position_ids=batch.position_ids_BT,
                    packing=batch.packing,
                ).logits[0]
            )
    assert not torch.equal(logits[0][: lengths[0]], logits[1][: lengths[0]])
    assert torch.equal(logits[0][lengths[0] :], logits[1][lengths[0] :])


def test_a_first_token_never_carries_loss(rows) -> None:
    ids, _, lengths = rows.row(0)
    everywhere = ArrayRows(ids[None], np.ones((1, len(ids)), bool), [lengths])
    batch = micro_batch(everywhere, np.array([0]), CPU)
    starts = np.cumsum([0, *lengths[:-1]])[1:]
    assert (batch.labels_BT[0, starts - 1] == IGNORE).all()
    assert int((batch.labels_BT != IGNORE).sum()) == everywhere.supervised[0]


@pytest.mark.parametrize("window", [1, 3, 40])
def test_a_sliding_window_is_kept_within_each_conversation(rows, window) -> None:
    batch = micro_batch(rows, np.array([0, 3]), CPU)
    T = batch.ids_BT.shape[1]
    query, key, value = torch.randn(3, 2, 2, T, 8).unbind()
    found, _ = attention.packed_attention(
        torch.nn.Identity(),
        query,
        key,
        value,
        None,
        scaling=0.3,
        sliding_window=window,
        packing=batch.packing,
    )
    for slot, start, ids, _ in segments(rows, [0, 3]):
        place = slice(start, start + len(ids))
        q, k, v = (x[slot, :, place] for x in (query, key, value))
        at = torch.arange(len(ids))
        seen = (at[:, None] >= at) & (at[:, None] - at < window)
        scores = (q @ k.mT * 0.3).masked_fill(~seen, -torch.inf)
        expected = (scores.softmax(-1) @ v).transpose(0, 1)
        torch.testing.assert_close(found[slot, place], expected, rtol=1e-4, atol=1e-5)
