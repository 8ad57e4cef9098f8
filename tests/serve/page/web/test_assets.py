"""What a browser has to fetch before it can show the page, and what it need not fetch again."""

import re
from pathlib import Path

import httpx
import pytest

from apps.serve.page.web import assets
from tests.serve.page.live import Person

STATIC = Path(assets.__file__).with_name("static")
GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture
def page(open_page) -> httpx.Client:
    return Person(open_page({"ash": lambda m: "x", "elm": lambda m: "y"}).url).http


def test_the_page_is_light_and_kept(page: httpx.Client) -> None:
    files = set(re.findall(r'"(static/[^"]+)"', page.get("/").text))
    sizes = [int(page.get("/", headers=GZIP).headers["content-length"])]
    for name in files:
        response = page.get(name, headers=GZIP)
        assert response.status_code == 200 and response.headers["content-encoding"] == "gzip"
        assert "immutable" in response.headers["cache-control"]
        sizes.append(int(response.headers["content-length"]))
    assert len(files) <= 17 and sum(sizes) < 40_000


def test_every_module_is_fetched_at_once_and_none_in_vain(page: httpx.Client) -> None:
    html = page.get("/").text
    named = re.findall(r'<link rel="modulepreload" href="static/\w+/([^"]+)">', html)
    imported = {
        name
        for path in STATIC.glob("*.js")
        for name in re.findall(r'from "\./([^"]+)"', path.read_text())
    }
    assert sorted(named) == sorted(imported) and "app.js" not in named


def test_only_what_the_first_paint_needs_stands_before_it(page: httpx.Client) -> None:
    html = page.get("/").text
    blocking = re.findall(r'<link rel="stylesheet"|<script(?! type="module")', html)
    assert len(blocking) == 2, "one style sheet, and the script that knows dark from light"
    assert "{{" not in html


def test_long_answers_of_the_server_are_compressed(page: httpx.Client) -> None:
    start = page.post("/gradio_api/run/start", json={"data": ["{}"]}, headers=GZIP)
    assert start.headers["content-encoding"] == "gzip" and "models" in start.text
    events = page.get("/events?turns=", headers=GZIP)
    assert "content-encoding" not in events.headers, "a stream is never held back to be compressed"
