import pytest
import torch

from apps.train.model import loss
from apps.train.model.loss import IGNORE, next_token_labels, supervised_loss


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
