"""Floating-point operations of training, and model FLOPs utilisation (MFU).

Two counts per token, forward and backward together, without recomputation:

- `nominal`: 6N + 12 L d s, the convention of PaLM (arXiv:2204.02311, appendix B), llm-foundry and
  torchtitan. It counts full attention over the row, so published tables compare with it.
- `packed`: 6N + 6 L d sum(l^2)/sum(l), what packed causal attention really does: a token attends
  only to earlier tokens of its own conversation, on average (l + 1)/2 of l.

N counts every parameter, of a mixture only the experts that a token visits; d is heads times head
width, s the row length, l a conversation's length.
Under a LoRA adapter of A parameters the frozen weights need no gradient of their own, a third of
their work (arXiv:2106.09685): 4N + 6A stands for 6N.
Where only the last k of L layers are trained (or have adapters), what lies below has a forward pass
alone: a third of the work, of attention too. The output layer hands on a gradient and gets none.
"""

from collections.abc import Iterable

from apps.train.model.shape import ModelShape


def weight_flops_per_token(
    shape: ModelShape, adapter_parameters: int = 0, trained_layers: int = 0
) -> float:
    """6N, or 4N + 6A where only an adapter of A parameters is trained.

    With `trained_layers`, the last ones: 2N and the backward pass of these and of the output layer.
    """
    if trained_layers:
        backward = 2 if adapter_parameters else 4
        layers = backward * trained_layers * shape.active_layer_parameters
        head = 2 * shape.embedding_parameters
        return 2 * shape.active_parameters + layers + head + 6 * adapter_parameters
    if adapter_parameters:
        return 4 * shape.active_parameters + 6 * adapter_parameters
    return 6 * shape.active_parameters


def nominal_flops_per_token(
    shape: ModelShape, row_tokens: float, adapter_parameters: int = 0, trained_layers: int = 0
) -> float:
    """6N + 12 L d s for rows of s tokens; of layers without a backward pass a third."""
    layers = 4 * shape.num_layers + 8 * (trained_layers or shape.num_layers)
    attention = layers * shape.attention_width * row_tokens
    return weight_flops_per_token(shape, adapter_parameters, trained_layers) + attention


def packed_flops_per_token(
    shape: ModelShape,
    tokens: int,
    squared_tokens: int,
    adapter_parameters: int = 0,
    trained_layers: int = 0,
) -> float:
    """6N + 6 L d sum(l^2)/sum(l), from the sum of lengths and the sum of their squares.

    Half of the nominal attention over rows of that length: a token sees what came before it.
    """
    mean_length = squared_tokens / tokens if tokens else 0.0
    nominal = nominal_flops_per_token(shape, mean_length, adapter_parameters, trained_layers)
    weights = weight_flops_per_token(shape, adapter_parameters, trained_layers)
    return (nominal + weights) / 2


def length_sums(lengths: Iterable[int]) -> tuple[int, int]:
    """Sum of lengths and sum of squared lengths, what `packed_flops_per_token` takes."""
    tokens = squared = 0
    for length in lengths:
        tokens += length
        squared += length * length
    return tokens, squared


def mfu(tokens_per_s: float, flops_per_token: float, peak_flops: float) -> float:
    """Share, 0..1, of the peak (FLOP/s) that model FLOPs reach.

    All three are for one GPU, or all for the whole job.
    """
    return tokens_per_s * flops_per_token / peak_flops
