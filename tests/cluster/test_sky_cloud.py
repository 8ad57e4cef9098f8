"""Managed jobs as a cloud: what each of SkyPilot's words means; no two jobs run at once."""

import json
import sys
from pathlib import Path

import pytest
import requests

from apps.common.errors import CriaError, InputError
from apps.common.files import storage
from apps.common.files.schema import checkpoint_name
from apps.common.spot.trace import ON_DEMAND
from apps.train.spot.job import IDLE
from cluster.controller import CloudIsAway
from cluster.sky_cloud import Held, SkyCloud
from cluster.sky_jobs import machines_of, task_config
from tests.cluster.fake_sky import Clock, FakeJob, FakeSky

TASK = Path(__file__).resolve().parents[2] / "cluster/train.yaml"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sky(clock: Clock, monkeypatch) -> FakeSky:
    fake = FakeSky(clock)
    monkeypatch.setitem(sys.modules, "sky", fake)
    return fake


def cloud_of(tmp_path: Path, clock: Clock, held: Held | None = None) -> SkyCloud:
    return SkyCloud(
        task=TASK, name="run", out=str(tmp_path), work_s=1000.0, zones=("aws/a", "gcp/b"),
        envs={}, secrets=(), machines=machines_of(8, "A100-80GB", 1), retry_s=900.0, start_s=600.0,
        held=held or Held(), save=lambda: None, clock=clock, sleep=clock.sleep,
    )  # fmt: skip


def test_a_task_is_bound_to_one_zone_and_market() -> None:
    there = task_config(TASK, "gcp/us-central1/us-central1-a", {"RUN": "vicuna"})
    dear = task_config(TASK, ON_DEMAND, {})
    assert isinstance(there["resources"], dict)
    recovery = there["resources"].pop("job_recovery")
    assert there["resources"] == {
        "infra": "gcp/us-central1/us-central1-a", "use_spot": True, "disk_size": 512,
        "accelerators": {"A100-80GB": 8, "H100": 8}, "max_hourly_cost": 60,
    }  # fmt: skip
    assert recovery["recover_on_exit_codes"] == [75]
    assert isinstance(there["envs"], dict) and there["envs"]["RUN"] == "vicuna"
    assert isinstance(dear["resources"], dict) and dear["resources"]["use_spot"] is False
    assert dear["resources"]["job_recovery"] == recovery


def test_a_job_that_skypilot_recovers_was_taken(tmp_path: Path, sky: FakeSky, clock: Clock) -> None:
    """Of 100 steps 40 were taken and 30 are saved: a tenth of the work is lost."""
    cloud = cloud_of(tmp_path, clock)
    assert (cloud.place(), cloud.left_s(), cloud.up()) == (IDLE, 1000.0, ("aws/a", "gcp/b"))
    cloud.move("aws/a")
    clock.sleep(300)
    record = {"step": 40, "num_steps": 100, "seconds": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    storage.commit(str(tmp_path / "checkpoints" / checkpoint_name(30)), {"step": 30})
    assert (cloud.place(), cloud.left_s()) == ("aws/a", pytest.approx(600))
    assert cloud.rental() == ("aws/a", "rented")
    sky.zones.jobs[0].status = "RECOVERING"
    assert (cloud.place(), cloud.left_s()) == (IDLE, pytest.approx(700))
    assert (cloud.up(), cloud.lost_s()) == (("gcp/b",), pytest.approx(100))
    assert [job.status for job in sky.zones.jobs] == ["CANCELLED"]
    clock.sleep(900)
    assert cloud.up() == ("aws/a", "gcp/b")


def test_what_was_lost_is_lost_once(tmp_path: Path, sky: FakeSky, clock: Clock) -> None:
    """The lost steps stay the newest of the record until the next attempt takes one."""
    record = {"step": 40, "num_steps": 100, "seconds": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    storage.commit(str(tmp_path / "checkpoints" / checkpoint_name(30)), {"step": 30})
    cloud = cloud_of(tmp_path, clock)
    for zone in ("aws/a", "gcp/b"):
        cloud.move(zone)
        sky.zones.jobs[-1].status = "FAILED_NO_RESOURCE" if zone == "gcp/b" else "RECOVERING"
        assert (cloud.place(), cloud.lost_s()) == (IDLE, pytest.approx(100))
    clock.sleep(900)
    cloud.move("aws/a")
    assert cloud.left_s() == pytest.approx(700)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**record, "seconds": 2.0}) + "\n")
    assert cloud.left_s() == pytest.approx(600)


def test_other_regions_come_before_another_zone_of_the_one_that_took_the_job(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cloud = cloud_of(tmp_path, clock)
    cloud.zones = ("aws/us-east-1/a", "aws/us-east-1/b", "aws/us-west-2/a")
    cloud.move("aws/us-east-1/a")
    sky.zones.jobs[0].status = "RECOVERING"
    assert cloud.place() == IDLE
    assert cloud.up() == ("aws/us-west-2/a", "aws/us-east-1/b")
    clock.sleep(900)
    assert cloud.up() == cloud.zones


@pytest.mark.parametrize("status", ["PENDING", "STARTING"])
def test_a_start_that_takes_too_long_closes_its_zone(
    status: str, tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    sky.zones.empty = {"aws/a"}
    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")
    sky.zones.is_busy = status == "PENDING"
    clock.sleep(600)
    assert cloud.place() == "aws/a"
    assert cloud.rental() == ("aws/a", "starting" if status == "STARTING" else "none")
    clock.sleep(1)
    assert (cloud.place(), cloud.up(), cloud.lost_s()) == (IDLE, ("gcp/b",), 0.0)
    assert sky.zones.alive == []


def test_on_demand_skypilot_may_look_for_as_long_as_it_takes(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    sky.zones.empty = {ON_DEMAND}
    cloud = cloud_of(tmp_path, clock)
    cloud.move(ON_DEMAND)
    clock.sleep(36_000)
    assert cloud.place() == ON_DEMAND


def test_a_zone_without_resources_is_left(tmp_path: Path, sky: FakeSky, clock: Clock) -> None:
    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")
    sky.zones.jobs[0].status = "FAILED_NO_RESOURCE"
    assert (cloud.place(), cloud.up(), cloud.rental()) == (IDLE, ("gcp/b",), (IDLE, "none"))


@pytest.mark.parametrize(
    ("status", "reason", "exit_code"),
    [
        ("FAILED", "Job exited with exit code 2 (user program failure). To see the details", 2),
        ("FAILED", "Job exited with exit codes [0, 2] (user program failure)", 2),
        ("FAILED", "Job exited with exit code 1 (user program failure)", 1),
        ("FAILED", "", 1),
        ("FAILED_SETUP", "Job exited with exit code 1", 1),
        ("FAILED_PRECHECKS", "No launchable resource found", 2),
        ("FAILED_CONTROLLER", "Unexpected error", 1),
        ("CANCELLED", "", 1),
    ],
)
def test_a_job_that_failed_by_itself_ends_the_launch_in_a_sentence(
    status: str, reason: str, exit_code: int, tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")
    sky.zones.jobs[0].status, sky.zones.jobs[0].failure_reason = status, reason
    with pytest.raises(CriaError, match=f"job 1 in aws/a is {status}: .* not started") as raised:
        cloud.place()
    assert raised.value.exit_code == exit_code
    assert isinstance(raised.value, InputError) is (exit_code == 2)
    assert len(sky.zones.jobs) == 1 and cloud.held == Held(asked_s=cloud.held.asked_s)


def test_the_next_job_begins_when_the_last_has_ended(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    alive = list[int]()

    def before_answer(call: str) -> None:
        if call == "launch":
            alive.append(len(sky.zones.alive))

    sky.before_answer = before_answer
    cloud = cloud_of(tmp_path, clock)
    for place in ("aws/a", "gcp/b", ON_DEMAND):
        cloud.move(place)
    assert alive == [1, 1, 1]


def test_an_answer_that_does_not_come_is_no_lost_machine(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")

    def away(call: str) -> None:
        raise ConnectionError("refused")

    sky.before_answer = away
    with pytest.raises(CloudIsAway, match="SkyPilot cannot be asked now: refused"):
        cloud.place()
    sky.before_answer = lambda call: None
    assert cloud.place() == "aws/a" and len(sky.zones.jobs) == 1


def test_a_job_that_skypilot_does_not_know_is_a_sentence(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cloud = cloud_of(tmp_path, clock, Held(job_id=7, place="aws/a"))
    with pytest.raises(CriaError, match="knows no managed job 7"):
        cloud.place()


def stopped_while_it_launched(sky: FakeSky, tmp_path: Path, clock: Clock) -> SkyCloud:
    """The launcher that comes after one that was killed while SkyPilot had the request."""

    def stop(call: str) -> None:
        if call == "launch":
            raise KeyboardInterrupt

    sky.before_answer = stop
    cloud = cloud_of(tmp_path, clock)
    with pytest.raises(KeyboardInterrupt):
        cloud.move("aws/a")
    sky.before_answer = lambda call: None
    return cloud_of(tmp_path, clock, cloud.held)


def test_a_launcher_that_stopped_while_it_launched_finds_its_job(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    """The job was submitted, and its number never arrived."""
    again = stopped_while_it_launched(sky, tmp_path, clock)
    assert (again.place(), again.held.job_id) == ("aws/a", 1)


def test_a_launch_that_never_arrived_is_forgotten(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cloud = cloud_of(tmp_path, clock, Held(place="aws/a"))
    assert (cloud.place(), cloud.up()) == (IDLE, ("aws/a", "gcp/b"))


def test_a_launcher_that_stopped_while_it_left_goes_on_leaving(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    """Our own cancelling is not somebody else's."""

    def stop(call: str) -> None:
        if call == "cancel":
            raise KeyboardInterrupt

    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")
    sky.before_answer = stop
    with pytest.raises(KeyboardInterrupt):
        cloud.move("gcp/b")
    again = cloud_of(tmp_path, clock, cloud.held)
    assert again.place() == IDLE and sky.zones.alive == []


def lost_answer(sky: FakeSky, tmp_path: Path, clock: Clock) -> tuple[SkyCloud, list[FakeJob]]:
    """The next launcher, and the jobs that SkyPilot does not list yet."""
    again = stopped_while_it_launched(sky, tmp_path, clock)
    unlisted, sky.zones.jobs = sky.zones.jobs, []
    return again, unlisted


def test_a_launch_that_is_not_listed_yet_is_waited_for(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    again, unlisted = lost_answer(sky, tmp_path, clock)
    clock.sleep(5)
    assert (again.place(), again.rental()) == ("aws/a", ("aws/a", "none"))
    with pytest.raises(CloudIsAway, match="does not list"):
        again.move("gcp/b")
    sky.zones.jobs = unlisted
    clock.sleep(20)
    assert (again.place(), again.held.job_id) == ("aws/a", 1)
    again.move("gcp/b")
    assert len(sky.zones.alive) == 1


def test_a_launch_that_is_never_listed_is_forgotten_after_minutes(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    again, _ = lost_answer(sky, tmp_path, clock)
    clock.sleep(301)
    assert again.place() == IDLE
    again.move("gcp/b")
    assert len(sky.zones.alive) == 1


def test_another_launch_of_the_same_name_is_left_alone(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    """Two runs in two buckets, whose folders have one name."""
    cloud_of(tmp_path, clock).move("aws/a")
    again, unlisted = lost_answer(sky, tmp_path, clock)
    sky.zones.jobs = unlisted[:1]
    clock.sleep(301)
    assert again.place() == IDLE
    assert unlisted[0].name != unlisted[1].name and unlisted[0] in sky.zones.alive


def test_a_cancel_that_is_not_carried_out_is_asked_for_again_and_does_not_hang(
    tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cancel, asked = sky.jobs.cancel, list[float]()

    def ignored(job_ids: list[int], graceful: bool) -> object:
        asked.append(clock())
        return "cancel", lambda: None

    sky.jobs.cancel = ignored
    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")
    with pytest.raises(CloudIsAway, match="does not end managed job 1"):
        cloud.move("gcp/b")
    assert len(asked) == 4 and cloud.held.is_leaving
    sky.jobs.cancel = cancel
    assert cloud.place() == IDLE and sky.zones.alive == []


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError("503"),
        ChildProcessError("interrupted"),
        BrokenPipeError("cancelled"),
        requests.ConnectionError("refused"),
        requests.ReadTimeout("slow"),
        RuntimeError("Failed to get request abc: 502 Bad Gateway"),
    ],
)
def test_a_server_that_starts_again_is_asked_at_the_next_look(
    error: Exception, tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    cloud = cloud_of(tmp_path, clock)
    cloud.move("aws/a")

    def away(call: str) -> None:
        raise error

    sky.before_answer = away
    with pytest.raises(CloudIsAway):
        cloud.place()
    sky.before_answer = lambda call: None
    assert cloud.place() == "aws/a"


@pytest.mark.parametrize(
    "error", [RuntimeError("the task has no name"), FileNotFoundError(2, "No such file", "workdir")]
)
def test_a_failure_of_another_kind_is_not_taken_for_an_absence(
    error: Exception, tmp_path: Path, sky: FakeSky, clock: Clock
) -> None:
    def wrong(call: str) -> None:
        raise error

    sky.before_answer = wrong
    with pytest.raises(type(error), match=r"no name|No such file"):
        cloud_of(tmp_path, clock).move("aws/a")
