import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.trainer_pt_utils import get_parameter_names

from apps.train.config import OptimConfig
from apps.train.loop.schedule import learning_rate
from apps.train.parallel import adamw
from apps.train.parallel.adamw import dequantize, make_optimizer, quantize


def train(state: str, steps: int = 60) -> tuple[list[float], torch.nn.Module]:
    """Fit a small regression; the losses and the model."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 40), torch.nn.Tanh(), torch.nn.Linear(40, 1))
    inputs = torch.randn(64, 8)
    target = inputs[:, :1] * inputs[:, 1:2]
    optimizer = make_optimizer(model.parameters(), OptimConfig(lr=1e-2, state=state))
    losses = []
    for _ in range(steps):
        loss = (model(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize(("state", "tolerance"), [("bf16", 0.03), ("int8", 0.15)])
def test_low_memory_moments_train_like_fp32_ones(state, tolerance) -> None:
    exact, low = train("fp32")[0], train(state)[0]
    assert exact[-1] < 0.3 * exact[0]
    assert low[-1] == pytest.approx(exact[-1], abs=tolerance * exact[0])


def test_bf16_adamw_takes_the_same_first_step_as_torch() -> None:
    exact, low = train("fp32", steps=1)[1], train("bf16", steps=1)[1]
    for a, b in zip(exact.parameters(), low.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


@given(st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=600))
@settings(max_examples=60, deadline=None)
def test_quantizing_what_was_quantized_changes_nothing(values) -> None:
    """Why a checkpoint may hold 8-bit moments as fp32 and still resume exactly."""
    value = torch.tensor(values)
    codes, scales = quantize(value)
    restored = dequantize(codes, scales, value.shape)
    again_codes, again_scales = quantize(restored)
    assert torch.equal(codes, again_codes)
    torch.testing.assert_close(scales, again_scales, rtol=1e-6, atol=0)
    largest = value.abs().amax()
    assert (restored - value).abs().amax() <= largest * 2 / 127


@pytest.mark.parametrize("state", ["fp32", "bf16", "int8"])
def test_moments_survive_being_taken_out_and_put_back(state) -> None:
    config = OptimConfig(lr=1e-2, state=state)
    model = torch.nn.Linear(30, 20)
    named = dict(model.named_parameters())
    optimizer = make_optimizer(named.values(), config)
    for _ in range(3):
        model(torch.randn(4, 30)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    saved = {k: v.clone() for k, v in adamw.moments(optimizer, named).items()}
    other_model = copy.deepcopy(model)
    other_named = dict(other_model.named_parameters())
    other = make_optimizer(other_named.values(), config)
    adamw.set_moments(other, other_named, saved, updates=3)
    inputs = torch.randn(4, 30)
    for m, o in ((model, optimizer), (other_model, other)):
        m(inputs).square().sum().backward()
        o.step()
    for a, b in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_warms_up_to_its_peak_and_falls_to_its_end(schedule) -> None:
    config = OptimConfig(lr=1.0, schedule=schedule, warmup_fraction=0.1, final_fraction=0.02)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_cosine_is_halfway_in_the_middle() -> None:
    config = OptimConfig(lr=2e-5, warmup_fraction=0.0)
    assert learning_rate(50, 101, config) == pytest.approx(1e-5)


@pytest.mark.parametrize("state", ["bf16", "int8"])
def test_a_compiled_update_is_the_plain_one(state) -> None:
    """Over steps, and over sizes: whole blocks of 8-bit moments, and not."""
    torch.manual_seed(0)
    start = [torch.randn(24, 64), torch.randn(512), torch.randn(2, 128, 8), torch.randn(700)]
    gradients = [[torch.randn_like(w) for w in start] for _ in range(3)]
    config = OptimConfig(lr=1e-2, state=state, weight_decay=0.1)
    found = []
    for compiled in (False, True):
        weights = [torch.nn.Parameter(w.clone()) for w in start]
        optimizer = make_optimizer(weights, config, compiled=compiled)
        for step in gradients:
            for weight, gradient in zip(weights, step, strict=True):
                weight.grad = gradient
            optimizer.step()
        named = {str(index): weight for index, weight in enumerate(weights)}
        found.append({**named, **adamw.moments(optimizer, named)})
    for name, plain in found[0].items():
        tolerance = {"rtol": 0.0, "atol": 1e-4} if name in named else {"rtol": 2e-2, "atol": 1e-4}
        torch.testing.assert_close(found[1][name], plain, **tolerance)


@pytest.mark.parametrize("state", ["fp32", "bf16", "int8"])
def test_weight_decay_is_for_matrices(state) -> None:
    """Norms and biases stay where a zero gradient leaves them; as in transformers' Trainer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(9, 16), torch.nn.Linear(16, 16))
    model.append(torch.nn.RMSNorm(16))
    named = dict(model.named_parameters())
    before = {name: weight.detach().clone() for name, weight in named.items()}
    optimizer = make_optimizer(named.values(), OptimConfig(lr=0.1, weight_decay=0.5, state=state))
    for weight in named.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    kept = get_parameter_names(model, [torch.nn.RMSNorm], ["bias"])
    assert kept == ["0.weight", "1.weight"]
    for name, weight in named.items():
        share = 0.95 if name in kept else 1.0
        torch.testing.assert_close(weight.detach(), before[name] * share)
