"""The controller on a cloud that plays traces: the simulator's decisions, and money to a cent."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apps.common.command.events import Reporter
from apps.common.files import costs
from apps.common.files.costs import MachineHours, run_cost
from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import ON_DEMAND, Market
from apps.train.spot.job import IDLE, Job, Prices, View
from apps.train.spot.learnt import NAMES
from apps.train.spot.learnt import UNIFORM_PROGRESS as FITTED
from apps.train.spot.policy import Policy
from apps.train.spot.replay import replay
from cluster.controller import CloudIsAway, Controller, Rental, Spent, follow
from cluster.launch import policy_of

PRICES = Prices(spot_usd=6.88, on_demand_usd=12.0)
JOB = Job(work_s=8 * 3600, restart_s=660, checkpoint_s=337, flush_s=45, deadline_s=13 * 3600)


@dataclass
class FakeCloud:
    """Rents what a trace has, and trains on it: machines are taken at the next look."""

    market: Market
    job: Job
    now_s: float = 0.0
    at: str = IDLE
    since_s: float = 0.0
    saved_left_s: float = field(init=False)
    gone_s: float = 0.0

    def __post_init__(self) -> None:
        self.saved_left_s = self.job.work_s

    def up(self) -> tuple[str, ...]:
        return self.market.places[int(self.now_s / self.market.tick_s + 1e-9)]

    def _session_s(self) -> float:
        trained = self.now_s - self.since_s - self.job.restart_s
        return 0.0 if self.at == IDLE else min(max(trained, 0.0), self.saved_left_s)

    def place(self) -> str:
        if self.at not in (IDLE, ON_DEMAND, *self.up()):
            session_s = self._session_s()
            self.saved_left_s -= session_s - self.job.lost_s(session_s)
            self.gone_s += self.job.lost_s(session_s)
            self.at = IDLE
        return self.at

    def left_s(self) -> float:
        left_s = self.saved_left_s - self._session_s()
        return left_s if left_s > 1e-6 else 0.0

    def has_ended(self) -> bool:
        return self.left_s() <= 0

    def rental(self) -> tuple[str, Rental]:
        return self.at, "none" if self.at == IDLE else "rented"

    def ended_s(self) -> float | None:
        return None

    def lost_s(self) -> float:
        return self.gone_s

    def move(self, place: str) -> None:
        self.saved_left_s -= self._session_s()
        self.at, self.since_s = place, self.now_s


def noting(policy: Policy, places: list[str]) -> Policy:
    def decide(job: Job, view: View) -> str:
        places.append(policy(job, view))
        return places[-1]

    return decide


def controlled(market: Market, policy: Policy) -> tuple[Controller, list[str]]:
    """A run to its end; each look of the controller is a tick of the trace."""
    cloud, places = FakeCloud(market, JOB), list[str]()
    controller = Controller(
        job=JOB, policy=noting(policy, places), cloud=cloud, home=market.zones[0],
        tick_s=market.tick_s, spent=Spent(seen_s=0.0),
    )  # fmt: skip

    def sleep(seconds: float) -> None:
        """A job that ends in between ends then, and its machines with it."""
        begins_s = cloud.since_s + JOB.restart_s
        ends_s = max(begins_s, cloud.now_s) + cloud.left_s()
        in_between = cloud.at != IDLE and ends_s < cloud.now_s + seconds
        cloud.now_s = ends_s if in_between else cloud.now_s + seconds

    follow(controller, Reporter("json"), lambda: None, sleep, lambda: cloud.now_s)
    return controller, places


def follow_to_the_end(cloud: FakeCloud) -> Controller:
    """By the greedy policy; each look is ten minutes."""
    controller = Controller(
        job=JOB, policy=policy_of("greedy", JOB, PRICES, 600), cloud=cloud,
        home=cloud.market.zones[0], tick_s=600, spent=Spent(seen_s=0.0),
    )  # fmt: skip

    def sleep(seconds: float) -> None:
        cloud.now_s += seconds

    follow(controller, Reporter("json"), lambda: None, sleep, lambda: cloud.now_s)
    return controller


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("name", "learns"),
    [*((name, True) for name in NAMES), *((name, False) for name in NAMES if name != FITTED)],
)
def test_it_decides_as_the_simulator_does(name: str, learns: bool, seed: int, capsys) -> None:
    whole = generate(GeneratorConfig(zones=2, up_h=2, down_h=2, hours=240, seed=seed))
    history, market = whole.halves()
    known = history if learns else None
    policy, simulated = policy_of(name, JOB, PRICES, market.tick_s, known), list[str]()
    outcome = replay(JOB, market, noting(policy, simulated))
    controller, places = controlled(market, policy)
    assert places == simulated and len(places) > 40
    assert controller.cloud.lost_s() == pytest.approx(outcome.lost_s)
    paid_usd = controller.cost("8xA100-80GB", PRICES, "").usd
    assert paid_usd == pytest.approx(outcome.usd(PRICES), abs=0.02)


class ExportingCloud(FakeCloud):
    """Its jobs write the last checkpoint and export for half an hour after the last step."""

    trained_s: float | None = None

    def has_ended(self) -> bool:
        if self.left_s() > 0:
            return False
        self.trained_s = self.trained_s or self.now_s
        return self.now_s >= self.trained_s + 1800


def test_a_job_is_left_alone_while_it_exports(capsys) -> None:
    market = generate(GeneratorConfig(zones=1, up_h=200, down_h=0.1, hours=120, seed=0))
    cloud, moves = ExportingCloud(market, JOB), list[str]()
    move = cloud.move
    cloud.move = lambda place: (moves.append(place), move(place))
    follow_to_the_end(cloud)
    assert moves == [market.zones[0]]
    assert cloud.trained_s is not None and cloud.now_s >= cloud.trained_s + 1800


class LosingCloud(FakeCloud):
    """A zone counts as up until a look at the job shows that it was taken."""

    lost: bool = False

    def up(self) -> tuple[str, ...]:
        return () if self.lost else ("a",)

    def place(self) -> str:
        self.lost, self.at = True, IDLE
        return IDLE


def test_a_zone_that_was_just_lost_is_not_taken_again_at_once() -> None:
    market = generate(GeneratorConfig(zones=1, up_h=2, down_h=2, hours=120, seed=0))
    cloud = LosingCloud(market, JOB)
    cloud.at = "a"
    controller = Controller(
        job=JOB, policy=policy_of("any-zone", JOB, PRICES, 600), cloud=cloud, home="a",
        tick_s=600, spent=Spent(seen_s=0.0),
    )  # fmt: skip
    assert controller.step() == IDLE


class StartingCloud(FakeCloud):
    """What its rental is at each look is given."""

    rentals: tuple[Rental, ...] = ()

    def rental(self) -> tuple[str, Rental]:
        first, *rest = self.rentals
        self.rentals = tuple(rest)
        return "a", first


@pytest.mark.parametrize(
    ("rentals", "paid_s"),
    [
        (("starting", "starting", "rented"), {"a": 900.0}),
        (("starting", "starting", "none"), {}),
        (("starting", "none", "starting", "rented", "rented"), {"a": 900.0}),
    ],
)
def test_only_machines_that_came_are_paid(
    rentals: tuple[Rental, ...], paid_s: dict[str, float]
) -> None:
    market = generate(GeneratorConfig(zones=1, up_h=2, down_h=2, hours=120, seed=0))
    cloud = StartingCloud(market, JOB)
    cloud.rentals = rentals
    controller = Controller(
        job=JOB, policy=policy_of("any-zone", JOB, PRICES, 600), cloud=cloud, home="a",
        tick_s=300, spent=Spent(seen_s=0.0),
    )  # fmt: skip
    for number in range(len(rentals)):
        controller.passed(300.0 * (number + 1))
    assert controller.spent.paid_s == paid_s
    assert controller.spent.elapsed_s == 300.0 * len(rentals)


class AwayCloud(FakeCloud):
    """Cannot be asked between two times."""

    away_s: tuple[float, float] = (0.0, 0.0)

    def place(self) -> str:
        if self.away_s[0] <= self.now_s < self.away_s[1]:
            raise CloudIsAway("no answer")
        return super().place()


def test_a_cloud_that_does_not_answer_is_asked_again(capsys) -> None:
    market = generate(GeneratorConfig(zones=1, up_h=200, down_h=0.1, hours=120, seed=0))
    cloud = AwayCloud(market, JOB)
    cloud.away_s = (3 * 3600.0, 5 * 3600.0)
    controller = follow_to_the_end(cloud)
    assert capsys.readouterr().out.count("launch.away") == 12
    assert sum(controller.spent.paid_s.values()) == cloud.now_s


@pytest.mark.parametrize("seed", range(20))
def test_the_numbers_add_up_to_a_cent(seed: int, tmp_path: Path, capsys) -> None:
    market = generate(GeneratorConfig(zones=3, up_h=1.5, down_h=2, hours=120, seed=seed))
    controller, _ = controlled(market, policy_of("uniform-progress-2024", JOB, PRICES, 600))
    cost = controller.cost("8xA100-80GB", PRICES, "seen 2026-01")
    costs.write(str(tmp_path), cost)
    again = costs.read(str(tmp_path))
    assert again == cost
    cents = [round(row.usd * 100) for row in cost.machines]
    assert [row.usd for row in cost.machines] == [number / 100 for number in cents]
    assert cost.usd == sum(cents) / 100
    for row in cost.machines:
        hourly = 12.0 if row.market == "on-demand" else 6.88
        assert row.usd == pytest.approx(row.hours * hourly, abs=0.006)
    hours = sum(row.hours for row in cost.machines)
    assert cost.usd_on_demand == pytest.approx((hours - cost.lost_work_hours) * 12, abs=0.006)
    assert (costs.facts(str(tmp_path)) or {})["usd"] == cost.usd


def test_a_worked_example_of_a_cost() -> None:
    row = MachineHours(kind="8xA100-80GB", region="z", market="spot", hours=10, usd=68.8)
    cost = run_cost([row], lost_work_hours=1, on_demand_usd_per_hour=12, prices_dated="")
    assert (cost.usd, cost.lost_work_usd, cost.usd_on_demand) == (68.8, 6.88, 108)
    assert run_cost([], lost_work_hours=0, on_demand_usd_per_hour=12, prices_dated="").usd == 0


class HalfMovedCloud(FakeCloud):
    """Moves, and is away before it could say so."""

    def move(self, place: str) -> None:
        super().move(place)
        raise CloudIsAway("no answer")


def test_machines_are_paid_where_they_are_even_when_the_move_had_no_answer(capsys) -> None:
    market = generate(GeneratorConfig(zones=1, up_h=200, down_h=0.1, hours=120, seed=0))
    cloud = HalfMovedCloud(market, JOB)
    controller = follow_to_the_end(cloud)
    assert controller.spent.paid_s == {market.zones[0]: cloud.now_s}
