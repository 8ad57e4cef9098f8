import math
import random
from collections import Counter

import pytest
import torch

from apps.serve.engine.protocol import Request, RequestError, SamplingParams
from apps.serve.engine.torch.sampler import SamplerState, sample, uniform

VOCAB = 200
EOS = (1,)


def logits(seed: int = 0, size: int = VOCAB) -> torch.Tensor:
    return 3 * torch.randn(1, size, generator=torch.Generator().manual_seed(seed))


def state(generated: tuple[int, ...] = (), mask=None, prompt=(5, 6), **params) -> SamplerState:
    request = Request(
        id="r", prompt_ids=prompt, params=SamplingParams(**params), generated_ids=generated
    )
    return SamplerState.of(request, EOS, mask)


def draw(row: torch.Tensor, **params) -> int:
    return sample(row.clone(), [state(**params)])[0][0]


def kept(row: torch.Tensor, num_draws: int = 400, **params) -> set[int]:
    return {draw(row, seed=seed, **params) for seed in range(num_draws)}


def test_random_numbers_depend_on_seed_and_position_alone_and_are_even() -> None:
    numbers = [uniform(seed, position) for seed in range(50) for position in range(50)]
    assert len(set(numbers)) == 2500 and all(0 <= u < 1 for u in numbers)
    assert abs(sum(numbers) / 2500 - 0.5) < 0.02
    assert uniform(-(2**63), 3) == uniform(-(2**63), 3)


def test_sampled_tokens_follow_the_distribution() -> None:
    row = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    counts = Counter(draw(row, seed=seed) for seed in range(4000))
    for token, p in enumerate(row[0].softmax(-1).tolist()):
        assert abs(counts[token] / 4000 - p) < 0.03


def test_a_row_is_sampled_alike_alone_and_among_others() -> None:
    rows = torch.cat([logits(i) for i in range(8)])
    settings = [
        {"temperature": t, "top_p": p, "seed": i}
        for i, (t, p) in enumerate([(0, 1.0), (1.0, 0.9), (0.5, 1.0), (2.0, 0.3)] * 2)
    ]
    together = sample(rows.clone(), [state(**s) for s in settings])[0]
    assert together == [draw(rows[i : i + 1], **s) for i, s in enumerate(settings)]


def test_low_temperature_is_greedy_and_high_temperature_spreads() -> None:
    row = logits()
    assert kept(row, 50, temperature=0) == {int(row.argmax())}
    assert kept(row, 50, temperature=1e-9) == {int(row.argmax())}
    assert len(kept(row, 100, temperature=2.0)) > len(kept(row, 100, temperature=0.5))


def test_top_k_keeps_the_k_likeliest() -> None:
    row = logits()
    assert kept(row, top_k=3, temperature=2.0) == set(row[0].topk(3).indices.tolist())
    assert kept(row, 50, top_k=1, temperature=2.0) == {int(row.argmax())}


@pytest.mark.parametrize("size", [VOCAB, 3000])
def test_top_p_keeps_the_smallest_set_that_reaches_p(size: int) -> None:
    row = logits(size=size) / 3
    order = row[0].sort(descending=True)
    mass = order.values.softmax(-1).cumsum(-1)
    allowed = set(order.indices[: int((mass < 0.8).sum()) + 1].tolist())
    found = kept(row, top_p=0.8)
    assert found <= allowed and len(found) > 20
    assert kept(row, 30, top_p=0.0) == {int(row.argmax())}


def test_min_p_drops_what_is_unlikely_beside_the_likeliest() -> None:
    row = logits()
    p = row[0].softmax(-1)
    allowed = set((p >= 0.2 * p.max()).nonzero().view(-1).tolist())
    assert kept(row, min_p=0.2) == allowed


def test_logit_bias_forces_and_bans() -> None:
    row = logits()
    best = int(row.argmax())
    assert draw(row, temperature=0, logit_bias={77: 100.0}) == 77
    assert draw(row, temperature=0, logit_bias={best: -100.0}) != best


def test_penalties_lower_what_was_said() -> None:
    row = torch.zeros(1, 10)
    row[0, 4], row[0, 5], row[0, 6] = 2.0, 1.5, 1.0
    greedy = {"temperature": 0}
    assert draw(row, **greedy) == 4
    assert draw(row, **greedy, generated=(4,), presence_penalty=1.0) == 5
    assert draw(row, **greedy, generated=(4,), frequency_penalty=0.3) == 4
    assert draw(row, **greedy, generated=(4, 4), frequency_penalty=0.3) == 5
    assert draw(row, **greedy, generated=(4,), prompt=(9,), repetition_penalty=2.0) == 5
    assert draw(row, **greedy, prompt=(4,), repetition_penalty=2.0) == 5
    assert draw(row, **greedy, prompt=(4,), presence_penalty=2.0) == 4


def test_no_stop_token_before_min_tokens() -> None:
    row = logits()
    row[0, 1] = 100.0
    assert draw(row, temperature=0) == 1
    assert draw(row, temperature=0, min_tokens=2, generated=(9,)) != 1
    assert draw(row, temperature=0, min_tokens=2, generated=(9, 9)) == 1


def test_log_probabilities_are_the_model_s_own() -> None:
    row = logits()
    expected = row[0].log_softmax(-1)
    tokens, (found,) = sample(
        row.clone(), [state(temperature=0, logprobs=3, logit_bias={77: 100.0})]
    )
    assert tokens == [77] and math.isclose(found.logprob, float(expected[77]), rel_tol=1e-6)
    assert [i for i, _ in found.top] == expected.topk(3).indices.tolist()
    assert sample(row.clone(), [state(temperature=0)])[1] == [None]


class OnlyEven:
    def __init__(self) -> None:
        self.accepted: list[int] = []

    def bitmask(self) -> bytes:
        return b"\x55" * (VOCAB // 8)

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


def test_a_mask_is_obeyed_by_greedy_and_sampled_tokens() -> None:
    row = logits()
    for temperature in (0, 2.0):
        for seed in range(30):
            assert draw(row, mask=OnlyEven(), temperature=temperature, seed=seed) % 2 == 0


def test_a_grammar_that_fails_ends_its_own_row_only() -> None:
    class Broken(OnlyEven):
        def bitmask(self) -> bytes:
            raise RequestError("lost")

    states = [state(mask=Broken()), state(temperature=0)]
    row = logits()
    tokens, _ = sample(torch.cat([row, row]), states)
    assert tokens == [-1, int(row.argmax())]
    assert states[0].error == "lost" and not states[1].error


def test_rows_without_a_finite_maximum_are_told_apart() -> None:
    row = torch.full((2, 10), float("nan"))
    row[1] = torch.arange(10.0)
    states = [state(temperature=random.random()), state(temperature=0)]
    assert sample(row, states)[0] == [-1, 9]
    assert states[0].error
