"""`place --watch` beside a service that people use, from the first YAML to the next one."""

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from apps.common.command.cli import run
from apps.common.files import config as configs
from apps.serve.__main__ import COMMANDS
from apps.serve.admission.keys import digest
from apps.serve.config import ServeConfig
from tests.serve.models import write_model
from tests.serve.run_command import Command, Printed, command, running, streamed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECRET = "sk-cria-admin"
AUTHORIZED = {"authorization": f"Bearer {SECRET}"}
MODELS = ("busy", "calm")
TOKENS, LONG_TOKENS = 1500, 4000
PROMPTS = tuple(f"Tell me about the number {number}" for number in range(3))
SPEEDS = {"step_ms": 0.01, "sequence_us": 1000, "context_ns": 0, "prompt_us": 1}
"""A core writes 1,000 tokens a second, however many answers it shares them out to."""
LIMITS = {"max_output_tokens": LONG_TOKENS + 7}


def folder_of(root: Path) -> Path:
    """Models, their speed, and what is asked before anything runs; a core holds one of them."""
    for seed, name in enumerate(MODELS):
        write_model(root / name, seed, 4096)
    row = {"weights_gb": 2.5, "kv_bytes_per_token": 2048, "speeds": {"CPU": {1: SPEEDS}}}
    write(root / "speeds.yaml", {"models": {"tiny": row}})
    entries = [
        {"name": name, "path": str(root / name), "speed": "tiny", "share": share}
        for name, share in zip(MODELS, (9.0, 1.0), strict=True)
    ]
    write(root / "models.yaml", {"models": entries})
    return root


def write(file: Path, content: object) -> None:
    file.write_text(yaml.safe_dump(content))


def placing(root: Path) -> list[object]:
    return [
        "place", root / "models.yaml", "--gpus", "3xCPU", "--speeds", root / "speeds.yaml",
        "--slo", "ttft=2s,tpot=10ms", "--seconds", "5",
    ]  # fmt: skip


def placed(root: Path) -> Path:
    """The first YAML, and what a person adds to it: a key, a limit, no page."""
    file = root / "serve.yaml"
    traffic = ("--traffic.kind", "gamma", "--traffic.rate-per-s", "1", "--traffic.minutes", "10")
    arguments = [*placing(root), *traffic, "--out", file]
    assert run("apps.serve", COMMANDS, list(map(str, arguments))) == 0
    content = configs.load_yaml(str(file))
    for entry in content["models"]:  # type: ignore[attr-defined]
        entry["limits"] = LIMITS
    key = {"name": "admin", "sha256": digest(SECRET), "admin": True}
    write(file, {**content, "gateway": {"api_keys": [key]}, "page": {"enabled": False}})
    return file


def replicas(file: Path) -> dict[str, int]:
    return {model.name: model.replicas for model in configs.load(ServeConfig, str(file)).models}


class People:
    """They ask one model more than the other, and compare what they get with what is right."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self.http, self.url, self.asked, self.much, self.whole = http, url, 0, MODELS[0], 0
        self.expected: dict[tuple[str, str, int], str] = {}

    async def answer(
        self, model: str, prompt: str, tokens: int, begun: asyncio.Event | None = None
    ) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": model, "messages": messages, "max_tokens": tokens}
        return await streamed(self.http, self.url, body, begun)

    async def learn(self) -> None:
        """What an undisturbed service says."""
        for key in itertools.product(MODELS, PROMPTS, (TOKENS, LONG_TOKENS)):
            self.expected[key] = await self.answer(*key)

    async def compare(
        self, model: str, prompt: str, tokens: int, begun: asyncio.Event | None = None
    ) -> None:
        said = await self.answer(model, prompt, tokens, begun)
        assert said == self.expected[model, prompt, tokens]
        self.whole += 1

    async def ask_on(self, group: asyncio.TaskGroup) -> None:
        """An answer a second: of ten, nine of the model that is asked much."""
        while True:
            (other,) = {*MODELS} - {self.much}
            model = other if self.asked % 10 == 9 else self.much
            group.create_task(self.compare(model, PROMPTS[self.asked % len(PROMPTS)], TOKENS))
            self.asked += 1
            await asyncio.sleep(1.0)

    async def long_streams(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Two of each prompt of each model, all of them in the middle of their answer."""
        made, begins = [], []
        for model, prompt, _ in itertools.product(MODELS, PROMPTS, range(2)):
            begins.append(asyncio.Event())
            made.append(group.create_task(self.compare(model, prompt, LONG_TOKENS, begins[-1])))
        await asyncio.gather(*(begun.wait() for begun in begins))
        assert not any(task.done() for task in made)
        return made


@contextmanager
def watching(root: Path, command_: Command) -> Iterator[Printed]:
    url = command_.api.removesuffix("/v1")
    arguments = (
        "--watch", url, "--serving", root / "serve.yaml", "--out", root / "proposed.yaml",
        "--every-minutes", "0.5", "--key-env", "CRIA_ADMIN",
    )  # fmt: skip
    with command(*placing(root), *arguments, CRIA_ADMIN=SECRET) as process:
        yield Printed(process)


async def event(printed: Printed, *names: str) -> dict[str, Any]:
    return await asyncio.to_thread(printed.event, *names)


async def test_a_shift_of_traffic_is_proposed_and_applied_and_no_stream_shows_it(
    tmp_path: Path,
) -> None:
    root = folder_of(tmp_path)
    file = placed(root)
    assert replicas(file) == {"busy": 2, "calm": 1}
    async with httpx.AsyncClient(headers=AUTHORIZED, timeout=120) as http:
        with running(file) as service:
            people = People(http, service.api)
            await people.learn()
            with watching(root, service) as watch:
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(people.ask_on(group))
                    await shifted(root, service, watch, people, group)
                    asking.cancel()
            assert people.whole > 60
            standing = (await http.get(f"{service.api[:-3]}/metrics")).text
            assert 'cria_replicas{model="busy"} 1.0' in standing
            assert 'cria_replicas{model="calm"} 2.0' in standing
            assert service.status("busy") == 401  # the key of the first file holds
    served = configs.load(ServeConfig, str(file))
    assert {model.limits.max_output_tokens for model in served.models} == set(LIMITS.values())
    assert os.path.samefile(served.models[0].path, root / "busy")


async def shifted(
    root: Path, service: Command, watch: Printed, people: People, group: asyncio.TaskGroup
) -> None:
    """People come to ask the other model; a person copies what is proposed over what is served."""
    first = await event(watch, "place.kept", "place.proposed", "place.quiet")
    assert first["event"] == "place.kept" and first["within_slo"] > 0.9
    assert not (root / "proposed.yaml").exists()

    people.much = MODELS[1]
    proposed = await event(watch, "place.proposed")
    assert proposed["replicas"] == {"busy": "2 -> 1", "calm": "1 -> 2"}
    assert proposed["within_slo"] > proposed["within_slo_now"] + 0.02
    long_streams = await people.long_streams(group)
    began_s = time.monotonic()
    shutil.copyfile(root / "proposed.yaml", root / "serve.yaml")
    applied = await event(service, "serve.applied", "serve.refused")
    assert applied["event"] == "serve.applied"
    took_s, ended = time.monotonic() - began_s, sum(task.done() for task in long_streams)
    print(
        f"{proposed}; applied in {took_s:.1f} s, {ended} of {len(long_streams)} long streams over"
    )
    await asyncio.gather(*long_streams)

    assert (await event(watch, "place.kept", "place.proposed"))["event"] == "place.kept"
    print(f"{people.whole} whole answers, none cut, none different")
