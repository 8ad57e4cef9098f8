"""The FSDP2 strategy against plain transformers: gradients, and updates however a step is cut.

(The attention alone is in test_attention.py.) The reference is an untouched LlamaForCausalLM with
its own SDPA attention, one conversation at a time, no padding; fp32.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from apps.common.text.conversation import Message
from apps.common.text.templates import NAMED, load_template
from apps.common.text.tokenizer import break_control_tokens, load_tokenizer
from apps.train.batches.micro_batch import ArrayRows, micro_batch
from apps.train.config import OptimConfig, RunConfig
from apps.train.loop import worker
from apps.train.model.loss import IGNORE
from apps.train.parallel.strategy import FsdpStrategy
from tests import made

ROW_TOKENS = 24
VOCAB = 61
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """A tiny LLaMA with grouped-query attention."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def settings(base: str, **changes) -> RunConfig:
    optim = OptimConfig(lr=1e-2, warmup_fraction=0.0, schedule="constant")
    chosen = {"precision": "fp32", "device": "cpu", "optim": optim, **changes}
    return RunConfig(base=base, data="", out="", **chosen)


@pytest.fixture
def strategy(base) -> Iterator[FsdpStrategy]:
    with worker.process_group():
        yield worker.make_strategy(settings(base), CPU, ROW_TOKENS)


def some_rows(seed: int = 0, num_rows: int = 3) -> ArrayRows:
    """Rows of one to four conversations; random ids and mask, most with an empty tail."""
    rng = np.random.default_rng(seed)
    lengths = []
    for _ in range(num_rows):
        sizes = rng.integers(2, 10, rng.integers(1, 5)).tolist()
        while sum(sizes) > ROW_TOKENS:
            sizes.pop()
        lengths.append(sizes)
    ids = rng.integers(3, VOCAB, (num_rows, ROW_TOKENS))
    mask = rng.random((num_rows, ROW_TOKENS)) < 0.6
    for row, sizes in enumerate(lengths):
        mask[row, sum(sizes) :] = False
    return ArrayRows(ids=ids, loss_mask=mask, lengths=lengths)


def conversations(rows: ArrayRows) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, labels) of every conversation alone, in transformers' convention."""
    for index in range(len(rows)):
        ids, mask, lengths = rows.row(index)
        start = 0
        for length in lengths:
            part = torch.from_numpy(ids[start : start + length])
            supervised = torch.from_numpy(mask[start : start + length])
            yield part[None], torch.where(supervised, part, IGNORE)[None]
            start += length


def plain_model(base: str) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa")


def supervised_tokens(labels: torch.Tensor) -> int:
    return int((labels[:, 1:] != IGNORE).sum())


def gradients(strategy: FsdpStrategy) -> dict[str, torch.Tensor]:
    named = strategy.causal_lm.named_parameters()
    return {name: parameter.grad.full_tensor().clone() for name, parameter in named}


def test_packed_loss_and_gradients_equal_the_conversations_apart(base, strategy):
    rows = some_rows()
    apart = plain_model(base)
    total = sum(supervised_tokens(labels) for _, labels in conversations(rows))
    theirs = torch.zeros(())
    for ids, labels in conversations(rows):
        if supervised_tokens(labels):
            share = supervised_tokens(labels) / total
            loss = apart(input_ids=ids, labels=labels).loss * share
            loss.backward()
            theirs += loss.detach()
    assert total == rows.supervised.sum()
    ours = strategy.loss(micro_batch(rows, np.arange(len(rows)), CPU), 1 / total)
    strategy.backward(ours, is_last=True)
    torch.testing.assert_close(ours.detach(), theirs)
    expected = {name: parameter.grad for name, parameter in apart.named_parameters()}
    found = gradients(strategy)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=lambda m, n=name: f"{n}: {m}")


def test_a_row_without_loss_adds_nothing(strategy):
    rows = some_rows()
    whole = strategy.evaluate(micro_batch(rows, np.array([0, 1]), CPU), 1.0)
    filled = strategy.evaluate(micro_batch(rows, np.array([0, 1, -1]), CPU), 1.0)
    torch.testing.assert_close(whole, filled)


@pytest.mark.parametrize(
    "changes",
    [
        {"wrap": "root"},
        {"activation_checkpointing": "elementwise"},
        {"activation_checkpointing": "selective"},
        {"reshard": "step"},
    ],
    ids=str,
)
@pytest.mark.parametrize("micro_rows", [1, 8])
def test_weights_after_a_step_do_not_depend_on_how_it_is_cut(base, changes, micro_rows):
    rows = some_rows(seed=3, num_rows=8)
    with worker.process_group():
        reference = step(worker.make_strategy(settings(base), CPU, ROW_TOKENS), rows, 2)
        changed = worker.make_strategy(settings(base, **changes), CPU, ROW_TOKENS)
        found = step(changed, rows, micro_rows)
    for name, weight in found.items():
        torch.testing.assert_close(weight, reference[name], rtol=1e-5, atol=1e-6)


def step(strategy: FsdpStrategy, rows: ArrayRows, micro_rows: int) -> dict[str, torch.Tensor]:
    """Weights after one update over all rows, `micro_rows` at a time."""
    scale = 1 / int(rows.supervised.sum())
    for start in range(0, len(rows), micro_rows):
        batch = micro_batch(rows, np.arange(start, start + micro_rows), CPU)
        is_last = start + micro_rows == len(rows)
        strategy.backward(strategy.loss(batch, scale), is_last=is_last)
    strategy.update(1e-2)
    named = strategy.causal_lm.named_parameters()
    return {name: parameter.detach().full_tensor() for name, parameter in named}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_loss_falls_on_answers_and_their_end_token_only(name, tmp_path):
    """From chat template to labels, with role words and stop strings inside the messages."""
    family = name if name in made.CHAT_TOKENS else "llama"
    folder = made.byte_level_folder(tmp_path, family)
    tokenizer = load_tokenizer(folder)
    template = load_template(name, tokenizer)
    answers = ["Four.", "USER: is a role word, [/INST] and </s> are not ends."]
    questions = ["2+2? ASSISTANT: five</s>", "And <|eot_id|> <|im_end|>?"]
    messages = []
    for question, answer in zip(questions, answers, strict=True):
        harmless, _ = break_control_tokens(answer, tokenizer.control_tokens)
        messages += [Message("user", question), Message("assistant", harmless)]
    encoded = template.encode(tokenizer.backend, messages)
    length = len(encoded.ids)
    rows = ArrayRows(
        ids=np.array([encoded.ids]), loss_mask=np.array([encoded.mask]), lengths=[[length]]
    )
    labels = micro_batch(rows, np.array([0]), CPU).labels_BT[0]
    learned = [token for token in labels.tolist() if token != IGNORE]
    stops = set(template.stop_token_ids(tokenizer.backend))
    ends = [position for position, token in enumerate(learned) if token in stops]
    assert len(ends) == len(answers) and learned[-1] in stops
    spoken = [learned[: ends[0]], learned[ends[0] + 1 : ends[1]]]
    texts = [tokenizer.backend.decode(part).strip() for part in spoken]
    assert texts[0] == answers[0]
    assert texts[1].startswith("USER: is a role word") and texts[1].endswith("are not ends.")


@torch.no_grad()
def half_said_by(model: LlamaForCausalLM) -> ArrayRows:
    """Rows in which every second token is what the model would say there."""
    rows = some_rows(seed=5)
    for ids, lengths in zip(rows.ids, rows.lengths, strict=True):
        start = 0
        for length in lengths:
            part = torch.from_numpy(ids[start : start + length])
            for place in range(1, length, 2):
                part[place] = model(input_ids=part[None, :place]).logits[0, -1].argmax()
            start += length
    return rows


def kept_or_learned(
    model: LlamaForCausalLM, base: LlamaForCausalLM, rows: ArrayRows, weight: float
) -> torch.Tensor:
    """By transformers: weight x KL(base || model) where the base says the token and two of three
    of its answer, else the token's loss."""
    total = torch.zeros(())
    for ids, labels in conversations(rows):
        now = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        before = base(input_ids=ids).logits[0, :-1].log_softmax(-1).detach()
        wanted = labels[0, 1:]
        answer: list[int] = []
        for place, token in enumerate([*wanted.tolist(), IGNORE]):
            if token != IGNORE:
                answer.append(place)
                continue
            said = [bool(before[at].argmax() == wanted[at]) for at in answer]
            for at, is_said in zip(answer, said, strict=True):
                if is_said and sum(said) / len(said) > 0.65:
                    total += weight * (before[at].exp() * (before[at] - now[at])).sum()
                else:
                    total -= now[at, wanted[at]]
            answer = []
    return total


@pytest.mark.parametrize(
    "changes",
    [{}, {"wrap": "root"}, {"activation_checkpointing": "full"}, {"top_layers": 2}],
    ids=str,
)
def test_a_model_is_held_to_what_its_base_says_itself(base, changes):
    """The trained layer moves first: the base beside it stays where it was."""
    before, now = plain_model(base), plain_model(base)
    rows = half_said_by(before)
    with torch.no_grad():
        for parameter in now.model.layers[1].parameters():
            parameter.mul_(1.3)
    theirs = kept_or_learned(now, before, rows, 2.0) / rows.supervised.sum()
    theirs.backward()
    batch = micro_batch(rows, np.arange(len(rows)), CPU)
    with worker.process_group():
        chosen = settings(base, **{"top_layers": 1, "keep_base": 2.0, **changes})
        held = worker.make_strategy(chosen, CPU, ROW_TOKENS)
        with torch.no_grad():
            for parameter in held.causal_lm.model.layers[1].parameters():
                parameter.mul_(1.3)
        measured = held.evaluate(batch, 1.0)
        ours = held.loss(batch, 1 / rows.supervised.sum())
        held.backward(ours, is_last=True)
    torch.testing.assert_close(ours.detach(), theirs.detach())
    expected = dict(now.named_parameters())
    trained = {n: p for n, p in held.causal_lm.named_parameters() if p.requires_grad}
    assert len(trained) == 9 * chosen.top_layers
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.grad.full_tensor(), expected[name].grad)
    torch.testing.assert_close(measured, loss_of_every_token(now, rows))


@pytest.mark.parametrize("changes", [{"wrap": "root"}, {"wrap": "layer"}], ids=str)
def test_frozen_weights_are_kept_as_they_are_computed_and_change_no_bit(base, changes):
    """Two bytes each instead of four; with them frozen in fp32 the products would be the same."""
    rows, found = some_rows(seed=5), []
    batch = micro_batch(rows, np.arange(len(rows)), CPU)
    for top_layers in (0, 1):
        with worker.process_group():
            chosen = settings(base, precision="bf16", top_layers=top_layers, **changes)
            strategy = worker.make_strategy(chosen, CPU, ROW_TOKENS)
            loss = strategy.loss(batch, 1 / int(rows.supervised.sum()))
            strategy.backward(loss, is_last=True)
            named = dict(strategy.causal_lm.named_parameters())
        found.append((loss.detach(), named))
    (whole_loss, whole), (loss, named) = found
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    assert loss == whole_loss and len(trained) == 9
    for name in trained:
        assert named[name].dtype == torch.float32
        assert torch.equal(named[name].grad.full_tensor(), whole[name].grad.full_tensor())
    assert {named[name].dtype for name in named.keys() - trained} == {torch.bfloat16}


@torch.no_grad()
def loss_of_every_token(model: LlamaForCausalLM, rows: ArrayRows) -> torch.Tensor:
    """Its cross entropy, summed: what a validation counts, kept or not."""
    return sum(
        model(input_ids=ids, labels=labels).loss * supervised_tokens(labels)
        for ids, labels in conversations(rows)
        if supervised_tokens(labels)
    )
