"""Zones whose machines are network namespaces: workers of a pool on them, in real processes."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from apps.common.spot.trace import ON_DEMAND
from cluster.workers import Worker
from tests.cluster.machines import ROOT, Network, TestMachine

STEP_S = 0.06


@dataclass(kw_only=True, slots=True)
class _Rented:
    """A worker's machine, with what runs there."""

    worker: Worker
    machine: TestMachine
    joining: subprocess.Popen[str] | None = None
    is_leaving: bool = False


@dataclass(kw_only=True, slots=True)
class SpotZones:
    """A WorkerCloud. A closed zone has no machines; one on demand is always there."""

    net: Network
    gateway: str
    token: str
    model: Path
    says: str
    closed: set[str] = field(default_factory=set[str])
    rented: list[_Rented] = field(default_factory=list[_Rented])
    gone: list[Worker] = field(default_factory=list[Worker])
    """taken or refused, and not told yet"""
    number: int = 0
    processes: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])
    lock: threading.RLock = field(default_factory=threading.RLock)

    def workers(self) -> list[Worker]:
        with self.lock:
            for one in [r for r in self.rented if r.is_leaving]:
                if one.joining is None or one.joining.poll() is not None:
                    self.rented.remove(one)
                    one.machine.lose()
            seen = [one.worker for one in self.rented if not one.is_leaving]
            seen, self.gone = [*seen, *self.gone], []
            return seen

    def launch(self, place: str) -> None:
        with self.lock:
            self.number += 1
            here = place not in self.closed
            worker = _worker(f"worker-{place}-{self.number}", place, here)
            if not here:
                self.gone.append(worker)
                return
            one = _Rented(worker=worker, machine=self.net.add())
            self.rented.append(one)
        threading.Thread(target=self._serve, args=[one], daemon=True).start()

    def _serve(self, one: _Rented) -> None:
        """What the run section of cluster/serve-worker.yaml does, with a scripted engine."""
        python, address = (sys.executable, "-W", "ignore", "-m"), one.machine.address
        asked = ("tests.serve.elsewhere", str(self.model), self.says, str(STEP_S), address)
        server = one.machine.popen(*python, *asked, PYTHONPATH=str(ROOT))
        self.processes.append(server)
        assert server.stdout
        port = next((line.strip() for line in server.stdout if line.strip().isdigit()), None)
        if port is None:
            return  # the machine was taken meanwhile
        where = ("--url", f"http://{address}:{port}/v1", "--worker", one.worker.name)
        with self.lock:
            one.joining = one.machine.popen(
                *python, "apps.serve", "join", self.gateway, "--name", "vicuna", *where,
                CRIA_JOIN_TOKEN=self.token,
            )  # fmt: skip
            self.processes.append(one.joining)

    def end(self, worker: Worker) -> None:
        with self.lock:
            for one in self.rented:
                if one.worker.name == worker.name and not one.is_leaving:
                    one.is_leaving = True
                    one.machine.signal(signal.SIGTERM, *one.machine.pids("apps.serve join"))

    def take(self, *names: str) -> None:
        """Without notice."""
        with self.lock:
            for one in [r for r in self.rented if r.worker.name in names]:
                self.rented.remove(one)
                self.gone.append(_worker(one.worker.name, one.worker.place, True, is_taken=True))
                one.machine.lose()

    def close(self, *zones: str) -> None:
        """All its machines go at once, and none can be had."""
        with self.lock:
            self.closed |= set(zones)
            self.take(*(one.worker.name for one in self.rented if one.worker.place in zones))

    def finish(self) -> None:
        """Take all that is left."""
        with self.lock:
            for one in self.rented:
                one.machine.lose()
            self.rented.clear()
        for process in self.processes:
            process.communicate(timeout=30)

    def places(self) -> list[str]:
        with self.lock:
            return [one.worker.place for one in self.rented if not one.is_leaving]

    def names(self) -> list[str]:
        with self.lock:
            return [r.worker.name for r in self.rented if r.worker.place != ON_DEMAND]


def _worker(name: str, place: str, has_run: bool, is_taken: bool = False) -> Worker:
    return Worker(
        name=name,
        place=place,
        asked_s=time.time(),
        has_run=has_run,
        is_taken=is_taken or not has_run,
    )
