"""What `apps.train simulate` finds out; simulation.json is this as JSON."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """One policy over many starts. Infinite: the trace ended before so many jobs."""

    policy: str
    runs: int
    hours_p50: float
    hours_p90: float
    usd_mean: float
    usd_p50: float
    usd_p90: float
    waiting_h_p50: float
    """On no machine."""
    waiting_h_p90: float
    preemptions: float
    """A run, on average."""
    on_demand_share: float
    """Of the paid hours."""
    lost_work_h: float
    """A run, on average."""
    missed: float
    """Share of runs that did not keep the deadline."""
    predicted_hours_p50: float
    """From the first half of the traces, which the other figures have not seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """Who knows the future pays this; infinite where no schedule ends."""

    usd_mean: float
    usd_p50: float
    usd_p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """One market, or all of them together."""

    market: str
    zones: int
    hours: float
    """Length of the half that is replayed."""
    availability: float
    policies: tuple[Figures, ...]
    optimum: Optimum


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulation:
    """What was asked, and what came of it."""

    machines: str
    work_h: float
    """Training, with the stalls of its checkpoints."""
    restart_s: float
    checkpoint_s: float
    deadline_h: float | None
    spot_usd_per_hour: float
    """All machines together."""
    on_demand_usd_per_hour: float
    on_demand_usd: float
    """The whole job on demand."""
    markets: tuple[Simulated, ...]
    together: Simulated
    """Every run of every market."""
    too_short: tuple[str, ...]
    """Markets whose halves do not hold one run."""
