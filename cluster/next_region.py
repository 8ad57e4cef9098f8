"""A plugin of SkyPilot's server: after a reclaim, EAGER_NEXT_REGION means the next region.

    export PYTHONPATH=$PWD SKYPILOT_SERVER_PLUGINS_CONFIG=$PWD/cluster/sky_plugins.yaml
    sky api stop; sky api start      # with jobs.controller.consolidation_mode: true

SkyPilot 0.14.1 says so of EAGER_NEXT_REGION and does otherwise. It blocks the reclaimed region only
where the machines it had name no region, and machines always do; and what it would block, a task
does not carry to the server. So it goes to the cheapest place, which is mostly the one it lost.
Here the resources that are asked for first name every feasible region but that one.
"""

import asyncio

from sky import optimizer
from sky.jobs.recovery_strategy import EagerFailoverStrategyExecutor
from sky.resources import Resources
from sky.server.plugins import BasePlugin, ExtensionContext
from sky.task import Task
from sky.utils.registry import JOBS_RECOVERY_STRATEGY_REGISTRY

STRATEGY = "eager_next_region"


class NextRegionExecutor(EagerFailoverStrategyExecutor):
    """Everywhere but in the reclaimed region first; then, as before, anywhere."""

    async def recover(self) -> float:
        left = self._launched_resources
        if left is not None:
            await asyncio.to_thread(self._cleanup_cluster)
            task = self.dag.tasks[0]
            asked = task.resources
            elsewhere = await asyncio.to_thread(resources_elsewhere, task, left)
            if elsewhere:
                task.set_resources(elsewhere)
                try:
                    submitted_s = await self._launch(raise_on_failure=False, recovery=True)
                finally:
                    task.set_resources(asked)
                if submitted_s is not None:
                    return submitted_s
        return await super().recover()


def resources_elsewhere(task: Task, left: Resources) -> list[Resources] | set[Resources]:
    """What the task asks for, once for each region that has it; not in that of `left`.

    Worked example: AWS, lost in us-east-1, offered in us-east-1 and us-west-2: in us-west-2.
    """
    offered, *_ = optimizer._fill_in_launchable_resources(task, None, quiet=True)
    elsewhere = {
        (asked, str(one.cloud), one.region): asked.copy(cloud=one.cloud, region=one.region)
        for asked in task.resources
        for one in offered[asked]
        if (str(one.cloud), one.region) != (str(left.cloud), left.region)
    }
    return type(task.resources)(elsewhere.values())


class NextRegionPlugin(BasePlugin):
    """Takes the place of SkyPilot's own strategy, so that the task files stay as they are."""

    def install(self, extension_context: ExtensionContext) -> None:
        JOBS_RECOVERY_STRATEGY_REGISTRY[STRATEGY] = NextRegionExecutor
