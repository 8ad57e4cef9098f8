"""How long training takes on some machines: computing, exchanging, and slots that stay empty."""

from apps.train.model import flops, shape
from apps.train.model.hardware import Accelerator
from apps.train.planning import memory, network, offload, speed
from apps.train.planning.result import Training
from apps.train.planning.settings import PlanConfig
from apps.train.planning.workload import Workload


def training(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    accelerator: Accelerator,
    work: Workload,
) -> Training:
    """Every rank takes accumulation x micro-batch rows a step, those without loss too.

    A speed that was stated or measured under cpu_offload has its copies and update in it.

    Worked example: 96 rows on 64 ranks are one micro-batch of 2 rows each, 128 slots for rows, of
    which 32 stay empty: each GPU computes a third more than its share.
    """
    rate = _speed(config, model, setup, accelerator, work.attended_tokens)
    joined = network.between(setup.world_size, accelerator, config.gpus_per_machine, config.network)
    rows = config.global_batch_rows
    rows_a_rank = setup.accumulation * setup.micro_batch_rows
    model_s = rows_a_rank * work.row_tokens / rate.slots_per_s
    compute_s = model_s * (1 if _is_measured(config) else _work_ratio(model, setup))
    exchange_s = network.exchange_s(model, setup, joined)
    is_counted = config.cpu_offload and _is_given(config)
    copies_s = 0.0 if is_counted else offload.transfer_s(model, setup, accelerator)
    update_s = 0.0 if is_counted else offload.update_s(model, setup, config.gpus_per_machine)
    step_s = max(compute_s, exchange_s + copies_s) + update_s
    seconds = step_s * work.steps(rows)
    return Training(
        mfu=None if rate.mfu is None else rate.mfu * model_s / step_s,
        tokens_per_s_per_gpu=rows * work.row_tokens * work.fill / step_s / setup.world_size,
        step_s=step_s,
        exchange_s=exchange_s,
        host_copies_s=copies_s,
        host_update_s=update_s,
        network=joined,
        empty_rows=rows_a_rank * setup.world_size - rows,
        hours=seconds / 3600,
        gpu_hours=seconds / 3600 * setup.world_size,
        source=rate.source + _of_top_layers(config, model),
    )


def _of_top_layers(config: PlanConfig, model: shape.ModelShape) -> str:
    below = model.num_layers - config.top_layers
    if not config.top_layers or not below or _is_measured(config):
        return ""
    return f"; the lower {below} layers are counted with a forward pass alone"


def _work_ratio(model: shape.ModelShape, setup: memory.Setup) -> float:
    """The work of a step where layers of the base and its output layer run beside, over that
    without: a forward pass is a third of 6N."""
    beside = setup.base_layers * model.active_layer_parameters + model.embedding_parameters
    whole = flops.weight_flops_per_token(model, setup.adapter_parameters, setup.trained_layers)
    return 1 + 2 * beside / whole if setup.base_layers else 1.0


def _is_measured(config: PlanConfig) -> bool:
    """Is the speed that of whole steps, whatever was computed in them?"""
    return config.tokens_per_s is not None or config.measured is not None


def _is_given(config: PlanConfig) -> bool:
    """Is the speed somebody's, and not the published one of the card?"""
    return _is_measured(config) or config.mfu is not None


def _speed(
    config: PlanConfig,
    model: shape.ModelShape,
    setup: memory.Setup,
    accelerator: Accelerator,
    attended_tokens: float,
) -> speed.Speed:
    if config.tokens_per_s is not None:
        source = "stated with --tokens-per-s"
        return speed.from_rate(model, setup, accelerator, config.tokens_per_s, source)
    if config.measured is not None:
        rate = speed.measured_rate(config.measured)
        return speed.from_rate(model, setup, accelerator, rate, f"measured in {config.measured}")
    if config.mfu is not None:
        return speed.from_mfu(model, setup, accelerator, config.mfu)
    return speed.published(model, setup, accelerator, attended_tokens)
