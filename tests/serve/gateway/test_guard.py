"""What is asked of a request before its body is read."""

import asyncio
import dataclasses
import hashlib

import httpx
import pytest

from apps.serve.applications import spot_addresses
from apps.serve.config import ApiKey, GatewayConfig, Limits, ModelConfig
from apps.serve.gateway.guard import BAD_KEYS_PER_MINUTE, client_address
from apps.serve.model.entry import Entry
from apps.serve.model.served import load_model
from tests.serve.api import Api, LiveServer
from tests.serve.scripted import ScriptedEngine

KEYS = tuple(
    ApiKey(name=name, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in ("ali", "bob")
)


async def test_large_headers_are_refused(api_saying) -> None:
    response = await api_saying("x").http.get("/v1/models", headers={"x-large": "a" * 70_000})
    assert response.status_code == 431


async def test_a_second_authorization_header_is_refused(api_saying) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(api_keys=KEYS)
    twice = [("authorization", "Bearer ali"), ("authorization", "Bearer bob")]
    assert (await api.http.get("/v1/models", headers=twice)).status_code == 400


async def test_a_body_that_stalls_is_answered_408(api_saying) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(body_timeout_s=0.05)

    async def stalled():
        yield b"{"
        await asyncio.sleep(60)

    headers = {"content-type": "application/json"}
    response = await api.http.post("/v1/completions", content=stalled(), headers=headers)
    assert (response.status_code, response.json()["error"]["type"]) == (408, "timeout_error")


async def test_an_address_that_guesses_keys_is_told_to_wait_and_a_good_key_is_not(
    api_saying,
) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(api_keys=KEYS)

    async def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return (await api.http.get("/v1/models", headers=headers)).status_code

    answers = [await status(f"guess{i}") for i in range(BAD_KEYS_PER_MINUTE + 1)]
    assert answers == [401] * BAD_KEYS_PER_MINUTE + [429]
    assert await status("ali") == 200


@pytest.mark.parametrize(
    ("client", "forwarded", "trusted", "address"),
    [
        ("9.9.9.9", "1.1.1.1", (), "9.9.9.9"),
        ("10.0.0.2", "1.1.1.1, 2.2.2.2, 10.0.0.1", ("10.0.0.0/8",), "2.2.2.2"),
        ("10.0.0.2", "", ("10.0.0.0/8",), "10.0.0.2"),
        ("10.0.0.2", "2.2.2.2:567, 10.0.0.1:80", ("10.0.0.0/8",), "2.2.2.2"),
        ("10.0.0.2", "[2001:db8::1]:567", ("10.0.0.0/8",), "2001:db8::1"),
        ("10.0.0.2", "2001:db8::1", ("10.0.0.0/8",), "2001:db8::1"),
        ("::1", "made up", ("::1",), "made up"),
        ("::ffff:10.0.0.2", "::FFFF:2.2.2.2, [::ffff:10.0.0.1]:80", ("10.0.0.0/8",), "2.2.2.2"),
    ],
)
def test_a_clients_address_is_believed_of_trusted_proxies_only(
    client: str, forwarded: str, trusted: tuple[str, ...], address: str
) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert client_address({"client": (client, 1), "headers": headers}, trusted) == address


def test_what_uvicorn_took_from_a_header_is_no_client() -> None:
    """It believes a proxy on this host unasked, and then says port 0."""
    scope = {"client": ("1.1.1.1", 0), "headers": [(b"x-forwarded-for", b"1.1.1.1")]}
    assert client_address(scope, ()) == "127.0.0.1"
    assert client_address(scope, ("127.0.0.1",)) == "1.1.1.1"


async def test_pages_of_the_named_sites_may_call_and_others_not(api_saying) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(api_keys=KEYS, cors_origins=("https://a.example",))

    # As OpenAI's client for JavaScript asks, and a page with headers of its own.
    asked = "authorization,content-type,x-stainless-arch,x-stainless-retry-count,x-mine"

    async def preflight(origin: str) -> str | None:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        headers["access-control-request-headers"] = asked
        response = await api.http.options("/v1/chat/completions", headers=headers)
        if response.status_code != 200:
            return None
        assert response.headers["access-control-allow-headers"] == asked
        return response.headers.get("access-control-allow-origin")

    assert await preflight("https://a.example") == "https://a.example"
    assert await preflight("https://b.example") is None
    api.settings = GatewayConfig(api_keys=KEYS)
    assert await preflight("https://a.example") is None


async def test_a_page_elsewhere_reads_the_headers_that_it_goes_on_by(api_saying) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(cors_origins=("*",))
    answer = await api.http.get("/v1/models", headers={"origin": "https://a.example"})
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"retry-after", "x-request-id", "x-goes-on-from"} == set(exposed)


async def test_a_slash_at_the_end_leads_nowhere_else(api_saying) -> None:
    """A redirect would send a client that came by https, and its key, to http."""
    api = api_saying("x")
    body = {"model": "scripted", "prompt": "x"}
    assert (await api.http.post("/v1/completions/", json=body)).status_code == 200
    assert (await api.http.get("/v1/models/")).json()["data"][0]["id"] == "scripted"
    assert (await api.http.get("/health/")).json() == {"status": "ok"}
    assert (
        'endpoint="completions",key="",model="scripted"' in (await api.http.get("/metrics/")).text
    )


@pytest.mark.parametrize("keys", [(), KEYS])
async def test_where_there_is_no_page_a_browser_is_told_so(api_saying, keys) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(api_keys=keys)
    for path in ("/", "/ui"):
        answer = await api.http.get(path, follow_redirects=True)
        assert answer.status_code == 404
        assert "no web page here: page.enabled is false" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("models", "seen"), [(("scripted",), 200), (("gpt-x",), 200), (("other",), 403)]
)
async def test_a_key_may_use_the_models_that_it_names_by_name_or_alias(
    api_saying, models: tuple[str, ...], seen: int
) -> None:
    """A model that is renamed keeps its old name as an alias, and the keys that have that."""
    api = api_saying("x")
    key = dataclasses.replace(KEYS[0], models=models)
    api.settings = GatewayConfig(api_keys=(key,))
    api.http.headers["authorization"] = "Bearer ali"
    body = {"model": "gpt-x", "prompt": "x"}
    for answer in (
        await api.http.post("/v1/completions", json=body),
        await api.http.post("/tokenize", json=body),
        await api.http.get("/v1/models/gpt-x"),
    ):
        assert answer.status_code == seen
    listed = (await api.http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == (["scripted"] if seen == 200 else [])
    unknown = (await api.http.get("/v1/models/nobody")).json()["error"]["message"]
    assert ("scripted" in unknown) == (seen == 200)


async def test_without_a_key_nobody_learns_which_models_there_are(api_saying) -> None:
    api = api_saying("x")
    assert (await api.http.get("/ready")).json() == {"ready": True, "models": {"scripted": True}}
    api.settings = GatewayConfig(api_keys=KEYS)
    for path in ("/", "/health", "/ready", "/version", "/v1/models", "/metrics", "/openapi.json"):
        assert "scripted" not in (await api.http.get(path)).text
    assert (await api.http.get("/ready")).json() == {"ready": True}


async def test_an_entry_on_a_spot_machine_asks_a_load_balancer_to_go_elsewhere(api_saying) -> None:
    api = api_saying("x")
    api.settings = GatewayConfig(api_keys=KEYS)
    with LiveServer(api) as server:
        for spot, status in (((), 200), (("10.0.0.9",), 200), (("10.0.0.9", "127.0.0.1"), 503)):
            api.directory.spot = frozenset(spot)
            assert httpx.get(f"{server.url}/entry").status_code == status


def test_spot_machines_are_entries_where_there_are_no_others() -> None:
    def machine(address: str, market: str, alive: bool = True) -> dict[str, object]:
        labels = {"ray.io/market-type": market} if market else {}
        return {"NodeManagerAddress": address, "Alive": alive, "Labels": labels}

    head, gone = machine("10.0.0.1", ""), machine("10.0.0.1", "", alive=False)
    spot = [machine("10.0.0.2", "spot"), machine("10.0.0.3", "spot")]
    assert spot_addresses([head, *spot]) == {"10.0.0.2", "10.0.0.3"}
    assert spot_addresses([gone, *spot]) == frozenset() == spot_addresses([])
    assert spot_addresses([machine("10.0.0.4", "on-demand"), spot[0]]) == {"10.0.0.2"}


async def test_beside_a_flood_a_light_key_is_served_and_retry_after_is_the_queues(
    model_folder,
) -> None:
    config = ModelConfig(name="scripted", path=str(model_folder), limits=Limits(queue_timeout_s=30))
    api = Api(load_model(config), ScriptedEngine(lambda request: [70] * 20, step_s=0.001))
    api.settings = GatewayConfig(api_keys=KEYS)
    entry = api.directory.entries["scripted"]
    assert isinstance(entry, Entry)
    entry.queue.places, entry.queue.max_waiting = 4, 8

    async def ask(key: str):
        body = {"model": "scripted", "prompt": "x", "max_tokens": 20}
        headers = {"authorization": f"Bearer {key}"}
        return await api.http.post("/v1/completions", json=body, headers=headers)

    flood = [asyncio.create_task(ask("ali")) for _ in range(100)]
    light = []
    for _ in range(10):
        await asyncio.sleep(0.005)
        light.append(await ask("bob"))
    flooded = await asyncio.gather(*flood)
    assert {answer.status_code for answer in light} == {200}
    assert {answer.status_code for answer in flooded} == {200, 429}
    waits = {answer.headers["retry-after"] for answer in flooded if answer.status_code == 429}
    assert all(int(wait) >= 1 for wait in waits)
