"""The service on three machines, which loses parts of itself while 32 clients ask.

    python -m tests.serve.chaos replica gateway proxy controller node drain

Every client sends the same request again and again, each its own kind. Before each blow everything
is up again. Prints one line of JSON, see `Outcome`.
"""

import os

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}

import asyncio
import dataclasses
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from apps.common.command.events import Reporter
from apps.common.command.runtime import free_port
from apps.serve.client import AsyncClient
from apps.serve.config import GatewayConfig, ModelConfig, Resources, ServeConfig
from apps.serve.page.config import PageConfig
from tests.serve.models import write_model
from tests.serve.service import START_TIMEOUT_S, kill, replicas_of

ROOT = Path(__file__).resolve().parents[2]
NUM_CLIENTS = 32
NUM_REPLICAS = 3
READY_S = 240
QUIET_S = 4.0
"""of load between everything being up and a blow"""
NOTICE_S = 15
CUTTING = ("gateway", "proxy", "node", "drain")
"""blows after which a stream may go on over another connection"""

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "why": {"type": "string", "maxLength": 40}},
    "required": ["ok", "why"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
KINDS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 1.0, "n": 2},
    {"temperature": 1.0, "logprobs": True, "top_logprobs": 2},
    {"temperature": 1.0, "response_format": {
        "type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    {"temperature": 1.0, "tools": [TOOL], "tool_choice": "required"},
]  # fmt: skip


@dataclasses.dataclass
class Outcome:
    requests: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    different: list[str] = dataclasses.field(default_factory=list)
    """answers that are not those of the undisturbed run"""
    reconnected: int = 0
    unexcused: int = 0
    """streams that had to reconnect although nothing in front of the replicas was lost"""
    blows: list[tuple[str, float]] = dataclasses.field(default_factory=list)


def body_of(number: int) -> dict[str, Any]:
    kind = KINDS[number % len(KINDS)]
    return {
        "model": "one",
        "messages": [{"role": "user", "content": f"Tell me about the number {number}"}],
        "max_tokens": 250,
        "seed": number,
        **kind,
    }


async def answer(client: Any, body: dict[str, Any]) -> str:
    """All that its choices are, in one line."""
    choices: dict[int, list[object]] = {}
    async for chunk in client.stream("chat/completions", body):
        for choice in chunk["choices"]:
            delta = choice["delta"]
            known = choices.setdefault(choice["index"], ["", "", [], None])
            known[0] += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                function = call["function"]
                known[1] += function.get("name", "") + function.get("arguments", "")
            known[2] += [t["token"] for t in (choice["logprobs"] or {"content": []})["content"]]
            known[3] = choice["finish_reason"] or known[3]
    return json.dumps([choices[i] for i in sorted(choices)])


class Load:
    """The clients, in a thread of their own."""

    def __init__(self, url: str, outcome: Outcome, client: Callable[..., Any]) -> None:
        self._url, self._outcome, self._client_of = url, outcome, client
        self._ends = False
        self._undisturbed: dict[int, str] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def undisturbed(self) -> None:
        async def one(number: int) -> None:
            async with self._client_of([f"{self._url}/v1"]) as client:
                self._undisturbed[number] = await answer(client, body_of(number))

        await asyncio.gather(*map(one, range(NUM_CLIENTS)))

    def __enter__(self) -> "Load":
        asyncio.run(self.undisturbed())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*map(self._client, range(NUM_CLIENTS)))

    async def _client(self, number: int) -> None:
        sent = 0

        async def count(request: object) -> None:
            nonlocal sent
            sent += 1

        async with self._client_of([f"{self._url}/v1"]) as client:
            client._http.event_hooks["request"].append(count)
            while not self._ends:
                sent, began_s, outcome = 0, time.monotonic(), self._outcome
                outcome.requests += 1
                try:
                    said = await answer(client, body_of(number))
                except Exception as error:
                    outcome.failed.append(f"client {number}: {error!r}"[:300])
                    await asyncio.sleep(1)
                    continue
                if said != self._undisturbed[number]:
                    outcome.different.append(f"client {number}: {said[:300]}")
                blows = [n for n, at_s in outcome.blows if began_s - 1 < at_s]
                outcome.reconnected += sent > 1
                outcome.unexcused += sent > 1 and not set(blows) & set(CUTTING)


class Service:
    """What is running, and how to break it."""

    whole: ClassVar = {"gateway": 2, "model-one": NUM_REPLICAS}
    """application -> replicas"""

    def __init__(self, cluster: Any, config: ServeConfig) -> None:
        self._cluster, self._config = cluster, config
        self._nodes = [add_node(cluster), add_node(cluster)]

    def start(self) -> None:
        from apps.serve import launch

        launch.apply(self._config)
        launch.wait_until_running(self._config, Reporter("json", sys.stderr), START_TIMEOUT_S)

    def wait_until_whole(self) -> None:
        """Nothing is missing, and Serve's own state is settled."""
        from ray import serve

        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            try:
                status = serve.status()
                states = {
                    name: d.replica_states.get("RUNNING", 0)
                    for name, application in status.applications.items()
                    for d in application.deployments.values()
                }
                proxies = set(status.proxies.values())
                is_settled = {"HEALTHY"} <= proxies <= {"HEALTHY", "DRAINING"}
                if states == self.whole and is_settled and alive(self.replicas()):
                    return
            except Exception as error:  # the controller is being replaced
                print(repr(error)[:200], file=sys.stderr)
            time.sleep(0.5)
        raise AssertionError(f"not whole within {READY_S} s: {serve.status()}")

    def replicas(self) -> list[Any]:
        return replicas_of("one")

    def replica(self) -> None:
        kill(random.choice(self.replicas()))

    def gateway(self) -> None:
        kill(random.choice(actors("::gateway#Gateway#")))

    def proxy(self) -> None:
        kill(random.choice(actors("PROXY_ACTOR")))

    def controller(self) -> None:
        kill(actors("SERVE_CONTROLLER_ACTOR")[0])

    def node(self) -> None:
        """Without notice; another one comes."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)
        self._nodes.append(add_node(self._cluster))

    def drain(self) -> None:
        """With notice, as cluster/spot_watch.py gives it; another one comes at once."""
        from ray._raylet import GcsClient

        node = self._nodes.pop(0)
        self._nodes.append(add_node(self._cluster))
        accepted, why = GcsClient(address=self._cluster.address).drain_node(
            node.node_id, 2, "chaos", int((time.time() + NOTICE_S) * 1000)
        )
        assert accepted, why
        time.sleep(NOTICE_S)
        self._cluster.remove_node(node, allow_graceful=False)


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=2, object_store_memory=100 << 20)


def actors(part: str) -> list[Any]:
    import ray

    listed = ray.util.list_named_actors(all_namespaces=True)
    return [ray.get_actor(a["name"], namespace="serve") for a in listed if part in a["name"]]


def alive(replicas: list[Any]) -> bool:
    import ray

    calls = [replica.__ray_call__.remote(lambda _: True) for replica in replicas]
    return len(calls) == NUM_REPLICAS and all(ray.get(calls, timeout=10))


def config_for(folder: Path) -> ServeConfig:
    model = ModelConfig(
        name="one",
        path=write_model(folder / "one", 1, 4096),
        replicas=NUM_REPLICAS,
        resources=Resources(cpus=1),
    )
    gateway = GatewayConfig(port=free_port(), replicas=2)
    return ServeConfig(models=(model,), gateway=gateway, page=PageConfig(enabled=False))


def main(
    blows: list[str],
    service_of: Callable[..., Service] = Service,
    client: Callable[..., Any] = AsyncClient,
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    outcome = Outcome()
    with tempfile.TemporaryDirectory(
        prefix="chaos-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        # Where Ray notes the newest cluster's address; by default for the whole machine.
        os.environ["RAY_TMPDIR"] = folder
        os.environ["PYTHONPATH"] = str(ROOT)
        os.makedirs(os.path.join(folder, "ray"))
        head = {
            "include_dashboard": False,
            "num_cpus": 2,
            "object_store_memory": 100 << 20,
            "temp_dir": folder,
        }
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
            config = config_for(Path(folder))
            service = service_of(cluster, config)
            service.start()
            service.wait_until_whole()
            with Load(f"http://127.0.0.1:{config.gateway.port}", outcome, client):
                for name in blows:
                    strike(service, name, outcome)
                service.wait_until_whole()
                time.sleep(QUIET_S)
        finally:
            ray.shutdown()
            cluster.shutdown()
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)


def strike(service: Service, name: str, outcome: Outcome) -> None:
    service.wait_until_whole()
    time.sleep(QUIET_S)
    print(f"{name} after {outcome.requests} requests", file=sys.stderr)
    outcome.blows.append((name, time.monotonic()))
    blow: Callable[[], None] = getattr(service, name)
    blow()
    outcome.blows.append((name, time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1:])
