"""A head and a pool of spot workers, each machine a namespace, under a controller that keeps it up.

Machines are taken without notice, zones close, a gateway and the page are killed: no stream is cut.
"""

import asyncio
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from apps.common.command.events import Reporter
from apps.common.spot.trace import ON_DEMAND
from apps.serve.admission.keys import digest
from apps.serve.client import AsyncClient
from apps.serve.spot.policies import POLICIES
from apps.serve.spot.replay import Service
from cluster.controller import CloudIsAway
from cluster.launch_workers import GatewayPool
from cluster.workers import WorkerController, follow
from tests.cluster.machines import TestMachine, network
from tests.cluster.spot_zones import SpotZones
from tests.serve.models import write_text_files

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1500)]

TEXT = "Whoever begins this answer, another one on another machine will end it as it was begun."
OWNER, JOINS, PAGE = "sk-cria-owner", "sk-cria-joins", "sk-cria-page"
ZONES = ("zone-a", "zone-b", "zone-c")
NUM_CLIENTS = 6
REPLICAS = 2
WAIT_S = 240.0


@dataclass
class Seen:
    """By the clients."""

    whole: int = 0
    cut: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


class Ended(Exception):
    """The test wants no further look."""


@dataclass
class Spot:
    """What runs, and how to break it."""

    head: TestMachine
    zones: SpotZones
    controller: WorkerController
    url: str
    seen: Seen = field(default_factory=Seen)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline_s, f"not within {WAIT_S:.0f} s: {what}"
            time.sleep(0.3)

    def up(self) -> frozenset[str]:
        """Nobody while the gateway is away."""
        try:
            return self.controller.pool.up()
        except CloudIsAway:
            return frozenset()

    def is_whole(self) -> bool:
        up = self.up()
        parts = {"gateway": 2, "page": 1}
        running = {one: len(self.replicas(one)) for one in parts}
        return len(up) >= REPLICAS and running == parts and self.answers("/ui/")

    def answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def replicas(self, application: str) -> list[int]:
        return self.head.pids(f"^ray::ServeReplica:{application}:")

    def after_more_answers(self) -> None:
        """So that a blow meets streams of every age."""
        wanted = self.seen.whole + NUM_CLIENTS
        self.until(lambda: self.seen.whole >= wanted or bool(self.seen.cut), "answers")

    def worker(self) -> None:
        self.until(lambda: bool(self.up() & set(self.zones.names())), "a spot worker")
        self.zones.take(random.choice(sorted(self.up() & set(self.zones.names()))))

    def gateway(self) -> None:
        self.head.signal(signal.SIGKILL, random.choice(self.replicas("gateway")))

    def page(self) -> None:
        self.head.signal(signal.SIGKILL, *self.replicas("page"))

    def zone(self) -> None:
        self.zones.close(random.choice([p for p in self.zones.places() if p != ON_DEMAND]))

    def every_zone(self) -> None:
        self.zones.close(*ZONES)
        self.until(lambda: self.zones.places().count(ON_DEMAND) == REPLICAS, "machines on demand")

    def zones_open(self) -> None:
        self.zones.closed.clear()
        self.until(lambda: ON_DEMAND not in self.zones.places(), "only spot again")


def serve_yaml(folder: Path) -> str:
    keys = [
        {"name": "owner", "sha256": digest(OWNER), "admin": True},
        {"name": "workers", "sha256": digest(JOINS), "may_join": ["vicuna"]},
        {"name": "page", "sha256": digest(PAGE), "concurrent_streams": 64},
    ]
    pool = {"name": "vicuna", "engine": "pool", "options": {"joinable": True}}
    gateway = {"host": "0.0.0.0", "port": 8000, "replicas": 2, "api_keys": keys}
    page = {"api_key_env": "CRIA_API_KEY", "database_url": f"sqlite:///{folder}/page.db"}
    return yaml.safe_dump({"models": [pool], "gateway": gateway, "page": page})


@pytest.fixture
def spot(tmp_path: Path) -> Iterator[Spot]:
    with network(tmp_path) as net:
        head = net.add()
        (tmp_path / "serve.yaml").write_text(serve_yaml(tmp_path))
        command = (sys.executable, "-W", "ignore", "-m", "apps.serve", "run")
        serving = head.popen(*command, str(tmp_path / "serve.yaml"), CRIA_API_KEY=PAGE)
        printed = threading.Thread(target=lambda: print(serving.communicate()[0]))
        printed.start()
        url = f"http://{head.address}:8000"
        zones = SpotZones(
            net=net, gateway=url, token=JOINS, says=TEXT, model=write_text_files(tmp_path / "model")
        )
        service = Service(replicas=REPLICAS, cold_start_s=10, look_s=1)
        controller = WorkerController(
            policy=POLICIES["skyserve+1"](ZONES, service),
            cloud=zones,
            pool=GatewayPool(url, "vicuna", JOINS),
            replicas=REPLICAS,
            start_s=120,
        )
        running = Spot(head=head, zones=zones, controller=controller, url=url)
        running.until(lambda: running.answers("/ui/"), "the head")
        with controlled(controller):
            yield running
        zones.finish()
        head.lose()
        printed.join()


@contextmanager
def beside(run: Callable[[], None], ends: threading.Event) -> Iterator[None]:
    """`run` in a thread of its own, which stops when `ends` is set."""
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@contextmanager
def controlled(controller: WorkerController) -> Iterator[None]:
    """By cluster/workers.py, a look a second."""
    ends = threading.Event()

    def sleep(seconds: float) -> None:
        if ends.wait(seconds):
            raise Ended

    def run() -> None:
        try:
            follow(controller, Reporter("json"), 1.0, sleep)
        except Ended:
            return

    with beside(run, ends):
        yield


@contextmanager
def clients(url: str, seen: Seen) -> Iterator[None]:
    """Each streams one answer after another, until the block ends."""
    ends = threading.Event()

    async def client(number: int) -> None:
        body = {"model": "vicuna", "messages": [{"role": "user", "content": f"Client {number}"}]}
        async with AsyncClient([f"{url}/v1"], OWNER) as http:
            while not ends.is_set():
                said = ""
                try:
                    async for chunk in http.stream("chat/completions", body):
                        for choice in chunk["choices"]:
                            said += choice["delta"].get("content") or ""
                except Exception as error:
                    seen.cut.append(f"client {number} behind {said!r}: {error!r}")
                    return
                if said != TEXT:
                    seen.different.append(f"client {number}: {said!r}")
                seen.whole += 1

    async def all_clients() -> None:
        await asyncio.gather(*map(client, range(NUM_CLIENTS)))

    with beside(lambda: asyncio.run(all_clients()), ends):
        yield


BLOWS = ("worker", "gateway", "worker", "page", "zone", "gateway", "every_zone", "zones_open")


def test_no_stream_is_cut_whatever_is_taken_or_killed(spot: Spot) -> None:
    spot.until(spot.is_whole, "the first workers")
    with clients(spot.url, spot.seen):
        for blow in BLOWS:
            spot.until(spot.is_whole, f"whole before {blow}")
            spot.after_more_answers()
            print(f"{blow} after {spot.seen.whole} answers, machines in {spot.zones.places()}")
            getattr(spot, blow)()
        spot.until(spot.is_whole, "whole at the end")
        spot.after_more_answers()
    print(f"{spot.seen.whole} answers, {len(spot.seen.cut)} cut")
    assert spot.seen.cut == [] and spot.seen.different == []
    assert spot.seen.whole > len(BLOWS) * NUM_CLIENTS
