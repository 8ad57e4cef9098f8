from collections.abc import Iterator
from itertools import groupby

import pytest
import torch

from apps.train.model import loss
from apps.train.model.loss import IGNORE, BaseHidden, next_token_labels, supervised_loss


@pytest.mark.parametrize("chunk", [3, 1024])
def test_loss_and_gradients_equal_plain_cross_entropy(chunk, monkeypatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_POSITIONS", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 5, requires_grad=True)
    weight = torch.randn(11, 5, requires_grad=True)
    labels = torch.randint(0, 11, (2, 7))
    labels[0, :4] = IGNORE
    ours = supervised_loss(hidden, weight, labels, scale=1 / 10)
    ours.backward()
    found = (ours.detach(), hidden.grad, weight.grad)
    hidden.grad = weight.grad = None
    logits = torch.nn.functional.linear(hidden, weight).flatten(0, 1)
    plain = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum") / 10
    plain.backward()
    for a, b in zip(found, (plain.detach(), hidden.grad, weight.grad), strict=True):
        torch.testing.assert_close(a, b)


def test_rows_without_loss_give_zero_and_no_gradient() -> None:
    hidden = torch.randn(1, 4, 5, requires_grad=True)
    weight = torch.randn(11, 5, requires_grad=True)
    value = supervised_loss(hidden, weight, torch.full((1, 4), IGNORE), scale=1.0)
    value.backward()
    assert value == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_labels_are_the_next_supervised_token() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.tensor([[False, True, False, True]])
    assert next_token_labels(ids, mask).tolist() == [[6, IGNORE, 8, IGNORE]]


def answers(labels: torch.Tensor) -> Iterator[list[int]]:
    """Runs of places with a label."""
    place = 0
    for has_label, run in groupby((labels != IGNORE).tolist()):
        length = len(list(run))
        if has_label:
            yield list(range(place, place + length))
        place += length


def kept_or_learned(
    hidden: torch.Tensor, base: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, int, int]:
    """The loss, from the whole of the logits, and how many tokens are kept and how many learned."""
    model = torch.nn.functional.linear(hidden, weight).log_softmax(-1)
    before = torch.nn.functional.linear(base, weight).log_softmax(-1).detach()
    total, num_kept, num_learned = torch.zeros(()), 0, 0
    for answer in answers(labels):
        said = [bool(before[at].argmax() == labels[at]) for at in answer]
        for at, is_said in zip(answer, said, strict=True):
            if is_said and sum(said) >= 0.65 * len(said):
                total = total + 2.5 * (before[at].exp() * (before[at] - model[at])).sum()
                num_kept += 1
            else:
                total = total - model[at, labels[at]]
                num_learned += 1
    return total / 10, num_kept, num_learned


@pytest.mark.parametrize("chunk", [5, 14, 1024])
def test_answers_that_the_base_gives_are_kept_and_the_others_learned(chunk, monkeypatch) -> None:
    """Also where answers are cut into chunks, and where one is longer than a chunk."""
    monkeypatch.setattr(loss, "CHUNK_POSITIONS", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(40, 5, requires_grad=True)
    weight = torch.randn(11, 5, requires_grad=True)
    base = hidden.detach() + 0.3 * torch.randn(40, 5)
    labels = torch.nn.functional.linear(base, weight).argmax(-1)
    labels[[3, 13, 14, 16, 18, 33]] = torch.tensor([4, 0, 1, 2, 3, 4])
    labels[[0, 5, 9, 10, 19, 25, 39]] = IGNORE
    longest = max(map(len, answers(labels)))
    ours = supervised_loss(hidden, weight, labels, 1 / 10, base=BaseHidden(base, 2.5))
    ours.backward()
    found = (ours.detach(), hidden.grad, weight.grad)
    hidden.grad = weight.grad = None
    plain, num_kept, num_learned = kept_or_learned(hidden, base, weight, labels)
    plain.backward()
    assert min(num_kept, num_learned) > 5 and longest == 13
    if longest > chunk:
        return  # it is judged in parts, each by itself
    for a, b in zip(found, (plain.detach(), hidden.grad, weight.grad), strict=True):
        torch.testing.assert_close(a, b)


def test_a_model_that_is_its_base_has_nothing_to_keep() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(1, 6, 5, requires_grad=True)
    weight = torch.randn(11, 5)
    labels = torch.nn.functional.linear(hidden, weight).argmax(-1)
    base = BaseHidden(hidden.detach(), 1.0)
    value = supervised_loss(hidden, weight, labels, scale=1.0, base=base)
    value.backward()
    assert value.abs() < 1e-5
    assert hidden.grad.abs().max() < 1e-6
