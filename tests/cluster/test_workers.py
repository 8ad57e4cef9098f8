"""The controller of a pool's workers decides as the replay does, and is not easily fooled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from apps.common.command.events import Reporter
from apps.common.files import costs
from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import ON_DEMAND, Market
from apps.serve.spot.fleet import Fleet, Policy, Wanted
from apps.serve.spot.policies import POLICIES
from apps.serve.spot.replay import Service, replay
from cluster.controller import CloudIsAway
from cluster.worker_cost import Machine, pool_cost
from cluster.workers import Rented, Worker, WorkerController, follow

SERVICE = Service(replicas=3, cold_start_s=180, look_s=60)


@dataclass
class Noted:
    """A policy, and what it wanted at each look."""

    policy: Policy
    wanted: list[dict[str, int]] = field(default_factory=list)

    def decide(self, fleet: Fleet) -> Wanted:
        wanted = self.policy.decide(fleet)
        self.wanted.append(dict(wanted))
        return wanted


@dataclass
class TraceCloud:
    """Machines of a market; they are ready as long after their start as the service says."""

    market: Market
    now_s: float = 0.0
    alive: dict[str, Worker] = field(default_factory=dict)
    taken: list[Worker] = field(default_factory=list)
    paid: list[Rented] = field(default_factory=list)
    """machines that have ended"""
    number: int = 0

    def left(self) -> Mapping[str, int]:
        column = self.market.counts[:, int(self.now_s / self.market.tick_s)].tolist()
        return dict(zip(self.market.zones, column, strict=True))

    def of(self, place: str) -> list[Worker]:
        return [one for one in self.alive.values() if one.place == place]

    def workers(self) -> list[Worker]:
        for zone, count in self.left().items():
            there = self.of(zone)
            for one in there[: max(len(there) - count, 0)]:  # the oldest go
                self.end(one)
                self.taken.append(worker(one.name, zone, one.asked_s, is_taken=True))
        seen, self.taken = [*self.alive.values(), *self.taken], []
        return seen

    def launch(self, place: str) -> None:
        self.number += 1
        one = worker(f"w{self.number}", place, self.now_s)
        if place == ON_DEMAND or len(self.of(place)) < self.left()[place]:
            self.alive[one.name] = one
        else:
            self.taken.append(worker(one.name, place, self.now_s, has_run=False, is_taken=True))

    def end(self, worker: Worker) -> None:
        if self.alive.pop(worker.name, None):
            self.paid.append(self.bill(worker, self.now_s))

    def bill(self, one: Worker, ended_s: float | None = None) -> Rented:
        return Rented(place=one.place, begun_s=one.asked_s, ended_s=ended_s)

    def rented(self) -> list[Rented]:
        return [*self.paid, *map(self.bill, self.alive.values())]

    def up(self) -> frozenset[str]:
        since_s = self.now_s - SERVICE.cold_start_s
        return frozenset(one.name for one in self.alive.values() if one.asked_s <= since_s)


def worker(
    name: str, place: str, asked_s: float, has_run: bool = True, is_taken: bool = False
) -> Worker:
    return Worker(name=name, place=place, asked_s=asked_s, has_run=has_run, is_taken=is_taken)


def controller_of(cloud: "TraceCloud | Still", policy: Policy) -> WorkerController:
    return WorkerController(
        policy=policy, cloud=cloud, pool=cloud, replicas=SERVICE.replicas, start_s=900.0,
        sleep=lambda seconds: None,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", POLICIES)
def test_it_decides_as_the_replay_does(name: str, seed: int) -> None:
    market = generate(GeneratorConfig(zones=3, up_h=2, down_h=1, hours=30, seed=seed))
    replayed = Noted(POLICIES[name](market.zones, SERVICE))
    replay(SERVICE, market, replayed)
    live = Noted(POLICIES[name](market.zones, SERVICE))
    cloud = TraceCloud(market)
    controller = controller_of(cloud, live)
    for look in range(len(replayed.wanted)):
        cloud.now_s = look * SERVICE.look_s
        controller.step(cloud.now_s)
    assert live.wanted == replayed.wanted
    assert len(live.wanted) > 1000


@pytest.mark.parametrize("name", ["steady", "skyserve+1", "on-demand"])
def test_the_cost_is_that_of_the_replay_to_a_cent(name: str, tmp_path: Path) -> None:
    """A look of a minute costs 10 cents on demand and 5 on spot."""
    service = replace(SERVICE, spot_price=0.5)
    market = generate(GeneratorConfig(zones=3, up_h=2, down_h=1, hours=30, seed=7))
    looks = Noted(POLICIES[name](market.zones, service))
    outcome = replay(service, market, looks)
    cloud = TraceCloud(market)
    controller = controller_of(cloud, POLICIES[name](market.zones, service))
    for look in range(len(looks.wanted)):
        cloud.now_s = look * service.look_s
        controller.step(cloud.now_s)
    machine = Machine(kind="1xL4", on_demand_usd=6.0, spot_usd=3.0)
    cost = pool_cost(cloud.rented(), machine, service.replicas, outcome.hours * 3600)
    on_demand_usd = outcome.hours * service.replicas * 6.0
    assert cost.usd == pytest.approx(outcome.cost * on_demand_usd, abs=0.001)
    assert cost.usd == round(sum(row.usd for row in cost.machines), 2)
    hours = sum(row.hours for row in cost.machines)
    assert hours == pytest.approx(outcome.machine_hours, abs=0.0005)
    assert cost.usd_on_demand == pytest.approx(on_demand_usd, abs=0.005)
    costs.write(str(tmp_path), cost)
    assert costs.read(str(tmp_path)) == cost


def test_a_pool_that_was_ended_for_a_while_cost_nothing_then() -> None:
    rented = [
        Rented(place="a", begun_s=0.0, ended_s=7200.0),
        Rented(place="b", begun_s=3600.0, ended_s=10800.0),
        Rented(place="a", begun_s=36000.0),
    ]
    machine = Machine(kind="1xL4", on_demand_usd=0.9, spot_usd=0.3)
    cost = pool_cost(rented, machine, 2, 39600.0)
    assert [(row.region, row.hours, row.usd) for row in cost.machines] == [
        ("a", 3, 0.9), ("b", 2, 0.6),
    ]  # fmt: skip
    assert (cost.usd, cost.usd_on_demand) == (1.5, 2 * 4 * 0.9)
    assert pool_cost([], machine, 2, 0.0).usd_on_demand == 0


@dataclass
class Still:
    """A cloud whose workers a test writes down."""

    there: list[Worker]
    up_names: list[set[str]]
    """at each question; the last one stays"""
    launched: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def workers(self) -> list[Worker]:
        self.before()
        return self.there

    def launch(self, place: str) -> None:
        self.launched.append(place)

    def end(self, worker: Worker) -> None:
        self.ended.append(worker.name)

    def up(self) -> frozenset[str]:
        return frozenset(self.up_names.pop(0) if len(self.up_names) > 1 else self.up_names[0])


@dataclass
class Wants:
    wanted: Wanted
    seen: list[Fleet] = field(default_factory=list)

    def decide(self, fleet: Fleet) -> Wanted:
        self.seen.append(fleet)
        return self.wanted


class Away:
    def up(self) -> frozenset[str]:
        raise CloudIsAway("no answer")


def step(cloud: Still, wanted: Wanted, looks: int = 1) -> Fleet:
    controller = WorkerController(
        policy=Wants(wanted), cloud=cloud, pool=cloud, replicas=2, start_s=600,
        sleep=lambda seconds: None,
    )  # fmt: skip
    return [controller.step(1000.0) for _ in range(looks)][-1]


def test_who_answers_nobody_yet_goes_before_who_does_and_the_newest_first() -> None:
    there = [worker(f"w{i}", "a", 100.0 * i) for i in range(5)]
    cloud = Still(there, [{"w1", "w2", "w4"}])
    step(cloud, {"a": 2})
    assert cloud.ended == ["w3", "w0", "w4"] and cloud.launched == []


def test_a_start_that_never_comes_is_a_zone_without_machines() -> None:
    there = [worker("w1", "a", 300.0, has_run=False), worker("w2", ON_DEMAND, 300.0, has_run=False)]
    cloud = Still(there, [set()])
    fleet = step(cloud, {"b": 1, ON_DEMAND: 1})
    assert fleet.refused == {"a"} and not fleet.lost and fleet.starting == {ON_DEMAND: 1}
    assert cloud.ended == ["w1"] and cloud.launched == ["b"]


def test_a_machine_that_never_becomes_well_is_ended_and_its_zone_counts_as_refused() -> None:
    there = [worker("w1", "a", 0.0), worker("w2", ON_DEMAND, 0.0), worker("w3", "b", 0.0)]
    cloud = Still(there, [{"w3"}])
    policy = Wants({"a": 1, "b": 1, ON_DEMAND: 1})
    controller = controller_of(cloud, policy)
    controller.step(10_000.0)
    assert controller.step(10_900.0).starting == {"a": 1, ON_DEMAND: 1} and cloud.ended == []
    fleet = controller.step(10_901.0)
    assert (fleet.refused, fleet.lost, fleet.starting) == ({"a", ON_DEMAND}, {}, {})
    assert cloud.ended == ["w1", "w2"] and cloud.launched == ["a", ON_DEMAND]


def test_an_end_that_is_told_once_is_not_lost_while_the_gateway_is_away() -> None:
    cloud, asked = Still([], [set()]), list[str]()
    cloud.before = lambda: asked.append("cloud")
    controller = controller_of(cloud, Wants({}))
    controller.pool = Away()
    with pytest.raises(CloudIsAway):
        controller.step(0.0)
    assert asked == []


def test_what_was_taken_is_lost_and_ended() -> None:
    cloud = Still([worker("w1", "a", 0.0, is_taken=True), worker("w2", "b", 0.0)], [{"w2"}])
    fleet = step(cloud, {"b": 1})
    assert (fleet.lost, fleet.ready, fleet.refused) == ({"a": 1}, {"b": 1}, frozenset())
    assert cloud.ended == ["w1"]


def test_a_gateway_that_has_just_begun_is_asked_again() -> None:
    there = [worker("w1", "a", 0.0), worker("w2", "b", 0.0)]
    cloud = Still(there, [{"w1", "w2"}, {"w1"}, {"w2"}])
    assert step(cloud, {"a": 1, "b": 1}, looks=2).num_ready == 2


def test_a_cloud_that_is_away_is_asked_again_and_nothing_is_decided(capsys) -> None:
    cloud = Still([worker("w1", "a", 0.0)], [{"w1"}])
    looks = 0

    def before() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise CloudIsAway("no answer")
        if looks == 4:
            raise KeyboardInterrupt

    cloud.before = before
    policy = Wants({"a": 1})
    controller = WorkerController(policy=policy, cloud=cloud, pool=cloud, replicas=1, start_s=600)
    with pytest.raises(KeyboardInterrupt):
        follow(controller, Reporter("json"), 60, lambda seconds: None, lambda: 0.0)
    told = capsys.readouterr().out
    assert told.count("workers.away") == 1 and told.count("workers.seen") == 1
    assert len(policy.seen) == 2 and cloud.launched == cloud.ended == []
