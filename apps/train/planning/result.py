"""What `apps.train plan` finds out, block by block; plan.json is this as JSON."""

from dataclasses import dataclass

from apps.train.checkpoint import cadence
from apps.train.planning import memory, network, prices


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """What it runs on."""

    num_gpus: int
    accelerator: str
    price: prices.Price | None
    """None: nobody says what it costs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Memory of one GPU, in bytes."""

    parts: memory.Memory
    total_bytes: float
    available_bytes: int
    fits: bool
    remedies: tuple["Remedy", ...]
    """Combinations that make it fit, mildest first; empty when it fits, or nothing helps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """Switches that make a run fit, and what it then takes."""

    switches: dict[str, str]
    hours: float
    usd: float | None
    """Training alone; None without a price."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizing:
    """How far the recipe spreads."""

    most_gpus: int
    """Most of these GPUs that cost at most SPREAD_COST times the GPU-hours of the fewest."""
    hours: float
    """Training on so many."""
    whole_batch_rows: int | None
    """Next batch that leaves no slot empty on the machines asked for; None: none is empty."""
    whole_batch_hours: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What is trained on, over all epochs unless the name says otherwise."""

    epochs: float
    epoch_tokens: int
    epoch_rows: int
    row_tokens: int
    fill: float
    tokens: float
    steps: int
    global_batch_rows: int
    micro_batch_rows: int
    accumulation: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Training alone, no preemption."""

    mfu: float | None
    tokens_per_s_per_gpu: float
    """Real tokens, padding not counted."""
    step_s: float
    """The longer of computing and of moving weights and gradients, and host_update_s."""
    exchange_s: float
    """What gathers and reductions of a step take."""
    host_copies_s: float
    """With cpu_offload, what their copies between host and card take; 0 without."""
    host_update_s: float
    """With cpu_offload, what the update on the CPUs takes."""
    network: network.Network
    empty_rows: int
    """Slots for rows that a step computes without a row in them."""
    hours: float
    gpu_hours: float
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoints:
    """What a checkpoint is and costs."""

    size_bytes: float
    """Whole state over all ranks: fp32 weights and the moments."""
    stall_s: float
    """Training stands still for each."""
    flush_s: float
    """Background write after that."""
    interval_s: float
    overhead: float
    """Share of time lost to stalls and repeated work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preemptions:
    """What losing the machines costs."""

    mtbf_h: float
    """Mean time between preemptions, hours."""
    expected: float | None
    """Number over the whole run; null when it would never end."""
    lost_work: cadence.LostWork
    restart_s: float
    """New machines, and reading the checkpoint."""
    notice_s: float
    hours: float | None
    """Wall clock of the run with them, expected; null when it would never end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Hours without spot machines, by availability traces; apart from every other hour. None where
    so many of the runs do not end within their trace."""

    hours_p50: float | None
    hours_p90: float | None
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """US dollars; None where the run does not fit, or nobody says a price."""

    training_usd: float | None
    expected_usd: float | None
    """With preemptions and restarts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything a run will need."""

    model: str
    parameters: int
    trained_parameters: int
    machines: Machines
    memory: Fit
    data: Data
    training: Training
    sizing: Sizing | None
    """None: on CPUs, or where the recipe fits on no number of these GPUs."""
    checkpoints: Checkpoints
    preemptions: Preemptions
    waiting: Waiting | None
    """None: no trace was given, or none is long enough."""
    cost: Cost
