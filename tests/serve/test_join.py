"""`python -m apps.serve join`: servers in processes of their own come into a pool and go."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from apps.common.command.runtime import free_port
from apps.common.errors import ConfigError
from apps.serve.admission.keys import digest
from apps.serve.config import ApiKey, GatewayConfig, ModelConfig
from apps.serve.join import JoinConfig
from apps.serve.model.pool import PoolEntry, watch_members
from tests.serve.api import Api, events
from tests.serve.elsewhere import ROOT, Elsewhere, elsewhere
from tests.serve.gateway.test_pool import TEXT, alive, texts

TOKEN, PLAIN = "sk-joins", "sk-asks"
MESSAGES = [{"role": "user", "content": "Hi"}]


class Gateway:
    """A gateway on a port, with an open pool that nobody is in."""

    def __init__(self, api: Api, url: str) -> None:
        self.api, self.url = api, url
        config = ModelConfig(name="pool", engine="pool", options={"joinable": True})
        self.pool = PoolEntry(config=config, members={})
        api.directory.entries["pool"] = self.pool
        self.http = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {PLAIN}"}, timeout=60
        )

    def looked(self) -> list[PoolEntry]:
        self.api.directory.workers.expire()
        return [self.pool]

    async def chat(self, **fields: object) -> httpx.Response:
        body = {"model": "pool", "messages": MESSAGES, **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)

    async def announced(self, token: str = TOKEN, worker: str = "w", **fields: object) -> Any:
        said = {"base_url": "http://127.0.0.1:9/v1", "model": "m", **fields}
        headers = {"authorization": f"Bearer {token}"}
        return await self.http.put(f"/pools/pool/workers/{worker}", json=said, headers=headers)


@pytest.fixture
async def gateway(api_saying: Callable[..., Api]) -> AsyncIterator[Gateway]:
    api = api_saying("unused")
    keys = (
        ApiKey(name="lab", sha256=digest(TOKEN), may_join=("pool",)),
        ApiKey(name="other", sha256=digest("sk-other"), may_join=("pool",)),
        ApiKey(name="ali", sha256=digest(PLAIN)),
    )
    api.settings = GatewayConfig(api_keys=keys)
    server = uvicorn.Server(
        uvicorn.Config(api.app, port=0, log_level="error", lifespan="off", ws="none")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    gateway = Gateway(api, f"http://127.0.0.1:{port}")
    watching = asyncio.create_task(watch_members(gateway.looked, alive))
    yield gateway
    await gateway.http.aclose()
    watching.cancel()
    server.should_exit = True
    await asyncio.gather(serving, watching, return_exceptions=True)
    for engine in gateway.pool.engines:
        await engine.close()
    await asyncio.gather(*api.directory.workers._closing)


class Joined:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def event(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


@contextmanager
def join(gateway: str, far: str, *more: str, token: str = TOKEN) -> Iterator[Joined]:
    argv = f"-W ignore -m apps.serve join {gateway} --name pool --url {far}/v1 --log-format json"
    with subprocess.Popen(
        [sys.executable, *argv.split(), *more],
        cwd=ROOT,
        env={**os.environ, "CRIA_JOIN_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Joined(process)
        finally:
            process.kill()


@pytest.fixture
def far(model_folder: Path) -> Iterator[Elsewhere]:
    with elsewhere(model_folder, TEXT) as server:
        yield server


async def test_a_worker_joins_answers_and_leaves_when_what_it_began_has_ended(
    gateway: Gateway, far: Elsewhere
) -> None:
    with join(gateway.url, far.url) as joined:
        await gateway.until(lambda: gateway.pool.members)
        assert joined.event()["event"] == "serve.joined"
        stream = asyncio.create_task(gateway.chat(stream=True))
        await gateway.until(lambda: any(m.running for m in gateway.pool.members.values()))
        joined.process.send_signal(signal.SIGTERM)
        (member,) = gateway.pool.members.values()
        await gateway.until(lambda: member.is_leaving)
        assert not member.is_up
        assert texts(events(await stream)) == [TEXT]
        await gateway.until(lambda: not gateway.pool.members)
        assert await asyncio.to_thread(joined.process.wait, 20) == 0
        assert joined.event()["event"] == "serve.left"


async def test_a_launcher_is_told_who_is_there_and_well(gateway: Gateway, far: Elsewhere) -> None:
    async def there() -> dict[str, tuple[bool, bool]]:
        headers = {"authorization": f"Bearer {TOKEN}"}
        listed = await gateway.http.get("/pools/pool/workers", headers=headers)
        return {one["id"]: (one["is_up"], one["leaves"]) for one in listed.json()["workers"]}

    assert await there() == {}
    with join(gateway.url, far.url, "--worker", "spot-1", token=f"{TOKEN}\n"):  # as a file ends
        await gateway.until(lambda: gateway.pool.is_up)
        assert await there() == {"spot-1": (True, False)}
        far.signal(signal.SIGKILL)
        await gateway.until(lambda: not gateway.pool.is_up)
        assert await there() in ({"spot-1": (False, False)}, {})


async def test_an_answer_waits_while_nobody_is_there_to_go_on(
    gateway: Gateway, model_folder: Path
) -> None:
    """The only worker is lost and out before the next one has come."""
    with elsewhere(model_folder, TEXT, step_s=0.5) as far, join(gateway.url, far.url) as joined:
        await gateway.until(lambda: gateway.pool.is_up)
        stream = asyncio.create_task(gateway.chat(stream=True))
        (member,) = gateway.pool.members.values()
        await gateway.until(lambda: member.running)
        far.signal(signal.SIGKILL)
        joined.process.kill()
        await gateway.until(lambda: not gateway.pool.members)
    with elsewhere(model_folder, TEXT) as second, join(gateway.url, second.url):
        assert texts(events(await stream)) == [TEXT]


async def test_a_worker_whose_heartbeat_ends_is_out(gateway: Gateway, far: Elsewhere) -> None:
    with join(gateway.url, far.url) as joined:
        await gateway.until(lambda: gateway.pool.members)
        joined.process.kill()
        await gateway.until(lambda: not gateway.pool.members, timeout_s=5)


async def test_a_killed_worker_gets_nothing_within_a_second_and_its_streams_go_on(
    gateway: Gateway, model_folder: Path
) -> None:
    with (
        elsewhere(model_folder, TEXT, step_s=0.5) as far,
        elsewhere(model_folder, TEXT) as second,
        join(gateway.url, far.url),
    ):
        await gateway.until(lambda: gateway.pool.members)
        stream = asyncio.create_task(gateway.chat(stream=True))
        (member,) = gateway.pool.members.values()
        await gateway.until(lambda: member.running)
        with join(gateway.url, second.url):
            await gateway.until(lambda: len(gateway.pool.members) == 2)
            assert not stream.done()
            far.signal(signal.SIGKILL)
            await gateway.until(lambda: not member.is_up, timeout_s=1)
            assert texts(events(await stream)) == [TEXT]


async def test_an_id_that_is_taken_is_free_once_its_worker_is_gone(
    gateway: Gateway, far: Elsewhere
) -> None:
    async def beats() -> None:
        while (await gateway.announced()).status_code == 200:
            await asyncio.sleep(0.5)

    beating = asyncio.create_task(beats())
    await gateway.until(lambda: gateway.pool.members)
    (first,) = gateway.pool.members.values()
    for leaves_first in (True, False):
        with join(gateway.url, far.url, "--worker", "w") as joined:
            told = await asyncio.to_thread(joined.event)
            assert told["event"] == "serve.join_waits" and "at another base_url" in told["reason"]
            if leaves_first:
                joined.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(joined.process.wait, 20) == 0
            assert list(gateway.pool.members.values()) == [first] and not first.gone.is_set()
            if not leaves_first:
                beating.cancel()
                assert (await asyncio.to_thread(joined.event))["event"] == "serve.joined"
                assert first.gone.is_set()


async def test_the_door_is_shut_to_those_without_a_key_for_it(gateway: Gateway) -> None:
    assert (await gateway.announced("sk-unknown")).status_code == 401
    refused = await gateway.announced(PLAIN)
    assert refused.status_code == 403 and "--may-join" in refused.json()["error"]["message"]
    assert (await gateway.announced(base_url="file:///etc/passwd")).status_code == 400
    assert (await gateway.announced(base_url="http://a:b@c/v1")).status_code == 400
    assert (await gateway.announced(worker="a%20b")).status_code == 400
    assert (await gateway.announced()).json() == {"pool": "pool", "lease_s": 3.0, "running": 0}
    assert (await gateway.http.get("/pools/pool/workers")).status_code == 403
    stolen = await gateway.announced("sk-other", base_url="http://127.0.0.1:10/v1")
    assert stolen.status_code == 403, "the worker is another key's"
    assert [m.config.options["base_url"] for m in gateway.pool.members.values()] == [
        "http://127.0.0.1:9/v1"
    ]


async def test_without_any_keys_nobody_joins(gateway: Gateway) -> None:
    gateway.api.settings = GatewayConfig()
    assert (await gateway.announced()).status_code == 403
    assert not gateway.pool.members


@pytest.mark.parametrize("address", ["x", "http://", "http://[x", "ftp://x", "http://h:99999"])
def test_an_address_of_no_host_is_refused(address: str) -> None:
    for addresses in ({"gateway": address}, {"gateway": "http://h", "url": address}):
        with pytest.raises(ConfigError, match=r"must begin with|names no host"):
            JoinConfig(name="pool", **addresses)


async def test_a_worker_that_waits_from_the_start_says_for_what(far: Elsewhere) -> None:
    with join(f"http://127.0.0.1:{free_port()}", far.url, "--drain-s", "0") as joined:
        told = await asyncio.to_thread(joined.event)
        joined.process.send_signal(signal.SIGTERM)
        assert told["event"] == "serve.join_waits" and "out of reach" in told["reason"]
        assert (await asyncio.to_thread(joined.event))["event"] == "serve.left"


async def test_what_no_waiting_mends_ends_the_command_in_a_sentence(
    gateway: Gateway, far: Elsewhere
) -> None:
    def ended(*more: str, token: str = TOKEN) -> str:
        with join(gateway.url, far.url, *more, token=token) as joined:
            _, err = joined.process.communicate(timeout=30)
            assert joined.process.returncode == 2
            return err

    assert "--may-join" in await asyncio.to_thread(ended, token=PLAIN)
    assert "has the models scripted" in await asyncio.to_thread(ended, "--model", "other")
