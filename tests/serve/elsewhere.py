"""A server elsewhere: the API over a scripted engine, in a process of its own that can be killed.

    python -m tests.serve.elsewhere FOLDER "what it says" STEP_S [HOST]

Prints its port.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serve.api import Api, LiveServer

ROOT = Path(__file__).resolve().parents[2]


class Elsewhere:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.url = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@contextmanager
def elsewhere(folder: Path, says: str, step_s: float = 0.02) -> Iterator[Elsewhere]:
    argv = [sys.executable, "-W", "ignore", "-m", "tests.serve.elsewhere"]
    with subprocess.Popen(
        [*argv, str(folder), says, str(step_s)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Elsewhere(process)
        finally:
            process.kill()


def main(folder: str, says: str, step_s: str, host: str = "127.0.0.1") -> None:
    from apps.serve.config import ModelConfig
    from apps.serve.model.served import load_model
    from tests.serve.scripted import going_on

    served = load_model(ModelConfig(name="scripted", path=folder))
    with LiveServer(Api(served, going_on(served, says, float(step_s))), host) as server:
        print(server.url.rpartition(":")[2], flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
