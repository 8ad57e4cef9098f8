"""DeepSpeed ZeRO-3 behind the loop's Strategy: same batches, loss, metrics and export as FSDP2.

DeepSpeed keeps the fp32 weights and both moments in flat partitions, one share of every parameter
a rank. A checkpoint shows each share as the rank's part of a one-dimensional tensor, so it is
written, verified and read by the same code as FSDP2's, under the same marker.

Needs the deepspeed package; a GPU, or gloo on the CPU.
"""

import math
import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from apps.train.batches.micro_batch import MicroBatch
from apps.train.config import RunConfig
from apps.train.model import load
from apps.train.model.stored import Source, sources
from apps.train.parallel import fsdp
from apps.train.parallel.adamw import MOMENTS, decay_groups, local
from apps.train.parallel.strategy import PackedModel, State, needs_mask


def settings(config: RunConfig, device: torch.device) -> dict[str, object]:
    """DeepSpeed's own configuration of a run; the loop counts micro-batches itself."""
    zero: dict[str, object] = {
        "stage": 3,
        "overlap_comm": device.type == "cuda",
        "contiguous_gradients": True,
        "stage3_param_persistence_threshold": 0,
    }
    if config.cpu_offload:
        host = {"device": "cpu", "pin_memory": device.type == "cuda"}
        zero |= {"offload_optimizer": host, "offload_param": host}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optim.clip_norm,
        "bf16": {"enabled": config.precision == "bf16"},
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 40,
    }


class DeepSpeedStrategy:
    """ZeRO-3 over all ranks of the process group."""

    def __init__(
        self, config: RunConfig, causal_lm: PreTrainedModel, device: torch.device, folder: str
    ) -> None:
        os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        self.device = device
        self.causal_lm = causal_lm
        self.needs_mask = needs_mask(config, causal_lm)
        self._world, self._rank = dist.get_world_size(), dist.get_rank()
        self._mesh = init_device_mesh("cpu", (self._world,))
        chosen = settings(config, device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cpu":
            _leave_out_shared_memory()
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        _partition(causal_lm, device, chosen, is_bf16=config.precision == "bf16")
        fsdp.recompute(load.decoder_layers(causal_lm), config)
        root = PackedModel(causal_lm)
        # Any: DeepSpeed types neither its ZeRO-3 optimizer nor what it adds to a parameter.
        self._engine: Any
        self._engine, *_ = deepspeed.initialize(
            model=root, optimizer=_adamw(root, config), config=chosen
        )
        self._zero: Any = self._engine.optimizer
        self._parameters: dict[str, Any] = dict(causal_lm.named_parameters())
        self._make_moments()
        self._load_weights(folder)

    def loss(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        return self._engine(batch, scale)

    def evaluate(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        return self._without_gradients(batch, scale)

    def next_tokens(self, batch: MicroBatch, places: torch.Tensor) -> torch.Tensor:
        return self._without_gradients(batch, 1.0, places)

    @torch.no_grad()
    def _without_gradients(
        self, batch: MicroBatch, scale: float, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        self._engine.eval()
        found = self._engine(batch, scale, places)
        self._engine.train()
        return found

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """DeepSpeed averages over ranks, the loop wants sums: the loss is scaled up before."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss * self._world, scale_wrt_gas=False)

    def update(self, learning_rate: float) -> float:
        for group in self._zero.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        if self._zero.overflow:
            return math.inf
        return float(self._engine.get_global_grad_norm())

    def discard(self) -> None:
        self._zero.zero_grad(set_to_none=True)
        self._zero.averaged_gradients = {}

    def state(self) -> State:
        weights: dict[str, torch.Tensor] = {n: self._share(n, None) for n in self._parameters}
        moments: dict[str, torch.Tensor] = {
            f"{n}.{key}": self._share(n, key) for n in self._parameters for key in MOMENTS
        }
        return {"model": weights, "moments": moments}

    def load_state(self, state: State, updates: int) -> None:
        for name in self._parameters:
            self._set_share(name, None, local(state["model"][name]))
            for key in MOMENTS:
                self._set_share(name, key, local(state["moments"][f"{name}.{key}"]))
        self._weights_changed(updates)

    def _make_moments(self) -> None:
        """Zero moments, which AdamW would make in its first step: a resume fills them before it."""
        for weights in self._zero.fp32_partitioned_groups_flat:
            zeros = {key: torch.zeros_like(weights) for key in MOMENTS}
            count = torch.zeros((), device=weights.device)
            self._zero.optimizer.state[weights] = {"step": count, **zeros}

    def _load_weights(self, folder: str) -> None:
        """Each rank reads only the rows that hold its share of a parameter."""
        shapes = {name: torch.Size(p.ds_shape) for name, p in self._parameters.items()}
        for name, source in sources(folder, self.causal_lm.config, shapes).items():
            start, stop = self._range(self._parameters[name].ds_numel)
            self._set_share(name, None, _read_flat(source, start, stop))
        self._weights_changed(updates=0)

    def _range(self, numel: int) -> tuple[int, int]:
        """This rank's share of a flat parameter; DeepSpeed and Shard(0) cut alike."""
        size = -(-numel // self._world)
        return min(self._rank * size, numel), min((self._rank + 1) * size, numel)

    def _share(self, name: str, key: str | None) -> DTensor:
        """A parameter's fp32 weights (key None) or moment, as a flat sharded tensor in host memory.

        (A copy: the shares are views of one buffer, which DCP's stager does not take apart.)
        """
        parameter = self._parameters[name]
        start, stop = self._range(parameter.ds_numel)
        local = self._zero.get_local_fp32_param(parameter, key)[: stop - start]
        return _flat(local.to("cpu", copy=True), self._mesh, parameter.ds_numel)

    def _set_share(self, name: str, key: str | None, value: torch.Tensor) -> None:
        parameter = self._parameters[name]
        padding = parameter.ds_tensor.numel() - value.numel()
        padded = torch.nn.functional.pad(value.float(), (0, padding))
        self._zero.set_local_hp_param(padded, parameter, key)

    def _weights_changed(self, updates: int) -> None:
        """Carry the fp32 weights over to the compute copies, and set AdamW's count of updates."""
        for group in range(len(self._zero.fp16_groups)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)
        for state in self._zero.optimizer.state.values():
            state["step"].fill_(updates)


def _leave_out_shared_memory() -> None:
    """Ranks on CPUs talk through gloo alone.

    DeepSpeed would compile an operation of its own for them, at the first start of a machine. Where
    that was killed, it leaves a lock behind (torch's FileBaton) on which every later start waits
    for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _adamw(root: torch.nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    optim = config.optim
    return torch.optim.AdamW(
        decay_groups(root.parameters(), optim.weight_decay),
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def _partition(
    causal_lm: PreTrainedModel, device: torch.device, chosen: dict[str, object], *, is_bf16: bool
) -> None:
    """Give the meta model storage one module at a time, and cut it up before the next."""
    import deepspeed

    dtype = torch.bfloat16 if is_bf16 else torch.float32
    for module in causal_lm.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.to_empty(device=device, recurse=False)
            deepspeed.zero.Init(module=module, config_dict_or_path=chosen, dtype=dtype)
    causal_lm.tie_weights()  # storage of their own has parted an output layer from the embedding
    load.fill_buffers(causal_lm, device)


def _flat(local: torch.Tensor, mesh: DeviceMesh, numel: int) -> DTensor:
    return DTensor.from_local(
        local, mesh, [Shard(0)], run_check=False, shape=torch.Size([numel]), stride=(1,)
    )


def _read_flat(source: Source, start: int, stop: int) -> torch.Tensor:
    """Elements start..stop of a stored tensor laid flat, reading whole rows around them."""
    columns = math.prod(source.shape[1:])
    first, last = start // columns, -(-stop // columns)
    rows = source.rows(first, last).flatten()
    return rows[start - first * columns : stop - first * columns]
