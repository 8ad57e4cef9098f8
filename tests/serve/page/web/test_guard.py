"""What a request meets before the page: hosts, origins, sizes, and Gradio's own routes."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from gradio.queueing import Queue

from apps.common.errors import ConfigError
from apps.serve.page.arena.leaderboard import Leaderboard
from apps.serve.page.config import PageConfig, PageLimits
from apps.serve.page.store.database import Database, now_s
from apps.serve.page.store.limits import forget_counted
from apps.serve.page.store.tables import WrongPassword
from apps.serve.page.web import guard as guard_module
from apps.serve.page.web.guard import ACTION, Guard
from apps.serve.page.web.login import Door
from apps.serve.page.web.visitors import COOKIE, Visitors
from tests.serve.page.conftest import OpenPage
from tests.serve.page.live import Person

TWO = {"ash": lambda messages: "one", "elm": lambda messages: "two"}
POLICY = "content-security-policy"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/guard.db")
    yield made
    made.close()


def test_every_response_carries_the_policy(open_page) -> None:
    page = open_page(TWO, frame_ancestors=("https://lab.example",))
    person = Person(page.url)
    responses = [
        person.http.get(path)
        for path in (
            "/",
            "/nothing",
            "/events?turns=x",
            "/favicon.ico",
            "/static/0/x.js",
            "/robots.txt",
        )
    ]
    responses.append(person.http.post("/gradio_api/run/start", json={"data": ["{}"]}))
    responses.append(person.http.post("/gradio_api/run/start", json={"data": [1]}))
    for response in responses:
        policy = response.headers[POLICY]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "frame-ancestors https://lab.example;" in policy
        assert "http://" not in policy and response.headers["x-content-type-options"] == "nosniff"


def test_an_idle_page_lets_the_engine_run(open_page, monkeypatch) -> None:
    looks: list[Queue] = []

    def count(queue: Queue) -> int:
        looks.append(queue)
        return 0

    monkeypatch.setattr(Queue, "__len__", count)
    person = Person(open_page(TWO).url)
    person.http.get("/")
    time.sleep(0.5)  # Gradio's own pace would be hundreds of looks
    assert 1 <= len(looks) <= 10


def test_gradios_own_routes_are_closed(open_page) -> None:
    person = Person(open_page(TWO).url)
    for path in (
        "config", "info", "gradio_api/info", "gradio_api/file=/etc/passwd", "monitoring",
        "gradio_api/proxy=http://x", "gradio_api/startup-events", "theme.css", "docs",
        "openapi.json", "gradio_api/queue/data",
    ):  # fmt: skip
        assert person.http.get(f"/{path}").status_code == 404, path
    for path in ("gradio_api/upload", "gradio_api/queue/join", "gradio_api/call/ask"):
        assert person.http.post(f"/{path}", json={"data": ["{}"]}).status_code == 404, path


def test_gradio_never_sees_a_file_that_a_visitor_names(open_page) -> None:
    person = Person(open_page(TWO).url)
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    assert "one JSON text" in person.raw("ask", file)["error"]
    assert "not understood" in person.raw("ask", "[]")["error"]
    assert "not understood" in person.act("vote", battle=file, verdict="left")["error"]


def test_a_body_that_is_too_long_is_refused_before_it_is_read(open_page) -> None:
    person = Person(open_page(TWO, max_input_chars=100).url)
    assert "longer" in person.act("ask", text="x" * 200_000)["error"]
    assert "200 characters" in person.ask("x" * 200)["error"]
    assert "error" not in person.ask("😀" * 100)


def test_a_body_that_stalls_is_answered(open_page, monkeypatch) -> None:
    monkeypatch.setattr(guard_module, "_BODY_TIMEOUT_S", 0.1)
    person = Person(open_page(TWO).url)

    def stalled() -> Iterator[bytes]:
        yield b'{"data": ['
        time.sleep(1)

    headers = {"content-type": "application/json"}
    for path in ("/gradio_api/run/ask", "/login"):
        response = person.http.post(path, content=stalled(), headers=headers)
        assert response.status_code == 408 and "did not come whole" in response.json()["error"]


def test_another_site_cannot_act_for_a_visitor(open_page) -> None:
    person = Person(open_page(TWO).url)
    url, body = "/gradio_api/run/start", {"data": ["{}"]}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Content-Type": "text/plain"},
    ):
        assert person.http.post(url, json=body, headers=headers).status_code == 403, headers
    own = {"Origin": str(person.http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert person.http.post(url, json=body, headers=own).status_code == 200
    assert Person(str(person.http.base_url), cookie=False).act("start")["error"]


def test_only_the_configured_host_is_answered(open_page) -> None:
    person = Person(open_page(TWO, origin="https://chat.example").url)
    assert person.http.get("/").status_code == 421
    response = person.http.get("/", headers={"Host": "chat.example"})
    assert response.status_code == 200 and "; Secure" in response.headers["set-cookie"]
    assert "max-age" in response.headers["strict-transport-security"]


def test_a_host_is_the_same_in_capitals_and_with_the_port_that_goes_without_saying(
    open_page,
) -> None:
    person = Person(open_page(TWO, origin="https://Chat.Example:443").url, cookie=False)
    for host, status in (
        ("chat.example", 200),
        ("chat.example:443", 200),
        ("chat.example:80", 421),
    ):
        assert person.http.get("/", headers={"host": host}).status_code == status
    cookie = person.http.get("/", headers={"host": "chat.example"}).headers["set-cookie"]
    for origin, status in (("https://chat.example", 200), ("https://other.example", 403)):
        headers = {"host": "chat.example", "origin": origin, "cookie": cookie.partition(";")[0]}
        answer = person.http.post(f"{ACTION}start", json={"data": ["{}"]}, headers=headers)
        assert answer.status_code == status


async def test_an_error_inside_never_shows_its_text(database: Database) -> None:
    page = PageConfig()
    app = FastAPI()

    @app.post("/gradio_api/run/start")
    async def start() -> None:
        raise RuntimeError("/srv/secret")

    visitors = Visitors(page, "secret")
    guard = Guard(app, page, visitors, Door(page, "secret", database), ["start"])
    transport = httpx.ASGITransport(guard, raise_app_exceptions=False)
    cookie = visitors.new_cookie().decode().partition(";")[0].partition("=")[2]
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        http.cookies.set(COOKIE, cookie)
        response = await http.post("/gradio_api/run/start", json={"data": [""]})
    assert response.status_code == 500 and response.json() == {
        "error": "The page failed. Try again in a moment."
    }


def test_every_error_is_a_sentence_of_ours(open_page, monkeypatch) -> None:
    person = Person(open_page(TWO).url)
    paths = {
        "/question.json": 404,
        "/events": 404,
        "/static/0123456789abcdef/none.js": 404,
        f"/s/{'x' * 43}.json": 404,
        f"/download/{'0' * 32}.md": 404,
        "/leaderboard.json": 500,
    }
    monkeypatch.setattr(Leaderboard, "tables", lambda self: 1 / 0)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    for path, status in paths.items():
        response = person.http.get(path)
        assert response.status_code == status, path
        assert list(response.json()) == ["error"] and response.json()["error"].endswith("."), path


def test_whoever_asks_for_the_head_alone_gets_it(open_page) -> None:
    """Link previews and monitors do."""
    person = Person(open_page(TWO).url)
    for path in ("/", "/favicon.ico", "/leaderboard.json"):
        response = person.http.head(path)
        assert response.status_code == 200 and response.content == b"", path
        assert response.headers["content-type"] == person.http.get(path).headers["content-type"]


def test_a_proxy_on_this_host_is_believed_only_where_it_is_configured(open_page) -> None:
    """uvicorn believes it unasked: whoever says another address each time had no limit."""
    one_a_network = PageLimits(address_answers_per_hour=1)

    def ask(page, address: str) -> dict:
        person = Person(page.url)
        person.http.headers["x-forwarded-for"] = address
        return person.ask(kind="chat", models=["ash"])

    addresses = ("1.1.1.1", "2.2.2.2", "3.3.3.3")
    page = open_page(TWO, limits=one_a_network)
    assert ["error" in ask(page, address) for address in addresses] == [False, True, True]
    page = open_page(TWO, limits=one_a_network, trusted_proxies=("127.0.0.1",))
    assert ["error" in ask(page, address) for address in addresses] == [False] * 3


def test_each_proxy_of_a_chain_may_write_a_line_of_its_own(open_page) -> None:
    limits, chain = PageLimits(address_answers_per_hour=1), ("127.0.0.1", "10.0.0.0/8")
    page = open_page(TWO, limits=limits, trusted_proxies=chain)

    def ask(*lines: str) -> dict:
        person = Person(page.url)
        person.http.headers = httpx.Headers(
            [*person.http.headers.multi_items(), *(("x-forwarded-for", line) for line in lines)]
        )
        return person.ask(kind="chat", models=["ash"])

    said = [ask("9.9.9.9, 1.1.1.1", "10.0.0.2"), ask("2.2.2.2", "10.0.0.2"), ask("2.2.2.3")]
    assert ["error" in one for one in said] == [False, False, True]


def test_a_login_of_a_proxy_on_this_host_is_believed_whomever_it_speaks_for(open_page) -> None:
    page = open_page(TWO, login_header="X-User", trusted_proxies=("127.0.0.1",))
    person = Person(page.url)
    person.http.headers["x-forwarded-for"] = "1.1.1.1"
    assert person.act("start") == {"error": "Log in first."}
    person.http.headers["x-user"] = "ann"
    assert "models" in person.act("start")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
        ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1:567, 10.0.0.2:80", "1.1.1.1"),
        ("10.0.0.1", "[2001:db8::1]:567", "2001:db8::1"),
    ],
)
def test_only_configured_proxies_tell_an_address(peer: str, forwarded: str, address: str) -> None:
    visitors = Visitors(PageConfig(trusted_proxies=("10.0.0.0/8",)), "secret")
    assert visitors.address({b"x-forwarded-for": forwarded.encode()}, peer) == address


def test_a_cookie_that_we_did_not_sign_is_nobody() -> None:
    visitors = Visitors(PageConfig(), "secret")
    cookie = visitors.new_cookie().partition(b";")[0]
    assert visitors.asker({b"cookie": cookie}, "1.1.1.1") is not None
    assert visitors.asker({b"cookie": cookie + b"x"}, "1.1.1.1") is None
    assert Visitors(PageConfig(), "other").asker({b"cookie": cookie}, "1.1.1.1") is None


def test_a_password_opens_the_page_and_only_the_right_one(open_page, monkeypatch) -> None:
    monkeypatch.setenv("PAGE_PASSWORD", "péché")
    person = Person(open_page(TWO, login_password_env="PAGE_PASSWORD").url)
    assert person.act("start") == {"error": "Log in first."}
    assert person.http.get("/leaderboard.json").status_code == 401
    headers = {"Content-Type": "application/json"}
    for wrong in ("", "x"):
        assert person.http.post("/login", content=wrong, headers=headers).status_code == 403
    assert person.http.post("/login", content="péché", headers=headers).status_code == 200
    assert "models" in person.act("start")


PASSWORD = "the right one"


@pytest.fixture
def guess(monkeypatch) -> Callable[..., httpx.Response]:
    """`guess(url, password, network)`: as who comes from there, through a proxy that is trusted."""
    monkeypatch.setenv("PAGE_PASSWORD", PASSWORD)
    monkeypatch.setattr("apps.serve.page.web.guard._WRONG_PASSWORD_S", 0.0)

    def make(url: str, password: str, network: int) -> httpx.Response:
        headers = {
            "Content-Type": "application/json",
            "X-Forwarded-For": f"10.{network // 256}.{network % 256}.1",
        }
        return httpx.post(f"{url}/login", content=password, headers=headers, verify=False)

    return make


def guarded(open_page: Callable[..., OpenPage], **limits: int) -> OpenPage:
    return open_page(
        TWO,
        login_password_env="PAGE_PASSWORD",
        trusted_proxies=("127.0.0.1",),
        limits=PageLimits(**limits),
    )


def test_guesses_are_few_from_however_many_places_they_come(open_page, guess) -> None:
    """And over all processes; who has logged in goes on."""
    page = guarded(open_page, all_wrong_passwords_per_hour=20)
    inside = Person(page.url)
    entered = guess(page.url, PASSWORD, 0)
    inside.http.cookies.update(entered.cookies)
    with page.another() as other, ThreadPoolExecutor(8) as pool:
        places = [(page.url, other)[number % 2] for number in range(60)]
        answers = list(pool.map(guess, places, ["x"] * 60, range(60)))
        assert Counter(answer.status_code for answer in answers) == {403: 20, 429: 40}
        late = guess(other, PASSWORD, 99)
        assert late.status_code == 429 and 3000 < int(late.headers["retry-after"]) <= 3600
        assert late.json()["error"].startswith("All visitors together have tried too many")
        for url in (page.url, other):
            inside.http.base_url = url
            assert "models" in inside.act("start")
        talk = inside.wait(inside.ask(kind="chat", models=["ash"]))
        assert talk["turns"][0]["status"] == "done"


def test_right_passwords_side_by_side_are_no_guesses(open_page, guess) -> None:
    page = guarded(open_page, address_wrong_passwords_per_hour=2)
    assert guess(page.url, "wrong", 7).status_code == 403
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(guess, [page.url] * 12, [PASSWORD] * 12, [7] * 12))
    assert {answer.status_code for answer in answers} == {200}


def test_guesses_from_one_network_keep_nobody_else_out(open_page, guess, tmp_path: Path) -> None:
    page = guarded(open_page, address_wrong_passwords_per_hour=3)
    said = [guess(page.url, word, 7).status_code for word in ("a", "b", PASSWORD, "c", "d")]
    assert said == [403, 403, 200, 403, 429], "a right one is no guess"
    assert guess(page.url, PASSWORD, 7).status_code == 429
    assert guess(page.url, PASSWORD, 8).status_code == 200
    database = Database(f"sqlite:///{tmp_path}/page.db")
    with database.write() as session:
        session.execute(sa.update(WrongPassword).values(created_s=now_s() - 3601))
    with page.another() as other:
        assert guess(other, PASSWORD, 7).status_code == 200, "an hour later"
    with database.write() as session:
        forget_counted(session)
        assert session.scalar(sa.select(sa.func.count()).select_from(WrongPassword)) == 0
    database.close()


def test_a_proxy_that_has_logged_a_visitor_in_is_believed_and_nobody_else(
    database: Database,
) -> None:
    page = PageConfig(login_header="X-User", trusted_proxies=("10.0.0.1",))
    door = Door(page, "secret", database)
    assert door.is_open_for({b"x-user": b"ann"}, True)
    assert not door.is_open_for({b"x-user": b"ann"}, False) and not door.is_open_for({}, True)
    with pytest.raises(ConfigError, match="trusted_proxies"):
        PageConfig(login_header="X-User")
    with pytest.raises(ConfigError, match="is not set"):
        Door(PageConfig(login_password_env="NOT_SET_ANYWHERE"), "secret", database)
