"""Keeps the workers of a pool going on spot machines, as many as are needed and no more.

    export CRIA_JOIN_TOKEN=sk-cria-... CRIA_WORKER_KEY=$(openssl rand -hex 24)
    python -m cluster.launch_workers https://chat.example.org --pool vicuna --replicas 4 \
        --zones aws/us-east-1 aws/us-west-2 gcp/us-central1 --env MODEL=s3://bucket/models/vicuna-7b

Runs on your own machine or at the head, and submits SkyPilot managed jobs of serve-worker.yaml,
each bound to one zone and market. How many where is decided by the policies that `apps.serve
simulate` replays. May be stopped at any time: workers go on, and the same command takes them up
again. With --out and --on-demand-usd it writes OUT/cost.json after every look.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import quote

import httpx
from tyro.conf import Positional

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.common.errors import ConfigError
from apps.common.files import costs
from apps.common.files.config import above_zero
from apps.common.files.lock import alone_in
from apps.serve.join import is_ours, message_of
from apps.serve.spot.policies import POLICIES
from apps.serve.spot.replay import Service
from cluster import sky_jobs
from cluster.controller import CloudIsAway
from cluster.sky_workers import SkyWorkers
from cluster.worker_cost import Machine, pool_cost
from cluster.workers import WorkerController, follow

TASK = Path(__file__).with_name("serve-worker.yaml")
JOIN_TOKEN = "CRIA_JOIN_TOKEN"
SECRETS = (JOIN_TOKEN, "CRIA_WORKER_KEY")
"""variables of this process that every worker is given"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchWorkersConfig(Service):
    """What to keep up, and where it may run."""

    gateway: Positional[str]
    """address of the gateway, such as https://chat.example.org"""
    zones: tuple[str, ...]
    """cloud/region or cloud/region/zone, cheapest first"""
    replicas: int
    """workers that have to be ready"""
    pool: str = "vicuna"
    """the pool's name at the gateway"""
    policy: str = "steady"
    """as in `apps.serve simulate`"""
    name: str = ""
    """with which the names of the managed jobs begin (default: worker- and the pool)"""
    task: Path = TASK
    """SkyPilot's task file"""
    env: tuple[str, ...] = ()
    """NAME=VALUE for the task"""
    start_minutes: float = 15.0
    """a start in a zone that takes longer counts as a zone without machines, and so does a machine
    that is not well for so long"""
    out: str = ""
    """folder for cost.json, such as s3://bucket/pools/vicuna"""
    on_demand_usd: float | None = None
    """of one machine, dollars an hour; one on spot costs --spot-price of it"""
    kind: str = "worker"
    """of machine, as cost.json names it; of one such as 1xL4 each worker rents that many of that
    GPU, in place of those that the task file names"""

    def __post_init__(self) -> None:
        Service.__post_init__(self)  # super() does not know a class with slots
        above_zero(self, "", "start_minutes", "on_demand_usd")
        if bool(self.out) != (self.on_demand_usd is not None):
            raise ConfigError("cost.json needs both --out and --on-demand-usd; give both or none.")
        if not self.gateway.startswith(("http://", "https://")):
            raise ConfigError(f"The gateway is {self.gateway!r}; expected http:// or https://.")
        if self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; expected one of {', '.join(POLICIES)}.")
        if not self.zones or len(set(self.zones)) < len(self.zones):
            raise ConfigError("--zones has none, or one twice; expected cloud/region, each once.")
        sky_jobs.envs_of(self.env)


class GatewayPool:
    """The pool as the gateway tells of it."""

    def __init__(self, gateway: str, name: str, token: str) -> None:
        self._url = f"{gateway.rstrip('/')}/pools/{quote(name, safe='')}/workers"
        self._headers = {"authorization": f"Bearer {token}"}

    def up(self) -> frozenset[str]:
        """Raises CloudIsAway, and ConfigError for what no waiting mends."""
        try:
            answer = httpx.get(self._url, headers=self._headers, timeout=10)
        except httpx.HTTPError as error:
            raise CloudIsAway(f"The gateway is out of reach ({type(error).__name__})") from error
        if answer.status_code in (401, 403, 404) and is_ours(answer):
            raise ConfigError(f"{self._url} refuses: {message_of(answer)}")
        if answer.status_code != 200 or not is_ours(answer):
            raise CloudIsAway(f"The gateway answered {answer.status_code}")
        try:
            return frozenset(one["id"] for one in answer.json()["workers"] if one["is_up"])
        except (ValueError, KeyError, TypeError):
            message = f"{self._url} lists no workers; check the gateway's address."
            raise ConfigError(message) from None


def jobs_name(pool: str) -> str:
    """Worked example: worker-org-vicuna of org/vicuna, as SkyPilot takes no slash."""
    return f"worker-{re.sub('[^A-Za-z0-9]+', '-', pool)}"


def machines_of_kind(kind: str) -> sky_jobs.Machines | None:
    """Worked example: one L4 of 1xL4. None for a name that says no GPUs."""
    match = re.fullmatch(r"([1-9]\d*)x([A-Z].*)", kind)
    return None if match is None else sky_jobs.machines_of(int(match[1]), match[2], 1)


def run_launch_workers(config: LaunchWorkersConfig, reporter: Reporter) -> None:
    """Without end. What is wrong with the settings is said before the first machine."""
    pool = GatewayPool(config.gateway, config.pool, sky_jobs.from_environment(SECRETS)[JOIN_TOKEN])
    try:
        pool.up()
    except CloudIsAway as away:
        raise ConfigError(f"{away.sentence.rstrip('.')}; start the head first.") from away
    sky_jobs.check_installed()
    service = Service(**{one.name: getattr(config, one.name) for one in fields(Service)})
    envs = {"GATEWAY": config.gateway, "POOL": config.pool}
    cloud = SkyWorkers(
        task=config.task,
        name=config.name or jobs_name(config.pool),
        zones=config.zones,
        envs={**envs, **sky_jobs.envs_of(config.env)},
        secrets=SECRETS,
        reporter=reporter,
        machines=machines_of_kind(config.kind),
    )
    cloud.check()
    controller = WorkerController(
        policy=POLICIES[config.policy](config.zones, service),
        cloud=cloud,
        pool=pool,
        replicas=config.replicas,
        start_s=config.start_minutes * 60,
    )

    def save(now_s: float) -> None:
        if config.on_demand_usd is not None:
            spot_usd = config.on_demand_usd * config.spot_price
            machine = Machine(
                kind=config.kind, on_demand_usd=config.on_demand_usd, spot_usd=spot_usd
            )
            costs.write(config.out, pool_cost(cloud.rented(), machine, config.replicas, now_s))

    with alone_in(f"{config.gateway.rstrip('/')}/pools/{config.pool}", "keep another pool"):
        follow(controller, reporter, config.look_s, save=save)


COMMAND = cli.Command(
    config=LaunchWorkersConfig,
    run=run_launch_workers,
    help="Keeps the workers of a pool going on spot machines.",
    example="https://chat.example.org --pool vicuna --replicas 4 --zones aws/us-east-1 "
    "gcp/us-central1 --env MODEL=s3://bucket/models/vicuna-7b",
)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_single("cluster.launch_workers", COMMAND, argv)


if __name__ == "__main__":
    sys.exit(main())
