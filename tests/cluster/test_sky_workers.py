"""Managed jobs as workers: their names say where they are, and each end is told once."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files import costs
from apps.common.spot.trace import ON_DEMAND
from cluster.launch_workers import SECRETS, TASK, main
from cluster.sky_workers import SkyWorkers
from cluster.workers import Worker
from tests.cluster.fake_sky import Clock, FakeSky
from tests.cluster.test_launch_workers import answering

ZONES = ("aws/us-east-1", "gcp/us-central1")


@pytest.fixture
def sky(monkeypatch: pytest.MonkeyPatch) -> FakeSky:
    fake = FakeSky(Clock())
    monkeypatch.setitem(sys.modules, "sky", fake)
    for name in SECRETS:
        monkeypatch.setenv(name, f"value of {name}")
    return fake


def cloud_of(
    name: str = "worker",
    clock: Callable[[], float] = time.time,
    zones: tuple[str, ...] = ZONES,
) -> SkyWorkers:
    return SkyWorkers(
        task=TASK, name=name, zones=zones, envs={"POOL": "p"}, secrets=SECRETS, clock=clock,
        reporter=Reporter("json"),
    )  # fmt: skip


def shown(workers: list[Worker]) -> list[tuple[str, str, bool, bool]]:
    return [(one.name, one.place, one.has_run, one.is_taken) for one in workers]


def test_a_worker_is_a_job_bound_to_its_place_with_its_own_name_and_secrets(sky: FakeSky) -> None:
    tasks: list[dict] = []
    sky.Task.from_yaml_config = lambda config: tasks.append(config) or config
    cloud = cloud_of()
    for place in (*ZONES, ON_DEMAND, ZONES[0]):
        cloud.launch(place)
    names = ["worker-aws-us-east-1-1", "worker-gcp-us-central1-2", "worker-on-demand-3"]
    assert [job.name for job in sky.zones.jobs] == [*names, "worker-aws-us-east-1-4"]
    assert [task["resources"].get("infra") for task in tasks] == [*ZONES, None, ZONES[0]]
    assert [task["resources"]["use_spot"] for task in tasks] == [True, True, False, True]
    assert tasks[1]["envs"]["WORKER"] == names[1] and tasks[1]["envs"]["POOL"] == "p"
    assert tasks[1]["secrets"] == {name: f"value of {name}" for name in SECRETS}


def test_another_launcher_knows_them_all_by_their_names(sky: FakeSky) -> None:
    cloud_of().launch(ZONES[0])
    cloud_of("worker-of-others").launch(ZONES[0])
    cloud_of("my-worker").launch(ZONES[0])
    sky.zones.clock.sleep(60)
    again = cloud_of()
    name = "worker-aws-us-east-1-1"
    assert shown(list(again.workers())) == [(name, ZONES[0], True, False)]
    again.launch(ZONES[0])
    assert sky.zones.jobs[-1].name == "worker-aws-us-east-1-2", "a name is used once"


def test_workers_of_a_zone_that_is_no_longer_given_are_told_of_once(
    sky: FakeSky, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cloud_of()
    for zone in ZONES:
        first.launch(zone)
    cloud_of("my-worker").launch(ZONES[1])
    again = cloud_of(zones=ZONES[:1])
    assert [one.place for one in again.workers()] == [ZONES[0]] and len(again.workers()) == 1
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["event"], told["jobs"]) == ("workers.elsewhere", "worker-gcp-us-central1-2")
    assert len(sky.zones.alive) == 3, "they may be another pool's"


def test_a_job_that_was_taken_is_told_until_it_is_ended(sky: FakeSky) -> None:
    cloud = cloud_of()
    cloud.launch(ZONES[0])
    sky.zones.clock.sleep(60)
    assert not next(iter(cloud.workers())).is_taken
    sky.zones.jobs[0].status = "RECOVERING"
    (lost,) = cloud.workers()
    assert lost.is_taken and lost.has_run
    cloud.end(lost)
    assert sky.zones.jobs[0].status == "CANCELLING"
    assert cloud.workers() == [] and cloud.workers() == []


def test_machines_are_paid_from_the_start_that_came_to_their_end(sky: FakeSky) -> None:
    clock, cloud = sky.zones.clock, cloud_of()
    sky.zones.empty.add(ZONES[1])
    began_s = clock()
    for place in ZONES:
        cloud.launch(place)
    clock.sleep(600)
    first, refused = cloud.workers()
    (rented,) = cloud.rented()
    assert (rented.place, rented.begun_s, rented.ended_s) == (ZONES[0], began_s + 20, None)
    for worker in (first, refused):
        cloud.end(worker)
    clock.sleep(60)
    cloud.workers()
    (rented,) = cloud.rented()
    assert rented.ended_s == began_s + 600
    again = cloud_of()
    again.workers()
    assert again.rented() == [rented], "another launcher pays for what was before it"


def test_the_launcher_writes_what_its_workers_cost(
    sky: FakeSky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It began an hour ago, and is stopped at its fifth look."""
    clock, looks = sky.zones.clock, list[str]()
    clock.now_s = time.time() - 3660

    def before_answer(call: str) -> None:
        looks.extend([call] * (call == "queue"))
        clock.sleep(40)
        if len(looks) == 5:
            raise KeyboardInterrupt

    sky.before_answer = before_answer
    with answering(200, '{"workers": []}') as url:
        words = [url, "--zones", *ZONES, "--replicas", "2", "--look-s", "0.01"]
        paid = ["--policy", "spread", "--out", str(tmp_path), "--on-demand-usd", "3"]
        assert main([*words, *paid, "--kind", "1xL4", "--start-minutes", "600"]) == 130
    cost = costs.read(str(tmp_path))
    assert cost is not None and len(cost.machines) == 2
    assert [row.hours for row in cost.machines] == pytest.approx([1, 1], abs=0.05)
    assert cost.usd == sum(row.usd for row in cost.machines) == pytest.approx(2, abs=0.1)
    assert cost.usd_on_demand == pytest.approx(6, abs=0.3)


@pytest.mark.parametrize("status", ["FAILED_NO_RESOURCE", "FAILED_SETUP"])
def test_an_end_is_told_once_and_an_old_one_never(status: str, sky: FakeSky) -> None:
    cloud = cloud_of()
    cloud.launch(ZONES[0])
    sky.zones.jobs[0].status = status
    if status == "FAILED_SETUP":
        with pytest.raises(CriaError, match="job 1 in aws/us-east-1 is FAILED_SETUP"):
            cloud.workers()
    else:
        (refused,) = cloud.workers()
        assert refused.is_taken and not refused.has_run
        cloud.end(refused)
        assert sky.zones.jobs[0].status == status, "what has ended is not cancelled"
    assert cloud.workers() == [] and cloud_of().workers() == []


def test_a_job_that_waits_for_its_turn_is_no_older_than_our_launch(sky: FakeSky) -> None:
    clock, cloud = sky.zones.clock, cloud_of(clock=sky.zones.clock)
    launched_s, sky.zones.is_busy = clock(), True
    cloud.launch(ZONES[0])
    clock.sleep(600)
    assert [one.asked_s for one in cloud.workers()] == [launched_s]
    assert [one.asked_s for one in cloud_of(clock=clock).workers()] == [clock()]
    sky.zones.is_busy = False
    assert [one.asked_s for one in cloud.workers()] == [launched_s + 20], "SkyPilot has begun"


def test_a_worker_that_was_told_to_leave_is_nobodys_loss(sky: FakeSky) -> None:
    cloud = cloud_of()
    cloud.launch(ZONES[1])
    (one,) = cloud.workers()
    cloud.end(one)
    assert cloud.workers() == [] and sky.zones.alive == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ftp://x", "--zones", "aws/a", "--replicas", "2"], "expected http:// or https://"),
        (["http://x", "--zones", "a/b", "a/b", "--replicas", "2"], "each once"),
        (["http://x", "--zones", "a/b", "--replicas", "0"], "replicas is 0"),
        (["http://x", "--zones", "a/b", "--replicas", "2", "--policy", "y"], "policy is 'y'"),
        (["http://x", "--zones", "a/b", "--replicas", "2", "--env", "Y"], "expected NAME=VALUE"),
        (["http://x", "--zones", "a/b", "--replicas", "2", "--out", "o"], "needs both --out and"),
        (["http://127.0.0.1:9", "--zones", "a/b", "--replicas", "2"], "start the head first"),
    ],
)
def test_wrong_settings_are_a_sentence_before_the_first_machine(
    words: list[str], sentence: str, sky: FakeSky, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err and sky.zones.jobs == []


def test_a_missing_secret_is_a_sentence(
    sky: FakeSky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SECRETS[1])
    assert main(["http://x", "--zones", "a/b", "--replicas", "2"]) == 2
    assert f"needs {SECRETS[1]}" in capsys.readouterr().err


def test_an_end_that_skypilot_does_not_carry_out_is_asked_for_again(sky: FakeSky) -> None:
    cancel, sky.jobs.cancel = sky.jobs.cancel, lambda job_ids, graceful: ("cancel", lambda: None)
    cloud = cloud_of(clock=sky.zones.clock)
    cloud.launch(ZONES[0])
    (worker,) = cloud.workers()
    cloud.end(worker)
    sky.jobs.cancel = cancel
    assert list(cloud.workers()) == [] and len(sky.zones.alive) == 1, "not at every look"
    sky.zones.clock.sleep(181)
    assert list(cloud.workers()) == []
    sky.zones.look()
    assert sky.zones.alive == []
