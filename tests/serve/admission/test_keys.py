"""`python -m apps.serve keys`, and a gateway that reads the file."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.serve import keys as commands
from apps.serve.__main__ import COMMANDS
from apps.serve.admission import keys as key_ring
from apps.serve.admission.keys_file import read_keys
from apps.serve.config import ApiKey, GatewayConfig
from tests.serve.api import Api


@pytest.fixture
def run(tmp_path: Path, capsys):
    def run(*argv: str) -> tuple[int, list[dict], str]:
        argv = ("keys", *argv, "--file", str(tmp_path / "keys.yaml"))
        code = cli.run("apps.serve", COMMANDS, argv)
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


def made(result: tuple[int, list[dict], str]) -> str:
    code, (event,), _ = result
    assert code == 0
    return event["key"]


async def status(api: Api, key: str, path: str = "/v1/models") -> int:
    return (await api.http.get(path, headers={"authorization": f"Bearer {key}"})).status_code


@pytest.fixture
def api(api_saying, tmp_path: Path, monkeypatch) -> Api:
    monkeypatch.setattr(key_ring, "RELOAD_S", 0.0)
    api = api_saying("Hello there")
    api.settings = GatewayConfig(keys_file=str(tmp_path / "keys.yaml"))
    return api


async def settled(api: Api, key: str, wanted: int) -> None:
    for _ in range(200):
        if await status(api, key) == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the key is not answered {wanted}")


async def test_a_key_opens_the_service_when_it_is_added_and_shuts_it_when_revoked(
    run, api: Api
) -> None:
    assert await status(api, "x") == 401
    key = made(run("add", "ali"))
    await settled(api, key, 200)
    assert await status(api, key, "/metrics") == 403
    admin = made(run("add", "root", "--admin"))
    await settled(api, admin, 200)
    assert await status(api, admin, "/metrics") == 200
    run("revoke", "ali")
    await settled(api, key, 401)
    assert await status(api, admin) == 200


async def test_a_change_holds_for_the_first_request_after_a_pause(
    run, api: Api, monkeypatch
) -> None:
    monkeypatch.setattr(key_ring, "RELOAD_S", 0.02)
    key = made(run("add", "ali"))
    assert await status(api, key) == 200
    run("revoke", "ali")
    await asyncio.sleep(0.1)
    assert await status(api, key) == 401
    key = made(run("add", "ali"))
    await asyncio.sleep(0.1)
    assert await status(api, key) == 200


async def test_a_rotated_key_holds_for_its_grace_and_no_longer(run, api: Api) -> None:
    old = made(run("add", "ali", "--requests-per-minute", "9"))
    new = made(run("rotate", "ali", "--grace-hours", "1"))
    await settled(api, new, 200)
    assert await status(api, old) == 200
    last = made(run("rotate", "ali"))
    await settled(api, old, 401)
    await settled(api, new, 401)
    await settled(api, last, 200)
    _, listed, _ = run("list")
    assert [(k["owner"], k["requests_per_minute"]) for k in listed] == [("ali", 9)]


async def test_a_second_rotation_takes_nothing_from_the_grace_of_the_first(
    run, api: Api, tmp_path: Path
) -> None:
    first = made(run("add", "ali"))
    second = made(run("rotate", "ali", "--grace-hours", "24"))
    third = made(run("rotate", "ali", "--grace-hours", "1"))
    for key in (first, second, third):
        await settled(api, key, 200)
    path = tmp_path / "keys.yaml"
    entries = yaml.safe_load(path.read_text())["keys"]
    times = sorted((entry["expires"] or float("inf")) - time.time() for entry in entries)
    assert times[0] < 3601 < times[1] < 24 * 3600 + 1 and times[2] == float("inf")
    path.write_text(
        yaml.safe_dump({"keys": [{**e, "expires": e["expires"] and 1} for e in entries]})
    )
    run("rotate", "ali", "--grace-hours", "1")
    assert len(run("list")[1]) == 2, "what has expired is taken out"


def test_a_rotated_key_keeps_the_limits_that_were_changed_in_its_grace(run, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    run("add", "ali", "--requests-per-minute", "9")
    run("rotate", "ali", "--grace-hours", "1")
    old, new = yaml.safe_load(path.read_text())["keys"]
    path.write_text(yaml.safe_dump({"keys": [old, {**new, "requests_per_minute": 100}]}))
    run("rotate", "ali")
    _, (listed,), _ = run("list")
    assert listed["requests_per_minute"] == 100


def test_keys_that_several_commands_add_at_once_are_all_there(tmp_path: Path, monkeypatch) -> None:
    def read_slowly(uri: str) -> tuple[ApiKey, ...]:
        found = read_keys(uri)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(commands, "read_keys", read_slowly)
    file = str(tmp_path / "new folder" / "keys.yaml")
    names = ["ali", "bob", "cem", "dan"]
    with ThreadPoolExecutor() as pool:
        added = [commands.KeysConfig(action="add", name=name, file=file) for name in names]
        list(pool.map(lambda one: commands.keys(one, Reporter("json")), added))
    assert sorted(key.name for key in read_keys(file)) == names


def test_the_file_holds_no_key_and_is_refused_when_it_is_wrong(run, tmp_path: Path) -> None:
    key = made(run("add", "ali"))
    assert key not in (tmp_path / "keys.yaml").read_text()
    code, _, err = run("add", "ali")
    assert code == 2 and "use `keys rotate`" in err
    code, _, err = run("revoke", "bob")
    assert code == 2 and "no key of 'bob'" in err
    (tmp_path / "keys.yaml").write_text("keys: [{name: ali, sha256: short}]")
    code, _, err = run("list")
    assert code == 2 and "not a SHA-256 digest" in err


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("rotate ali --grace-hours nan", "grace_hours is nan; expected at least 0"),
        ("rotate ali --grace-hours -1", "grace_hours is -1.0; expected at least 0"),
        ("rotate ali --usd-per-day 5", "--usd-per-day is for `keys add`; leave it out. A key's l"),
        ("revoke ali --models vicuna", "--models is for `keys add`"),
        ("add bob --grace-hours 2", "--grace-hours is for `keys rotate`"),
    ],
)
def test_what_an_action_does_not_read_is_refused(
    run, tmp_path: Path, typed: str, sentence: str
) -> None:
    run("add", "ali")
    before = (tmp_path / "keys.yaml").read_text()
    code, events, err = run(*typed.split())
    assert (code, events) == (2, []) and sentence in err
    assert (tmp_path / "keys.yaml").read_text() == before


@pytest.mark.parametrize("action", ["list", "rotate ali", "revoke ali"])
def test_a_file_that_is_not_there_is_told(run, tmp_path: Path, action: str) -> None:
    code, events, err = run(*action.split())
    assert (code, events) == (2, []) and "keys.yaml does not exist; give --file FILE" in err
    assert not (tmp_path / "keys.yaml").exists()


def test_a_key_file_is_its_owners_and_stays_as_it_was_opened(run, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    run("add", "ali")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    run("add", "bob")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "entry",
    [
        *("abc", "null", "[1]", "1", "{}", "{name: a, sha256: 0x_}"),
        *("{name: a, sha256: DIGEST, expires: 2025-13-45}", "[" * 2000),
        "{name: a, sha256: DIGEST, usd_per_day: " + "9" * 400 + "}",
    ],
)
def test_a_file_with_anything_else_in_it_is_one_sentence(run, tmp_path: Path, entry: str) -> None:
    text = "keys: [" + entry.replace("DIGEST", "0" * 64) + "]"
    (tmp_path / "keys.yaml").write_text(text)
    code, events, err = run("list")
    assert (code, events) == (2, []) and "Traceback" not in err
    assert "keys.yaml" in err and len(err.strip().splitlines()) == 1
    code, _, err = run("add", "ali")
    assert code == 2 and (tmp_path / "keys.yaml").read_text() == text


@pytest.mark.parametrize("text", ["keys: 0", "keys: false", "keys: ''", "keys: {}"])
def test_keys_that_are_no_list_are_refused(run, tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    code, _, err = run("add", "ali")
    assert code == 2 and "not a list" in err


@pytest.mark.parametrize("text", ["keys: 3", "keys: [", "", "# being written\n", None])
async def test_a_file_that_breaks_keeps_the_keys_that_were_read_and_says_so_once(
    run, api: Api, tmp_path: Path, monkeypatch, text: str | None
) -> None:
    said, file = list[str](), tmp_path / "keys.yaml"
    warn = lambda sentence, *values: said.append(sentence % values)  # noqa: E731
    monkeypatch.setattr(key_ring.logger, "warning", warn)
    key = made(run("add", "ali"))
    await settled(api, key, 200)
    whole = file.read_text()
    file.unlink() if text is None else file.write_text(text)
    for _ in range(5):
        assert (await status(api, key), await status(api, "other")) == (200, 401)
        await asyncio.sleep(0.02)
    (sentence,) = said
    assert sentence.startswith(f"the keys of {file} stay those read last: {file}")
    file.write_text(whole)
    assert run("revoke", "ali")[0] == 0
    await settled(api, key, 401)


async def test_limits_and_models_of_a_key_hold_and_the_answer_says_which(run, api: Api) -> None:
    key = made(run("add", "ali", "--requests-per-minute", "2"))
    other = made(run("add", "bob", "--models", "another"))
    await settled(api, key, 200)
    await settled(api, other, 200)
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}
    answers = [
        await api.http.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {k}"}
        )
        for k in (key, key, key, other)
    ]
    assert [a.status_code for a in answers] == [200, 200, 429, 403]
    assert answers[2].json()["error"]["code"] == "requests_per_minute"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[3].json()["error"]["code"] == "model_not_allowed"
    text = (await api.http.get("/v1/models", headers={"authorization": f"Bearer {other}"})).json()
    assert text["data"] == []


async def test_tokenizing_is_a_request_too(run, api: Api) -> None:
    key = made(run("add", "ali", "--requests-per-minute", "2", "--concurrent-streams", "1"))
    await settled(api, key, 200)
    body = {"model": "scripted", "prompt": "hi"}
    api.http.headers["authorization"] = f"Bearer {key}"
    codes = [(await api.http.post("/tokenize", json=body)).status_code for _ in range(3)]
    assert codes == [200, 200, 429]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_ray_that_says_nothing_holds_one_thread_and_no_request(
    run, api: Api, monkeypatch
) -> None:
    from apps.serve import deployment

    asked, ends = [], threading.Event()
    monkeypatch.setattr(deployment, "_limiter_actor", lambda url: (asked.append(url), ends.wait(9)))
    monkeypatch.setattr("apps.serve.gateway.limits._ANSWER_TIMEOUT_S", 0.05)
    api.limits._shared = deployment.ActorLimiter(lambda: "")
    key = made(run("add", "bob", "--requests-per-minute", "50"))
    await settled(api, key, 200)
    api.http.headers["authorization"] = f"Bearer {key}"
    try:
        answers = await asyncio.gather(*(api.chat() for _ in range(60)))
    finally:
        ends.set()
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) in (50, 51)  # one more where a minute ends meanwhile
    assert codes.count(200) + codes.count(429) == 60 and len(asked) == 1


async def test_a_limiter_that_is_away_leaves_each_gateway_its_own_counts(run, api: Api) -> None:
    charged: list[tuple[int, int]] = []

    class Away:
        """As one whose Redis is."""

        async def admit(self, *_: object) -> None:
            raise ConnectionError

        def charge(self, key: ApiKey, tokens: int, usd: float, requests: int = 0) -> None:
            charged.append((tokens, requests))

        def renew(self, *_: object) -> None: ...

    api.limits._shared = Away()
    key = made(run("add", "ali", "--requests-per-minute", "1"))
    await settled(api, key, 200)
    api.http.headers["authorization"] = f"Bearer {key}"
    answer, refused = [await api.chat() for _ in range(2)]
    assert (answer.status_code, refused.status_code) == (200, 429)
    usage = answer.json()["usage"]
    assert charged == [(usage["prompt_tokens"], 1), (usage["completion_tokens"], 0)]


async def test_a_limiter_that_is_frozen_holds_up_one_request_and_not_each(
    run, api: Api, monkeypatch
) -> None:
    class Frozen:
        def __init__(self) -> None:
            self.asked, self.charged = 0, 0

        async def admit(self, *_: object) -> None:
            self.asked += 1
            if self.asked < 4:
                await asyncio.sleep(60)

        def charge(self, key: ApiKey, tokens: int, usd: float, requests: int = 0) -> None:
            self.charged += tokens

        def renew(self, *_: object) -> None: ...

    monkeypatch.setattr("apps.serve.gateway.limits._ANSWER_TIMEOUT_S", 0.05)
    monkeypatch.setattr("apps.serve.gateway.limits._SILENCE_S", 0.4)
    frozen = Frozen()
    api.limits._shared = frozen
    key = made(run("add", "ali", "--tokens-per-minute", "9000"))
    await settled(api, key, 200)
    api.http.headers["authorization"] = f"Bearer {key}"
    used = [(await api.chat()).json()["usage"]["total_tokens"] for _ in range(5)]
    assert frozen.asked == 1
    # The first one's prompt is charged by the limiter itself, when it thaws.
    assert frozen.charged == sum(used) - (used[0] - len("Hello there") - 1)
    await asyncio.sleep(0.4)
    await asyncio.gather(*(api.chat() for _ in range(5)))
    assert frozen.asked == 2
    await asyncio.sleep(0.4)
    await api.chat()
    await asyncio.sleep(0.4)
    for _ in range(3):  # it answers again
        await api.chat()
    assert frozen.asked == 6
