"""Where SkyPilot's own recovery goes after a reclaim: its code, its optimizer, a made-up cloud."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.test_sky import CLUSTER, sky

__all__ = ["sky"]

pytestmark = [pytest.mark.sky, pytest.mark.xdist_group("sky")]

HOME, SECOND, THIRD = ("AWS", "us-east-1"), ("AWS", "us-west-2"), ("GCP", "us-central1")
"""from the cheapest on, by the price list of test_sky.py"""


class FakeCloud:
    """Has machines in some regions, and answers a launch as SkyPilot does: the best of those."""

    def __init__(self, sky: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from sky import backends, check, global_user_state
        from sky.catalog import aws_catalog
        from sky.jobs import recovery_strategy, state

        self.sky, self.launched, self.full = sky, list[tuple[str, str]](), set[tuple[str, str]]()
        self.handle = object.__new__(backends.CloudVmRayResourceHandle)
        self.handle.cached_cluster_info = None
        clouds = [sky.clouds.AWS(), sky.clouds.GCP()]
        patch = monkeypatch.setattr

        async def launch(
            strategy: Any, max_retry: int | None = 3, raise_on_failure: bool = True,
            recovery: bool = False,
        ) -> float | None:  # fmt: skip
            return self.launch(strategy.dag)

        patch(check, "get_cached_enabled_clouds_or_refresh", lambda *_, **__: clouds)
        patch(aws_catalog, "_fetch_and_apply_az_mapping", lambda df: df)
        patch(recovery_strategy.StrategyExecutor, "_launch", launch)
        patch(recovery_strategy.StrategyExecutor, "_cleanup_cluster", lambda strategy: None)
        patch(global_user_state, "get_handle_from_cluster_name", lambda name: self.handle)
        patch(state, "set_job_infra", lambda *_, **__: None)

    def launch(self, dag: Any) -> float | None:
        """As the server gets the task, which is its YAML; it tries one place after another."""
        from sky import optimizer
        from sky.exceptions import ResourcesUnavailableError
        from sky.utils import dag_utils

        sent = dag_utils.load_dag_from_yaml_str(dag_utils.dump_dag_to_yaml_str(dag))
        refused: list[Any] = []
        while True:
            try:
                optimizer.Optimizer.optimize(sent, blocked_resources=refused, quiet=True)
            except ResourcesUnavailableError:
                return None
            best = sent.tasks[0].best_resources
            place = (str(best.cloud), best.region)
            if place not in self.full:
                self.launched.append(place)
                self.handle.launched_resources = best
                return time.time()
            refused.append(
                self.sky.Resources(cloud=best.cloud, region=best.region, use_spot=best.use_spot)
            )


@pytest.fixture
def cloud(sky: Any, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    return FakeCloud(sky, monkeypatch)


@pytest.fixture
def plugin(sky: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loaded as SkyPilot's controller does."""
    from sky.server import plugins
    from sky.utils.registry import JOBS_RECOVERY_STRATEGY_REGISTRY as strategies

    own = strategies["eager_next_region"]
    monkeypatch.setenv("SKYPILOT_SERVER_PLUGINS_CONFIG", str(CLUSTER / "sky_plugins.yaml"))
    plugins.load_plugins(plugins.ExtensionContext(context=plugins.PluginContext.CONTROLLER))
    yield
    strategies["eager_next_region"] = own


def strategy_of(sky: Any, name: str) -> Any:
    """What the controller makes of a task file."""
    from sky import backends
    from sky.jobs.recovery_strategy import StrategyExecutor

    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    envs = [(key, "s3://b/x") for key, value in config["envs"].items() if value is None]
    secrets = [(key, "x") for key, value in config["secrets"].items() if value is None]
    task = sky.Task.from_yaml_config(config, env_overrides=envs, secrets_overrides=secrets)
    return StrategyExecutor.make(
        "job-1", backends.CloudVmRayBackend(), task, 1, 0, None, set(), asyncio.Lock(),
        asyncio.Condition(),
    )  # fmt: skip


def reclaimed(strategy: Any, times: int) -> None:
    async def run() -> None:
        await strategy.launch()
        for _ in range(times):
            await strategy.recover()

    asyncio.run(run())


@pytest.mark.parametrize("name", ["train", "data"])
def test_skypilot_by_itself_goes_back_to_the_region_that_it_lost(
    sky: Any, cloud: FakeCloud, name: str
) -> None:
    """Once this fails, SkyPilot was mended, and cluster/next_region.py is needed no more."""
    reclaimed(strategy_of(sky, name), 1)
    assert len(set(cloud.launched)) == 1 and len(cloud.launched) == 2


@pytest.mark.parametrize("name", ["train", "data"])
def test_no_relaunch_in_the_reclaimed_region_while_another_is_feasible(
    sky: Any, plugin: None, cloud: FakeCloud, name: str
) -> None:
    reclaimed(strategy_of(sky, name), 2)
    for before, after in zip(cloud.launched, cloud.launched[1:], strict=False):
        assert before != after, cloud.launched


def test_a_full_region_is_passed_over(sky: Any, plugin: None, cloud: FakeCloud) -> None:
    cloud.full = {SECOND}
    reclaimed(strategy_of(sky, "train"), 2)
    assert cloud.launched == [HOME, THIRD, HOME]


def test_where_nothing_else_is_feasible_the_same_region_is_better_than_none(
    sky: Any, plugin: None, cloud: FakeCloud
) -> None:
    cloud.full = {SECOND, THIRD}
    reclaimed(strategy_of(sky, "train"), 1)
    assert cloud.launched == [HOME, HOME]


def test_the_task_asks_for_the_same_as_before(sky: Any, plugin: None, cloud: FakeCloud) -> None:
    strategy = strategy_of(sky, "train")
    asked = set(strategy.dag.tasks[0].resources)
    reclaimed(strategy, 1)
    assert set(strategy.dag.tasks[0].resources) == asked
    assert cloud.handle.launched_resources.use_spot
