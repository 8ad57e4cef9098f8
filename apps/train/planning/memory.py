"""Memory of one rank at its peak, by part, before anything is started.

Three moments of a step can be the peak: the loss (all activations, a chunk of logits), the first
layer of the backward pass (the same activations, that layer's gradients) and the last reduction
(all gradients, no activations). The state's bytes follow from its layout, activations from what
autograd keeps of one LLaMA layer per token, the rest from what FSDP2 gathers and scatters at a
time. tests/train/planning/test_memory.py holds the result against the allocator's own count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Literal

from apps.train.model.hardware import Accelerator
from apps.train.model.shape import ModelShape

Checkpointing = Literal["none", "elementwise", "selective", "full"]
OptimizerState = Literal["fp32", "bf16", "int8"]
Reshard = Literal["layer", "step"]

MASTER_BYTES = 4
OPTIMIZER_BYTES = {"fp32": 8.0, "bf16": 4.0, "int8": 2.0 + 2 * 4 / 256}
"""Two Adam moments per parameter; int8 ones carry one fp32 scale per block of 256."""
STORED_MOMENT_BYTES = {"fp32": 8, "bf16": 4, "int8": 8}
"""The same in a checkpoint, where 8-bit moments lie as the fp32 they stand for."""


def checkpoint_bytes(trained_parameters: float, state: OptimizerState) -> float:
    """Size of a checkpoint: fp32 weights and both moments of what is trained."""
    return trained_parameters * (MASTER_BYTES + STORED_MOMENT_BYTES[state])


CHECKPOINTING_PRICES = {"none": 0, "elementwise": 1, "selective": 4, "full": 8}
"""Which remedy comes first: roughly the loss of speed, in 3 %, and 1 for a change at all."""
ZERO3_WEIGHT_BYTES = 2
"""DeepSpeed keeps a bf16 copy of its shard besides the fp32 master."""

CUDA_RUNTIME_BYTES = 2_000_000_000
"""CUDA context, NCCL channels and cuBLAS workspace (engineering estimate)."""
CPU_RUNTIME_BYTES = 1_350_000_000
"""A Ray worker with torch, transformers and pyarrow resident, gloo's buffers, cached rows: 1.25 GB
beside the demo's model (`memory_gb` of its metrics.jsonl, 2026-11-23)."""
FRAGMENTATION = 0.04
"""Share of the activations and buffers that the caching allocator cannot reuse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """The switches that decide memory; one rank is one GPU."""

    world_size: int
    """Ranks that share the state."""
    row_tokens: int = 2048
    """Tokens of one packed row."""
    micro_batch_rows: int = 1
    """Rows in one forward pass."""
    accumulation: int = 1
    """Forward passes per optimizer step."""
    activation_checkpointing: Checkpointing = "none"
    """What is recomputed in the backward pass."""
    optimizer_state: OptimizerState = "fp32"
    """Precision of the two Adam moments."""
    compute_bytes: int = 2
    """Bytes of one element in the forward pass: 2 for bf16, 4 for fp32."""
    cpu_offload: bool = False
    """Weights, gradients and moments live in host memory."""
    strategy: Literal["fsdp", "deepspeed"] = "fsdp"
    """Who shards."""
    wrap: Literal["layer", "root"] = "layer"
    """FSDP units: each layer, or the whole model at once."""
    reshard: Reshard = "layer"
    """Weights are gathered and gradients reduced layer by layer, or once a step."""
    compiled: bool = False
    """torch.compile, which keeps less for the backward pass."""
    adapter_parameters: int = 0
    """Trainable parameters of a LoRA adapter; 0 trains the whole model."""
    trained_layers: int = 0
    """Decoder layers that are trained, the last ones, and nothing else; 0: the whole model."""
    base_layers: int = 0
    """Decoder layers of the base that run beside the trained ones (keep_base)."""
    loss_chunk_tokens: int = 1024
    """Tokens whose logits exist at a time."""
    on_cpu: bool = False
    """Ranks are CPU processes."""

    @property
    def micro_batch_tokens(self) -> int:
        return self.micro_batch_rows * self.row_tokens

    @property
    def is_partial(self) -> bool:
        """Whether the embedding and the output layer stay as they are."""
        return self.adapter_parameters > 0 or self.trained_layers > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on one rank's device at one moment of a step, and in host memory for that rank."""

    weights: float
    """shard: fp32 of the trained (bf16 too with DeepSpeed), the compute type of the frozen"""
    optimizer: float
    """both moments of the shard"""
    gradients: float
    """fp32 shard, or with `reshard step` and accumulation all"""
    gathered: float
    """whole layers that FSDP has put together, or that every rank keeps of the base, and gradients
    on their way to the shards"""
    activations: float
    """what the forward pass keeps for the backward pass, and the layer at work"""
    logits: float
    """one chunk of logits and the gradients of the output layer"""
    runtime: float
    """CUDA or Python itself, and what the allocator cannot reuse"""
    host: float = 0.0
    """host memory of one rank: what a checkpoint is written from, and state with cpu_offload"""

    @property
    def device(self) -> float:
        """All parts that lie on the device."""
        return sum(getattr(self, part.name) for part in fields(self) if part.name != "host")


def trained_parameters(shape: ModelShape, setup: Setup) -> int:
    """What has gradients and moments, and lies in a checkpoint."""
    if setup.adapter_parameters:
        return setup.adapter_parameters
    layers = setup.trained_layers * shape.layer_parameters
    return min(layers, shape.num_parameters) or shape.num_parameters


def frozen_parameters(shape: ModelShape, setup: Setup) -> int:
    """The others, which lie in the compute type."""
    return shape.num_parameters + setup.adapter_parameters - trained_parameters(shape, setup)


def layer_activation_bytes(shape: ModelShape, compute_bytes: int, *, compiled: bool = False) -> int:
    """Bytes per token that one layer keeps for its backward pass, nothing recomputed.

    Each of the two RMSNorms keeps its input in fp32, the normalised input and its own output;
    attention keeps q, k, v and its output; the MLP keeps gate, SiLU(gate), up and their product.
    torch.compile keeps the norms' inputs as they came, and computes the normalised input and
    SiLU(gate) again.
    """
    d, c = shape.hidden_size, compute_bytes
    norms = 2 * ((c if compiled else 4 + c) * d + c * d) + 8
    attention = c * (2 * shape.attention_width + 2 * shape.kv_width) + 4 * shape.num_heads
    mlp = (3 if compiled else 4) * c * shape.intermediate_size
    return norms + attention + mlp


def _whole_layer(shape: ModelShape, setup: Setup) -> float:
    """Bytes per token of one layer of this setup, nothing recomputed."""
    base = layer_activation_bytes(shape, setup.compute_bytes, compiled=setup.compiled)
    adapters = setup.compute_bytes * _adapter_inputs(shape, setup)
    return base + _attention_mask(shape, setup) + adapters


def _attention_mask(shape: ModelShape, setup: Setup) -> float:
    """Bytes per token of what a layer keeps where flash attention is not to be had (attention.py).

    The mask as numbers, and in fp32 on a GPU keys and values repeated for each query head.
    """
    if setup.on_cpu:
        return setup.compute_bytes * setup.row_tokens
    if setup.compute_bytes < 4:
        return 0
    repeated = 2 * (shape.attention_width - shape.kv_width)
    return setup.compute_bytes * (setup.row_tokens + repeated)


def _adapter_inputs(shape: ModelShape, setup: Setup) -> float:
    """Numbers per token that the A parts of a layer's adapters hand to its B parts, at most.

    An adapter of rank r has r (inputs + outputs) parameters at each of its layers.
    """
    narrowest = shape.hidden_size + min(shape.kv_width, shape.intermediate_size)
    return setup.adapter_parameters / (_backward_layers(shape, setup) * narrowest)


def _kept_per_layer(shape: ModelShape, setup: Setup) -> float:
    """Bytes per token and layer that live from the forward to the backward pass."""
    whole = _whole_layer(shape, setup)
    boundary = setup.compute_bytes * shape.hidden_size
    if setup.activation_checkpointing == "none":
        return whole
    if setup.activation_checkpointing == "full":
        return boundary
    attention_output = shape.attention_width + 2 * shape.num_heads
    products = shape.attention_width + shape.kv_width + shape.intermediate_size + shape.hidden_size
    if setup.activation_checkpointing == "elementwise":
        products += shape.kv_width + shape.intermediate_size
        products += 0 if setup.compiled else shape.hidden_size  # the last, which nothing needs
    if setup.adapter_parameters:  # those of an adapter's B parts are kept too
        products = 2 * products + _adapter_inputs(shape, setup)
    return boundary + setup.compute_bytes * (products + attention_output)


def _backward_layers(shape: ModelShape, setup: Setup) -> int:
    """Layers with a backward pass; those below keep nothing for one."""
    return setup.trained_layers or shape.num_layers


def kept_bytes(shape: ModelShape, setup: Setup) -> float:
    """Activations of one micro-batch between its forward and its backward pass."""
    outer = 8 * shape.hidden_size + 2 * setup.compute_bytes * shape.hidden_size + 32
    per_token = _backward_layers(shape, setup) * _kept_per_layer(shape, setup) + outer
    mask = setup.micro_batch_tokens * setup.row_tokens if setup.on_cpu else 0
    return setup.micro_batch_tokens * per_token + mask


def _layer_at_work(shape: ModelShape, setup: Setup) -> float:
    """Beyond what was kept: a recomputed layer, and the gradients inside it."""
    c = setup.compute_bytes
    recomputes = setup.activation_checkpointing != "none"
    again = _whole_layer(shape, setup) if recomputes else 0
    gradients = c * 3 * shape.intermediate_size + 3 * MASTER_BYTES * shape.hidden_size
    return setup.micro_batch_tokens * (again + gradients)


def _unit_parameters(shape: ModelShape, setup: Setup) -> int:
    """Parameters whose gradients are reduced at once."""
    if setup.wrap == "root":
        return trained_parameters(shape, setup)
    outer = 0 if setup.is_partial else shape.outer_parameters
    return max(2 * shape.layer_parameters, outer)


def _gathered_weights(shape: ModelShape, setup: Setup) -> float:
    """The layer at work, two prefetched, one all-gather buffer, and the outer group.

    The outer group stays gathered. With `wrap root` the whole model is one group; with
    `reshard step` every group stays.
    """
    if setup.is_partial and setup.world_size == 1 and not setup.cpu_offload:
        return setup.compute_bytes * trained_parameters(shape, setup)  # frozen ones stay in place
    if setup.wrap == "root":
        return setup.compute_bytes * shape.num_parameters
    if setup.reshard == "step":
        return setup.compute_bytes * (shape.num_parameters + shape.layer_parameters)
    return setup.compute_bytes * (4 * shape.layer_parameters + shape.outer_parameters)


def _reduction(shape: ModelShape, setup: Setup) -> float:
    """Whole gradients in compute precision, their fp32 copy, and the shard they are added to."""
    if setup.adapter_parameters:
        return (setup.compute_bytes + 2 * MASTER_BYTES) * setup.adapter_parameters
    unit = _unit_parameters(shape, setup)
    again = MASTER_BYTES * unit / setup.world_size if setup.accumulation > 1 else 0
    return (setup.compute_bytes + MASTER_BYTES) * unit + again


def _loss_bytes(shape: ModelShape, setup: Setup) -> tuple[float, float]:
    """A chunk of logits with its fp32 copy and gradient, and what the loss leaves behind.

    It leaves gradients of the last hidden states and of the output layer (fp32). With the base
    beside, its logits lie there too, and on a GPU four fp32 numbers for each of them.
    """
    c, d = setup.compute_bytes, shape.hidden_size
    chunk = min(setup.loss_chunk_tokens, setup.micro_batch_tokens)
    models = 2 if setup.base_layers else 1
    passing = chunk * shape.vocab_size * models * (2 * MASTER_BYTES + c)
    head = 0 if setup.is_partial else MASTER_BYTES * shape.vocab_size * d
    return passing, setup.micro_batch_tokens * d * (1 + models) * c + head


def _state(shape: ModelShape, setup: Setup) -> tuple[float, float, float]:
    """Weights and moments of one rank's shard, and gradients: with `reshard step` all of them."""
    trained = trained_parameters(shape, setup)
    frozen = setup.compute_bytes * frozen_parameters(shape, setup)
    weights = MASTER_BYTES * trained + frozen
    if setup.strategy == "deepspeed":
        weights += ZERO3_WEIGHT_BYTES * shape.num_parameters
    moments = OPTIMIZER_BYTES[setup.optimizer_state] * trained
    gradients = MASTER_BYTES * trained
    if setup.reshard != "step":
        gradients /= setup.world_size
    return weights / setup.world_size, moments / setup.world_size, gradients


def _staged(shape: ModelShape, setup: Setup) -> float:
    """The copy of one rank's state that a checkpoint is written from in the background."""
    trained = trained_parameters(shape, setup)
    return checkpoint_bytes(trained / setup.world_size, setup.optimizer_state)


def estimate(shape: ModelShape, setup: Setup) -> Memory:
    """Memory of one rank at the largest of the three moments."""
    moments = [_at_loss(shape, setup), _at_backward(shape, setup), _at_reduction(shape, setup)]
    return max(moments, key=lambda moment: moment.device)


def _at_loss(shape: ModelShape, setup: Setup) -> Memory:
    passing, left = _loss_bytes(shape, setup)
    kept = kept_bytes(shape, setup)
    return _memory(shape, setup, activations=kept, logits=passing + left)


def _at_backward(shape: ModelShape, setup: Setup) -> Memory:
    _, left = _loss_bytes(shape, setup)
    activations = kept_bytes(shape, setup) + _layer_at_work(shape, setup)
    return _memory(shape, setup, activations=activations, logits=left)


def _at_reduction(shape: ModelShape, setup: Setup) -> Memory:
    reshard = setup.reshard if setup.accumulation > 1 else "layer"  # it never held them all
    done = replace(setup, accumulation=max(setup.accumulation, 2), reshard=reshard)
    return _memory(shape, done, reduction=_reduction(shape, setup))


def _memory(
    shape: ModelShape,
    setup: Setup,
    activations: float = 0.0,
    logits: float = 0.0,
    reduction: float = 0.0,
) -> Memory:
    """One moment; gradients of earlier micro-batches lie there when steps accumulate."""
    weights, optimizer, gradients = _state(shape, setup)
    if setup.accumulation == 1:
        gradients = 0.0
    beside = setup.compute_bytes * setup.base_layers * shape.layer_parameters
    gathered = _gathered_weights(shape, setup) + reduction + beside
    host = _staged(shape, setup)
    runtime: float = CUDA_RUNTIME_BYTES
    if setup.on_cpu:
        runtime, host = CPU_RUNTIME_BYTES + host, 0.0
    if setup.cpu_offload:
        host += weights + optimizer + gradients
        weights = optimizer = gradients = 0.0
    return Memory(
        weights=weights,
        optimizer=optimizer,
        gradients=gradients,
        gathered=gathered,
        activations=activations,
        logits=logits,
        runtime=runtime + FRAGMENTATION * (activations + logits + gathered),
        host=host,
    )


def fits(shape: ModelShape, setup: Setup, accelerator: Accelerator) -> bool:
    """Whether one rank's peak is within the device."""
    return estimate(shape, setup).device <= accelerator.memory_bytes


def _variants(setup: Setup, adapter_parameters: int) -> Iterator[tuple[int, Setup]]:
    """Every combination of switches with a rank of how much it slows or changes training."""
    checkpointings = tuple(CHECKPOINTING_PRICES)
    start = checkpointings.index(setup.activation_checkpointing)
    states = ("fp32", "bf16", "int8")
    precision = states.index(setup.optimizer_state)
    if setup.strategy == "deepspeed":  # it has no low-memory moments here
        states = states[: precision + 1]
    if setup.strategy == "deepspeed" or setup.base_layers:  # neither goes with adapters
        adapter_parameters = setup.adapter_parameters
    rows = sorted({setup.micro_batch_rows, 1}, reverse=True)
    reshards = ("step", "layer") if setup.reshard == "step" else ("layer",)
    offloads = (False, True) if not setup.cpu_offload else (True,)
    adapters = (0, adapter_parameters) if not setup.adapter_parameters else (adapter_parameters,)
    for row, check, state, reshard, offload, adapter in product(
        rows, checkpointings[start:], states[precision:], reshards, offloads, adapters
    ):
        if (offload and reshard == "step") or (adapter and check == "elementwise"):
            continue  # refused; and keeping the products of adapters too saves nothing
        changed = replace(
            setup,
            micro_batch_rows=row,
            accumulation=setup.accumulation * setup.micro_batch_rows // row,
            activation_checkpointing=check,
            optimizer_state=state,
            reshard=reshard,
            cpu_offload=offload,
            adapter_parameters=adapter,
        )
        price = 1 * (row != setup.micro_batch_rows)
        price += CHECKPOINTING_PRICES[check] - CHECKPOINTING_PRICES[checkpointings[start]]
        price += 3 * (states.index(state) - precision)
        price += 1 * (reshard != setup.reshard)
        price += 20 * (offload != setup.cpu_offload)
        price += 50 * (bool(adapter) != bool(setup.adapter_parameters))
        yield price, changed


def remedies(
    shape: ModelShape,
    setup: Setup,
    accelerator: Accelerator,
    adapter_parameters: int,
    most: int = 3,
) -> list[Setup]:
    """The mildest combinations of switches that fit, none containing another; mildest first."""
    found: list[tuple[set[str], Setup]] = []
    variants = sorted(_variants(setup, adapter_parameters), key=lambda pair: pair[0])
    for _, variant in variants:
        changed = changes(setup, variant)
        if changed and fits(shape, variant, accelerator):
            keys = {f"{name}={value}" for name, value in changed.items()}
            if not any(known <= keys for known, _ in found):
                found.append((keys, variant))
    return [variant for _, variant in found[:most]]


SWITCHES = (
    "micro_batch_rows",
    "activation_checkpointing",
    "optimizer_state",
    "reshard",
    "cpu_offload",
)


def changes(before: Setup, after: Setup) -> dict[str, str]:
    """The command-line switches that turn one setup into the other."""
    changed = {
        name: str(getattr(after, name)).lower()
        for name in SWITCHES
        if getattr(before, name) != getattr(after, name)
    }
    if bool(before.adapter_parameters) != bool(after.adapter_parameters):
        changed["adapter"] = "lora"
    return changed
