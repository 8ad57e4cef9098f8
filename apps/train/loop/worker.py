"""What one rank does: set up, resume, train. Pure PyTorch; the process group must exist.

with process_group():                 # one rank, for scripts and benchmarks
    work(config, rows)
"""

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from apps.common.errors import CriaError, InputError
from apps.common.packs import open_pack
from apps.common.text.tokenizer import load_tokenizer
from apps.train.batches.micro_batch import Rows
from apps.train.batches.order import BatchOrder, order_of
from apps.train.checkpoint import agree, checkpoint
from apps.train.checkpoint.checkpoint import RunMark
from apps.train.checkpoint.fence import Fence, Superseded
from apps.train.config import RunConfig
from apps.train.loop.loop import Hooks, Loop, TrainingStopped
from apps.train.loop.metrics import Meter, MetricsLog
from apps.train.loop.progress import Progress
from apps.train.loop.record import StepRecord, read_metrics, spent_s
from apps.train.loop.samples import Sampler
from apps.train.loop.trackers import Trackers
from apps.train.model import hardware, load, lora
from apps.train.model.base_folder import fetch_base
from apps.train.model.precision import cpu_has_bf16, resolve
from apps.train.model.shape import check_top_layers, from_config
from apps.train.parallel.strategy import FsdpStrategy, Strategy


@contextlib.contextmanager
def process_group(backend: str = "gloo") -> Iterator[None]:
    """A process group of this process alone."""
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def work(
    config: RunConfig,
    train_rows: Rows,
    val_rows: Rows | None = None,
    *,
    commit: RunMark | None = None,
    hooks: Hooks | None = None,
    fence: Fence | None = None,
    random_weights: bool = False,
) -> Progress:
    """Train `config` on this rank to the end, resuming from config.out's newest checkpoint.

    `commit` goes into every checkpoint's marker. Without the `fence` no other command trains the
    run. `random_weights` leaves the base model's weights
    unread (benchmarks of a shape).
    """
    hooks = hooks or Hooks()
    device = rank_device(config)
    config = replace(config, precision=resolve(config.precision, device.type))
    configure_torch(config)
    warn_of_slow_precision(config, device, hooks)
    fence = fence or Fence(config.out)
    fence.take()
    strategy = make_strategy(config, device, train_rows.row_tokens, random_weights=random_weights)
    checkpoints = checkpoint.Checkpoints(
        config.out,
        config.checkpoint,
        device.type,
        config.faults.collective_timeout_s,
        hooks.on_commit,
        fence,
    )
    commit = commit or RunMark()
    progress = resume(config, strategy, hooks, commit)
    if dist.get_rank() == 0:
        lost_s = max(spent_s(read_metrics(config.out)) - progress.seconds, 0.0)
        progress.seconds, progress.lost_s = progress.seconds + lost_s, progress.lost_s + lost_s
    with _logged(hooks, config, progress.step, fence) as logged:
        loop = Loop(
            config=config,
            order=run_order(config, len(train_rows)),
            train_rows=train_rows,
            val_rows=val_rows,
            strategy=strategy,
            meter=make_meter(config, strategy, train_rows.row_tokens),
            checkpoints=checkpoints,
            commit=commit,
            hooks=logged,
            progress=progress,
            sampler=make_sampler(config),
        )
        try:
            loop.run()
        except (TrainingStopped, Superseded):
            _finish_writing(checkpoints, hooks)
            raise
    checkpoints.close()
    return loop.progress


def _finish_writing(checkpoints: checkpoint.Checkpoints, hooks: Hooks) -> None:
    """Make whole what is being written, on all ranks; a failure is told and hides no other."""
    try:
        checkpoints.close()
    except CriaError as error:
        if dist.get_rank() == 0:
            hooks.on_event("checkpoint.failed", {"reason": str(error)})


def run_order(config: RunConfig, num_rows: int) -> BatchOrder:
    """The order in which a run of `config` visits its rows."""
    return order_of(
        num_rows=num_rows,
        global_batch_rows=config.global_batch_rows,
        seed=config.seed,
        epochs=config.epochs,
        steps=config.steps,
    )


def rank_device(config: RunConfig) -> torch.device:
    """This rank's device; on CUDA it becomes the current one."""
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"The run needs a GPU but torch finds none on {platform.node()}; check `nvidia-smi` "
            "and that torch is a CUDA build there, or train with --device cpu."
        )
    os.environ |= hardware.allocator_environment()
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def configure_torch(config: RunConfig) -> None:
    """Process-wide settings of the numerics."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("highest" if config.precision == "fp32" else "high")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (untyped)


def warn_of_slow_precision(config: RunConfig, device: torch.device, hooks: Hooks) -> None:
    """Say so where bf16 is computed in software."""
    if device.type != "cpu" or config.precision != "bf16" or dist.get_rank() != 0:
        return
    if not cpu_has_bf16():
        advice = "this CPU computes bf16 in software, 10 to 40 times slower: use --precision fp32"
        hooks.on_event("precision.slow", {"advice": advice})


def make_strategy(
    config: RunConfig, device: torch.device, row_tokens: int, *, random_weights: bool = False
) -> Strategy:
    """The base model, sharded and filled with its weights."""
    folder = config.base if random_weights else fetch_base(config.base)
    causal_lm = load.build_on_meta(load.run_config(config, folder, row_tokens))
    if config.strategy == "deepspeed":
        from apps.train.parallel.deepspeed import DeepSpeedStrategy  # the package is optional

        return DeepSpeedStrategy(config, causal_lm, device, folder)
    choose_trained(causal_lm, config)
    strategy = FsdpStrategy(config, causal_lm, device)
    if random_weights:
        load.fill_randomly(causal_lm, config.seed)
    else:
        load.load_weights(causal_lm, folder, lora.stored_names(causal_lm))
    lora.fill(causal_lm, config.seed)
    if config.keep_base:
        strategy.keep_base(folder)
    return strategy


def choose_trained(causal_lm: PreTrainedModel, config: RunConfig) -> None:
    """Freeze what the run leaves as it is, and add adapters where it trains those.

    Raises ConfigError for more top layers than the model has.
    """
    check_top_layers(config.top_layers, len(load.decoder_layers(causal_lm)))
    if config.adapter == "lora":
        lora.inject(causal_lm, config.lora, config.top_layers)
    elif config.top_layers:
        load.freeze_below(causal_lm, config.top_layers)


def make_meter(config: RunConfig, strategy: Strategy, row_tokens: int) -> Meter:
    device = strategy.device
    peak = config.metrics.peak_tflops and config.metrics.peak_tflops * hardware.TERA
    if peak is None and device.type == "cuda":
        known = hardware.recognise(torch.cuda.get_device_name(device))
        peak = known.peak_flops if known else None
    return Meter(
        config.metrics,
        from_config(strategy.causal_lm.config.to_dict()),
        row_tokens=row_tokens,
        world_size=dist.get_world_size(),
        device=device,
        peak_flops=peak,
        adapter_parameters=lora.num_parameters(strategy.causal_lm),
        trained_layers=config.top_layers,
    )


def make_sampler(config: RunConfig) -> Sampler | None:
    """What asks the fixed prompts, in the words of the pack's template."""
    if not config.metrics.sample_every_steps:
        return None
    tokenizer = load_tokenizer(fetch_base(config.base))
    return Sampler(config.metrics, open_pack(config.data).info, tokenizer)


def resume(config: RunConfig, strategy: Strategy, hooks: Hooks, commit: RunMark) -> Progress:
    """Load the newest whole checkpoint of the run, if there is one; a collective.

    `commit` is what the run's markers will say from now on.
    """

    def tell(sentence: str) -> None:
        hooks.on_event("checkpoint.skipped", {"reason": sentence})

    found = agree.newest(config.out, config.checkpoint.verify, tell)
    if found is None:
        return Progress()
    state = strategy.state()
    checkpoint.load(found, state)
    strategy.load_state(state, found.commit["updates"])
    if dist.get_rank() == 0:
        checkpoint.drop_after(config.out, found.step)
        hooks.on_event("resumed", {"step": found.step, "checkpoint": found.uri})
    dist.barrier()
    progress = Progress.of(found.commit)
    before = found.commit.get("validated_on")
    if before not in (None, commit.get("validated_on")):
        progress.forget_validations()
    return progress


@contextlib.contextmanager
def _logged(hooks: Hooks, config: RunConfig, resumed_step: int, fence: Fence) -> Iterator[Hooks]:
    """The hooks, on rank 0 with every step's record also written to the run's metrics.

    However the run ends, those of its last steps are in the file.
    """
    if dist.get_rank() != 0:
        yield hooks
        return
    log = MetricsLog(fence, resumed_step=resumed_step)
    trackers = Trackers(config, resumed_step, hooks.on_event)

    def on_step(record: StepRecord) -> None:
        log.write(record)
        trackers.write(record)
        hooks.on_step(record)

    def on_event(name: str, fields: Mapping[str, object]) -> None:
        if name == "stopped.early":
            trackers.finish()
        hooks.on_event(name, fields)

    def flush() -> None:
        log.flush()
        trackers.flush()

    try:
        yield replace(hooks, on_step=on_step, on_event=on_event, before_checkpoint=flush)
    finally:
        log.close()
        trackers.close()
