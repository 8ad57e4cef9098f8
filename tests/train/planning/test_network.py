"""What the plan counts as gathered, against what FSDP2 gathers on two ranks."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.fsdp._fully_shard._fsdp_param_group as fsdp_groups

from apps.train.batches.micro_batch import ArrayRows, micro_batch
from apps.train.config import RunConfig
from apps.train.loop import worker
from apps.train.model import shape
from apps.train.plan import make_setup
from apps.train.planning import network
from tests.train.conftest import save_model
from tests.train.ranks import on_ranks

CPU = torch.device("cpu")
T = 16
LAYERS = 6
SETTINGS = (
    {},
    {"top_layers": 2},
    {"top_layers": 5},
    {"top_layers": 6},
    {"wrap": "root"},
    {"reshard": "step"},
    {"activation_checkpointing": "full"},
)


def config_of(base: str, changes: dict[str, Any]) -> RunConfig:
    return RunConfig(base=base, data="", out="", global_batch_rows=2, device="cpu", **changes)


def gathered_parameters(base: str, settings: tuple[dict[str, Any], ...]) -> list[int]:
    """Of one micro-batch under each of the settings, on this rank."""
    rows = ArrayRows(np.arange(T)[None] + 3, np.ones((1, T), bool), [[T]])
    batch = micro_batch(rows, np.array([0]), CPU)
    gather, counts = fsdp_groups.foreach_all_gather, list[int]()

    def counted(params: list[Any], *others: Any) -> Any:
        counts[-1] += sum(p._orig_size.numel() for p in params)
        return gather(params, *others)

    fsdp_groups.foreach_all_gather = counted  # the rank is a process of its own
    for changes in settings:
        strategy = worker.make_strategy(config_of(base, changes), CPU, T)
        counts.append(0)
        strategy.backward(strategy.loss(batch, 1.0), is_last=True)
    return counts


@pytest.fixture(scope="module")
def deep_base(tmp_path_factory, small_base) -> str:
    """Six layers."""
    folder = tmp_path_factory.mktemp("deep")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((small_base / name).read_bytes())
    save_model(folder, num_hidden_layers=LAYERS)
    return str(folder)


def test_the_plan_counts_what_fsdp_gathers(deep_base) -> None:
    """All weights for the forward pass, and again what its backward pass finds no more."""
    model = shape.load(deep_base)
    fast = network.Network(num_machines=1, name="", gb_per_s=1e-9)
    for changes, found in zip(
        SETTINGS, on_ranks(2, gathered_parameters, deep_base, SETTINGS)[0], strict=True
    ):
        config = config_of(deep_base, changes)
        setup = make_setup(config, model, 2, T, on_cpu=True)
        trained = network.trained_parameters(model, setup)
        moved_bytes = 2 * network.exchange_s(model, setup, fast)
        gathered_bytes = moved_bytes - network.GRADIENT_BYTES * trained
        assert gathered_bytes == pytest.approx(setup.compute_bytes * found), changes
