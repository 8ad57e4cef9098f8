"""The page under a path of nginx, as https to the outside."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.common.command.runtime import free_port
from tests.serve.browser import Browser
from tests.serve.page.live import Person

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
_CONFIG = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /demo/ {{
      proxy_pass {page}/;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-Prefix /demo;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, page_url: str, port: int) -> Iterator[str]:
    """URL under which nginx shows the page; its buffering of answers is on, as by default."""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, page=page_url))
    server = subprocess.Popen([str(NGINX), "-e", f"{folder}/early.log", "-c", str(config)])
    try:
        deadline_s = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None and time.monotonic() < deadline_s, folder
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/demo/"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def behind(open_page, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    page = open_page(
        {"ash": lambda m: "one " * 60, "elm": lambda m: "two " * 60},
        origin=f"https://127.0.0.1:{port}",
        trusted_proxies=("127.0.0.1",),
    )
    page.upstream.piece_s = 0.05
    with nginx(tmp_path, page.url, port) as url:
        yield url


def test_a_battle_is_fought_under_a_path_with_https_in_front(behind: str) -> None:
    person = Person(behind, cookie=False)
    first = person.http.get("")
    assert first.status_code == 200 and "; Secure" in first.headers["set-cookie"]
    assert "max-age" in first.headers["strict-transport-security"]
    name, _, value = first.headers["set-cookie"].partition(";")[0].partition("=")
    person.http.headers["cookie"] = f"{name}={value}"  # https is nginx's word only
    origin = behind.replace("http:", "https:").removesuffix("/demo/")
    person.http.headers["origin"] = origin
    battle = person.ask()
    turns = [side[0]["id"] for side in battle["sides"]]
    start_s = time.monotonic()
    came_s = [time.monotonic() - start_s for event in person.follow(turns) if event.get("html")]
    assert len(came_s) > 4 and came_s[0] < came_s[-1] / 2, "nginx passes events on as they come"
    assert person.act("vote", battle=battle["id"], verdict="tie")["verdict"] == "tie"
    person.http.headers["origin"] = "https://evil.example"
    assert "Another site" in person.act("start")["error"]


@pytest.mark.browser
def test_a_browser_finds_everything_under_the_path(open_page, tmp_path: Path) -> None:
    """Without TLS no Secure cookie is kept, so the origin says http here."""
    port = free_port()
    page = open_page(
        {"ash": lambda m: "one", "elm": lambda m: "two"}, origin=f"http://127.0.0.1:{port}"
    )
    with nginx(tmp_path, page.url, port) as url, contextlib.closing(Browser(20)) as browser:
        browser.open(url.removesuffix("/"))
        browser.type(".box textarea", "Why?\n")
        browser.wait_until(lambda: browser.shows(".vote"))
        browser.click("[data-verdict=left]")
        browser.wait_for(".outcome .card")
        for tab in ("leaderboard", "evaluation"):
            browser.open(f"{url}#{tab}")
            browser.wait_for(".ratings, .notice")
        assert not browser.errors()
