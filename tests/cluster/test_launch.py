"""`python -m cluster.launch` as it is typed, on a made-up SkyPilot whose jobs really save steps."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, InputError
from apps.common.files import config as configs
from apps.common.files import costs, storage
from apps.common.files.lock import alone_in
from apps.common.files.schema import checkpoint_name
from apps.common.spot import trace
from apps.common.spot.generator import GeneratorConfig, generate
from apps.common.spot.trace import ON_DEMAND
from apps.train.__main__ import COMMANDS
from apps.train.config import LoraConfig, OptimConfig, RunConfig
from apps.train.plan import PLAN_NAME, make_plan, presets
from apps.train.planning.result import Plan
from apps.train.spot.planned import job_of
from apps.train.unread import check_read
from cluster.launch import STATE_NAME, LaunchConfig, main, read_state, run_launch, settings_of
from tests.cluster.fake_sky import Clock, FakeJob, FakeSky

NUM_STEPS = 100
CHECKPOINT_STEPS = 10


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(presets()["vicuna-7b"]())


class Trainer:
    """What the machines of the present job do: a step at a time, saved every ten."""

    def __init__(self, sky: FakeSky, out: Path, work_s: float) -> None:
        self.sky, self.out, self.work_s = sky, out, work_s
        self.began_at: dict[int, int] = {}
        self.saved = 0

    def look(self) -> None:
        self.sky.zones.look()
        for job in self.sky.zones.alive:
            if job.status == "RUNNING":
                self.train(job)

    def train(self, job: FakeJob) -> None:
        assert job.start_at is not None
        with alone_in(str(self.out)):  # as the run on this machine would be
            pass
        began_at = self.began_at.setdefault(job.number, self.saved)
        trained_s = self.sky.zones.clock() - job.start_at
        step = min(began_at + int(NUM_STEPS * trained_s / self.work_s), NUM_STEPS)
        if step > began_at:
            with (self.out / "metrics.jsonl").open("a") as file:
                record = {"step": step, "num_steps": NUM_STEPS, "seconds": self.sky.zones.clock()}
                file.write(json.dumps(record) + "\n")
        while self.saved + CHECKPOINT_STEPS <= step:
            self.saved += CHECKPOINT_STEPS
            name = checkpoint_name(self.saved)
            storage.commit(str(self.out / "checkpoints" / name), {"step": self.saved})
        if step == NUM_STEPS:
            job.status, job.end_at = "SUCCEEDED", self.sky.zones.clock()


class Launch:
    """One launch in a folder, with everything it talks to."""

    def __init__(self, tmp_path: Path, plan: Plan, sky: FakeSky) -> None:
        self.sky, self.clock, self.out = sky, sky.zones.clock, tmp_path / "run"
        self.work_s = job_of(plan.training, plan.checkpoints, plan.preemptions, None).work_s
        trainer = Trainer(sky, self.out, self.work_s)
        self.out.mkdir()
        configs.write_json(plan, str(tmp_path / "plan" / PLAN_NAME))
        configs.write_resolved(presets()["vicuna-7b"](), str(tmp_path / "plan"))
        self.config = LaunchConfig(
            plan=str(tmp_path / "plan"), zones=("aws/a", "gcp/b"), out=str(self.out),
            policy="greedy", deadline_h=2 * self.work_s / 3600,
        )  # fmt: skip
        sky.before_answer = lambda call: trainer.look()

    def run(self, config: LaunchConfig | None = None) -> None:
        run_launch(config or self.config, Reporter("json"), self.clock.sleep, self.clock)

    @property
    def places(self) -> list[str]:
        return [job.place for job in self.sky.zones.jobs]

    def hours(self) -> dict[str, float]:
        cost = costs.read(str(self.out))
        assert cost is not None
        return {row.region: row.hours for row in cost.machines}


@pytest.fixture
def launch(tmp_path: Path, plan: Plan, monkeypatch) -> Launch:
    sky = FakeSky(Clock())
    monkeypatch.setitem(sys.modules, "sky", sky)
    return Launch(tmp_path, plan, sky)


def test_a_zone_that_never_starts_costs_nothing_and_the_next_is_taken(
    launch: Launch, capsys
) -> None:
    launch.sky.zones.empty = {"aws/a"}
    launch.run()
    assert launch.places == ["aws/a", "gcp/b"]
    assert list(launch.hours()) == ["gcp/b"]
    assert launch.hours()["gcp/b"] == pytest.approx(launch.work_s / 3600, abs=0.2)


def test_the_deadline_holds_where_no_zone_ever_starts(launch: Launch, capsys) -> None:
    launch.sky.zones.empty = {"aws/a", "gcp/b"}
    began_s = launch.clock()
    launch.run()
    assert launch.places[-1] == ON_DEMAND and launch.places.count(ON_DEMAND) == 1
    assert list(launch.hours()) == ["any"]
    assert launch.config.deadline_h is not None
    assert launch.clock() - began_s <= launch.config.deadline_h * 3600


def test_bad_input_is_never_started_again(launch: Launch, capsys) -> None:
    zones = launch.sky.zones

    def refuse(call: str) -> None:
        zones.look()
        for job in zones.alive:
            job.status, job.start_at = "FAILED", zones.clock()
            job.failure_reason = "Job exited with exit code 2 (user program failure)."

    launch.sky.before_answer = refuse
    with pytest.raises(InputError, match="exit code 2"):
        launch.run()
    assert launch.places == ["aws/a"]


def stopped(launch: Launch, at_s: float, config: LaunchConfig | None = None) -> None:
    """The launcher is killed at the first call after so many seconds."""
    look, kill_s = launch.sky.before_answer, launch.clock() + at_s

    def stop(call: str) -> None:
        look(call)
        if launch.clock() >= kill_s:
            raise KeyboardInterrupt

    launch.sky.before_answer = stop
    with pytest.raises(KeyboardInterrupt):
        launch.run(config)
    launch.sky.before_answer = look


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("away_s", [0.0, 3600.0])
def test_a_launcher_that_is_started_again_takes_up_the_same_job(
    share: float, away_s: float, launch: Launch, capsys
) -> None:
    began_s = launch.clock()
    stopped(launch, share * launch.work_s)
    launch.clock.sleep(away_s)
    launch.run()
    assert launch.places == ["aws/a"]
    elapsed_h = (launch.clock() - began_s) / 3600
    assert launch.hours()["aws/a"] == pytest.approx(elapsed_h, abs=0.1)
    state = read_state(str(launch.out))
    assert state is not None and state.spent.elapsed_s == launch.clock() - began_s


def test_money_that_was_spent_before_a_restart_is_not_forgotten(launch: Launch, capsys) -> None:
    stopped(launch, 0.5 * launch.work_s)
    launch.sky.zones.jobs[0].status = "RECOVERING"
    launch.run()
    assert launch.places == ["aws/a", "gcp/b"]
    assert launch.hours()["aws/a"] == pytest.approx(0.5 * launch.work_s / 3600, abs=0.2)
    assert launch.hours()["gcp/b"] >= 0.4 * launch.work_s / 3600


def test_a_launcher_without_the_secret_leaves_the_job_alone(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    config = replace(launch.config, secret=("HF_TOKEN",))
    monkeypatch.setenv("HF_TOKEN", "hf")
    stopped(launch, 0.5 * launch.work_s, config)
    monkeypatch.delenv("HF_TOKEN")
    launch.sky.zones.jobs[0].status = "RECOVERING"
    with pytest.raises(ConfigError, match="needs HF_TOKEN"):
        launch.run(config)
    assert launch.sky.zones.jobs[0].status == "RECOVERING"


def test_a_launch_that_has_ended_starts_nothing_more(launch: Launch, capsys) -> None:
    launch.run()
    cost = costs.read(str(launch.out))
    launch.clock.sleep(86_400)
    launch.run()
    assert len(launch.places) == 1 and costs.read(str(launch.out)) == cost


@pytest.mark.parametrize(
    ("gpus", "num_nodes", "accelerators"),
    [("8xA100-80GB", 1, {"A100-80GB": 8}), ("16xH100", 2, {"H100": 8})],
)
def test_the_machines_are_those_of_the_plan_whose_price_is_counted(
    gpus: str, num_nodes: int, accelerators: dict[str, int], launch: Launch, capsys
) -> None:
    """The task file takes eight A100s or H100s, whichever there are."""
    configs.write_json(
        make_plan(replace(presets()["vicuna-7b"](), gpus=gpus)),
        storage.join(launch.config.plan, PLAN_NAME),
    )
    launch.run()
    (task,) = launch.sky.zones.tasks
    assert task["num_nodes"] == num_nodes
    assert task["resources"]["accelerators"] == accelerators
    cost = costs.read(str(launch.out))
    assert cost is not None and {row.kind for row in cost.machines} == {gpus}


def test_the_run_has_the_settings_of_the_plan(launch: Launch, tmp_path: Path, capsys) -> None:
    """Else the plan's hours and dollars would be another run's."""
    planned = replace(presets()["vicuna-13b"](), epochs=0.5, optim=OptimConfig(lr=3e-6))
    configs.write_resolved(planned, launch.config.plan)
    launch.run()
    (task,) = launch.sky.zones.tasks
    settings = tmp_path / "settings.yaml"
    settings.write_text(task["envs"]["SETTINGS"])
    ran: list[RunConfig] = []
    command = replace(COMMANDS["run"], run=lambda config, _: ran.append(config))
    words = ["--preset", "debug", "--config", str(settings), "--base", "b", "--data", "d"]
    assert cli.run_single("run", command, [*words, "--out", "o"]) == 0
    same = {field.name: getattr(planned, field.name) for field in fields(RunConfig)}
    assert ran == [RunConfig(**{**same, "base": "b", "data": "d", "out": "o"})]


def test_an_adapter_that_a_plan_only_proposes_is_none_of_the_runs_settings(launch: Launch) -> None:
    """The run would be refused for it, on machines that are paid for."""
    for adapter, rank in (("none", LoraConfig().rank), ("lora", 4)):
        planned = replace(presets()["vicuna-7b"](), adapter=adapter, lora=LoraConfig(rank=4))
        configs.write_resolved(planned, launch.config.plan)
        values = {**json.loads(settings_of(launch.config.plan)), "base": "b", "data": "d"}
        check_read(configs.from_dict(RunConfig, {**values, "out": "o"}))
        assert values["lora"]["rank"] == rank


def test_a_task_that_does_not_take_the_settings_of_the_plan_is_said_to_have_its_own(
    launch: Launch, tmp_path: Path, capsys
) -> None:
    task = tmp_path / "own.yaml"
    task.write_text("{resources: {accelerators: A100}, envs: {PRESET: debug}, run: echo}")
    launch.run(replace(launch.config, task=task, env=("PRESET=vicuna-13b",)))
    assert "no SETTINGS under envs: its run has its own settings" in capsys.readouterr().out
    assert launch.sky.zones.tasks[0]["envs"]["PRESET"] == "vicuna-13b"


def test_a_fitted_policy_runs_by_the_trace_that_it_was_fitted_to(
    launch: Launch, tmp_path: Path, capsys
) -> None:
    trace.write(generate(GeneratorConfig(zones=2, hours=200)), str(tmp_path / "traces/ours"))
    fitted = replace(launch.config, policy="uniform-progress", trace=str(tmp_path / "traces"))
    launch.run(fitted)
    assert launch.places == ["aws/a"]
    trace.write(generate(GeneratorConfig(zones=2, hours=200)), str(tmp_path / "traces/theirs"))
    with pytest.raises(ConfigError, match="holds 2 collections"):
        launch.run(fitted)
    trace.write(generate(GeneratorConfig(zones=2, hours=2)), str(tmp_path / "short"))
    with pytest.raises(ConfigError, match="2 h long, too short"):
        launch.run(replace(fitted, trace=str(tmp_path / "short")))


def test_the_users_own_price_table_is_taken(launch: Launch, tmp_path: Path, plan, capsys) -> None:
    table = tmp_path / "prices.yaml"
    kind = plan.machines.accelerator
    table.write_text(f"usd_per_gpu_hour: {{{kind}: {{on-demand: {{usd: 3.25, source: ours}}}}}}\n")
    launch.run(replace(launch.config, prices=str(table)))
    cost = costs.read(str(launch.out))
    assert cost is not None and cost.prices_dated.endswith("on demand: ours")
    hours = sum(row.hours for row in cost.machines) - cost.lost_work_hours
    assert cost.usd_on_demand == pytest.approx(hours * 3.25 * plan.machines.num_gpus, abs=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--env", "BUCKET"], "--env is 'BUCKET'; expected NAME=VALUE"),
        (["--env", "PRESET=debug"], "--env PRESET is not read where the plan has the run's"),
        (["--env", "BUCKET=s3://other"], "written to s3://other/runs/run, where nobody would look"),
        (["--policy", "hope"], "--policy is 'hope'; expected one of"),
        (["--policy", "uniform-progress"], "fits its line to a trace; give --trace FOLDER"),
        (["--trace", "/nowhere"], "--trace /nowhere holds no traces"),
        (["--task", "/nowhere.yaml"], "/nowhere.yaml does not exist"),
        (["--task", "LICENSE"], "LICENSE"),
        (["--start-minutes", "0"], "start_minutes is 0.0; expected more than 0"),
        (["--deadline-h", "0.1"], "The deadline is 0.1 h"),
        (["--plan", "/nowhere"], "--plan /nowhere has no plan.json; `python -m apps.train plan"),
        (["--on-demand-price", "blog-1999"], "blog-1999"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_machine(
    options: list[str], sentence: str, launch: Launch, capsys
) -> None:
    config = launch.config
    given = ["--plan", config.plan, "--zones", *config.zones, "--out", config.out, *options]
    assert main(given) == 2
    assert sentence in capsys.readouterr().err
    assert launch.places == [] and not list(launch.out.iterdir())


def test_a_task_that_skypilot_refuses_is_refused_before_anything_is_written(
    launch: Launch, capsys
) -> None:
    def refuse(config: object) -> None:
        raise ValueError("Environment variable BASE is None.")

    launch.sky.Task.from_yaml_config = refuse
    config = launch.config
    assert main(["--plan", config.plan, "--zones", *config.zones, "--out", config.out]) == 2
    assert "refuses the task file: Environment variable BASE" in capsys.readouterr().err
    assert launch.places == [] and not list(launch.out.iterdir())


def test_a_second_launcher_asks_for_no_machines(launch: Launch, capsys) -> None:
    """Each would start a job, and two jobs would write to one run."""
    config = launch.config
    with alone_in(storage.join(config.out, STATE_NAME)):
        assert main(["--plan", config.plan, "--zones", *config.zones, "--out", config.out]) == 2
    assert f"Another command is at work on {config.out}" in capsys.readouterr().err
    assert launch.places == []


def test_a_plan_priced_on_demand_does_not_price_spot_machines(launch: Launch, capsys) -> None:
    """Else cost.json would say that they cost as much as those that stay."""
    config = launch.config
    dear = make_plan(replace(presets()["vicuna-7b"](), price="on-demand"))
    configs.write_json(dear, storage.join(config.plan, PLAN_NAME))
    assert main(["--plan", config.plan, "--zones", *config.zones, "--out", config.out]) == 2
    assert "--price on-demand is of machines that stay" in capsys.readouterr().err
    assert launch.places == []
