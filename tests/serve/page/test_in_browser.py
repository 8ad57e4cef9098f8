"""What people see and do, in a real Chromium."""

import contextlib
import json
import math
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from apps.common.passages import Passage, write_passages
from apps.serve.page.arena import models
from apps.serve.page.store.database import Database
from apps.serve.page.store.tables import Vote
from tests.serve.browser import Browser
from tests.serve.page.arena.test_evaluation import FOLDER
from tests.serve.page.live import Person
from tests.serve.page.pictures import CHOOSE
from tests.serve.page.talk import GOOD, HOSTILE, OTHER, OUTSIDE

pytestmark = pytest.mark.browser
ASK = ".box textarea"
PAIR = {"vicuna-7b": lambda m: GOOD, "koala-13b": lambda m: OTHER}


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[int, list[str]]]:
    """A host that nobody should ask for anything: its port, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with contextlib.closing(Browser(20, [f"--host-resolver-rules=MAP {OUTSIDE} 127.0.0.1"])) as it:
        it.shape(1280, 900, "light")
        yield it


def begin(browser: Browser, url: str) -> None:
    browser.open("about:blank")
    browser.open(url)
    browser.wait_for(ASK)


def test_a_hostile_answer_loads_nothing_and_stays_in_its_bubble(
    open_page, browser, outside
) -> None:
    port, asked = outside
    text = HOSTILE.replace("PORT", str(port))
    page = open_page({"ash": lambda m: text, "elm": lambda m: text})

    def is_harmless() -> bool:
        browser.wait_for(".answer[data-status=done]")
        browser.wait_until(lambda: browser.all(".answer:not([data-status=done])") == [])
        return stays_inside(browser)

    for tab in ("battle", "chat", "side_by_side"):
        begin(browser, f"{page.url}/#{tab}")
        browser.type(ASK, "Go\n")
        assert is_harmless(), tab
    person = Person(page.url, cookie=False)
    for cookie in browser.driver.get_cookies():
        person.http.cookies.set(cookie["name"], cookie["value"])
    chat = next(talk for talk in person.history() if talk["kind"] == "chat")
    turn = person.act("open", id=chat["id"])["turns"][0]["id"]
    browser.open(f"{page.url}/s/{person.act('share', id=chat['id'], turn=turn)['token']}")
    assert is_harmless(), "a shared link"
    assert asked == []
    browser.open(f"http://{OUTSIDE}:{port}/seen")
    assert asked[:1] == ["/seen"], "the trap itself works"


def test_a_hostile_evaluation_loads_nothing_and_stays_in_its_bubble(
    open_page, browser, outside, tmp_path: Path
) -> None:
    """Answers, the judge's reasons, names, questions: whoever wrote the folder is not trusted."""
    port, asked = outside
    asked.clear()
    text = HOSTILE.replace("PORT", str(port))
    folder = shutil.copytree(FOLDER, tmp_path / "evaluation")
    rewrite(folder / "questions.jsonl", turns=[text], category=text)
    rewrite(folder / "answers" / "base.jsonl", turn_texts=[text])
    rewrite(folder / "answers" / "tuned.jsonl", turn_texts=[text, text], model=text)
    rewrite(folder / "judgments" / "raw.jsonl", response_text=text, judge=text, models=[text, "b"])
    page = open_page(PAIR, evaluation=str(folder))
    browser.open("about:blank")
    browser.open(f"{page.url}/#evaluation")
    browser.wait_for(".detail .answer-body")
    assert browser.all(".judgment"), "what the judge said is on show"
    browser.driver.execute_script(
        "for (const judgment of document.querySelectorAll('.judgment')) judgment.open = true"
    )
    assert stays_inside(browser)
    assert browser.all(f"#main :not(.answer-body *):is({FORBIDDEN}):not({OURS})") == []
    browser.open(f"{page.url}/#leaderboard")  # the judge's ratings, by the same names
    browser.wait_for("main[data-tab=leaderboard] table")
    assert browser.all(f"#main :is({FORBIDDEN}):not({OURS})") == []
    assert browser.driver.execute_script(WIDER_THAN_THE_WINDOW) <= 0
    assert asked == []


def rewrite(path: Path, **fields: object) -> None:
    """Put these fields into every line."""
    lines = [{**json.loads(line), **fields} for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def stays_inside(browser: Browser) -> bool:
    """Whether the hostile answers are on show, which must be harmless."""
    assert browser.all(f".answer-body :is({FORBIDDEN})") == []
    assert browser.driver.execute_script(OUTSIDE_THEIR_BUBBLE) == []
    assert browser.driver.execute_script(WIDER_THAN_THE_WINDOW) <= 0
    return browser.all(f".answer-body a[href*='{OUTSIDE}']") != []


OURS = "input[type=search], svg.interval"
FORBIDDEN = (
    "img, svg, form, input, iframe, object, video, audio, style, link, script, [style], [id]"
)
OUTSIDE_THEIR_BUBBLE = """
const boxes = [...document.querySelectorAll('.answer-body')].map((bubble) => bubble.getBoundingClientRect());
const faults = [...document.querySelectorAll('.answer-body *')].filter((element) =>
    ['fixed', 'sticky'].includes(getComputedStyle(element).position));
for (let x = 4; x < innerWidth; x += 16) for (let y = 4; y < innerHeight; y += 16) {
    const hit = document.elementFromPoint(x, y)?.closest('.answer-body *');
    const inside = boxes.some((box) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom);
    if (hit && !inside) faults.push(hit);
}
return faults.map((element) => element.outerHTML);
"""  # noqa: E501
WIDER_THAN_THE_WINDOW = "return document.documentElement.scrollWidth - innerWidth"


def test_a_battle_by_keyboard_survives_a_reload(open_page, browser, monkeypatch) -> None:
    monkeypatch.setattr(models, "_facts", lambda record: [("Base", "llama"), ("Cost", "$3.00")])
    page = open_page(PAIR, examples=("Why is the sky blue?",))
    begin(browser, f"{page.url}/")
    assert browser.text(".tabs .here") == "Battle"
    page.upstream.pieces = 3
    browser.type(ASK, "Why is the sky blue?\n")
    browser.wait_for(".answer-body .block")
    browser.type(ASK, "And then?\n")
    assert browser.value(ASK) == "And then?", "a second Enter keeps its text"
    browser.driver.refresh()
    browser.wait_for(".answer-body .block")
    page.upstream.pieces = math.inf
    browser.wait_until(lambda: browser.shows(".vote"))
    source = browser.driver.page_source
    assert "vicuna" not in source and "koala" not in source
    browser.driver.execute_script("document.activeElement.blur()")
    browser.press("1")
    browser.wait_for(".outcome .card")
    names = sorted(element.text for element in browser.all(".outcome h2"))
    assert names == ["koala-13b", "vicuna-7b"] and "Your vote is kept." in browser.text(".outcome")
    assert "undefined" not in browser.text(".outcome")
    facts = [[e.text for e in browser.all(f".outcome .card {tag}")] for tag in ("dt", "dd")]
    assert facts == [["Base", "Cost"] * 2, ["llama", "$3.00"] * 2]
    browser.driver.refresh()
    browser.wait_for(".outcome .card")
    assert not browser.errors()


def test_each_of_four_keys_is_a_verdict(open_page, browser) -> None:
    page = open_page(PAIR)
    begin(browser, f"{page.url}/")
    said = ("You preferred A.", "You preferred B.", "You called it a tie.", "You found both bad.")
    for key, sentence in zip("1234", said, strict=True):
        browser.type(ASK, "Why?\n")
        browser.wait_until(lambda: browser.shows(".vote"))
        browser.driver.execute_script("document.activeElement.blur()")
        browser.press(key)
        browser.wait_until(lambda sentence=sentence: sentence in browser.text(".outcome"))
    with (
        contextlib.closing(Database(page.config.database_url)) as database,
        database.read() as rows,
    ):
        votes = rows.scalars(sa.select(Vote).order_by(Vote.created_s)).all()
        assert [vote.verdict for vote in votes] == ["left", "right", "tie", "both_bad"]


def test_who_waits_sees_dots_seconds_and_the_place_in_line(open_page, browser) -> None:
    page = open_page({"ash": lambda m: GOOD})
    page.upstream.pieces = 0
    Person(page.url).ask(kind="chat", models=["ash"])
    begin(browser, f"{page.url}/#chat")
    browser.type(ASK, "Why?\n")
    browser.wait_until(lambda: "1 in front of you" in browser.text(".dots em"))
    assert browser.text(".dots em").partition(" s")[0].isdigit()
    assert len(browser.all(".dots span")) == 3
    page.upstream.pieces = math.inf
    browser.wait_for(".answer[data-status=done]")
    assert browser.all(".dots") == []


def test_an_open_page_goes_on_after_its_process_is_gone(open_page, browser) -> None:
    """The second process listens where the first did, as behind a proxy."""
    from apps.serve.page.web.app import build_page
    from tests.serve.page.live import Live

    page = open_page(PAIR)
    page.upstream.pieces = 3
    with Live(build_page(page.config, page.api_url, [])) as first:
        begin(browser, f"{first.url}/")
        browser.type(ASK, "Why?\n")
        browser.wait_for(".answer-body .block")
    page.upstream.pieces = math.inf
    with Live(build_page(page.config, page.api_url, []), first.port):
        browser.wait_until(lambda: browser.shows(".vote"))
        browser.click("[data-verdict=tie]")
        browser.wait_for(".outcome .card")
        browser.driver.get_log("browser")  # the lost connection, which the browser tells


def test_where_an_answer_came_from_is_shown_as_text(
    open_page, browser, outside, tmp_path: Path
) -> None:
    port, asked = outside
    asked.clear()
    said = "copper kettles sing a low tune whenever the morning frost leaves the garden"
    host = f"http://{OUTSIDE}:{port}"
    image = f'<img src="{host}/a.png"><script>fetch("{host}/b")</script>'
    file = str(tmp_path / "passages.db")
    with write_passages(file) as writer:
        text = f"{image} I know that {said}. {image}"
        writer.add(Passage(conversation=image, turn=2, role="assistant", text=text))
    models = {"ash": lambda m: f"They say {said}.", "elm": lambda m: GOOD, "oak": lambda m: GOOD}
    page = open_page(models, sources={"ash": file, "elm": file})

    def chat(model: str) -> None:
        begin(browser, f"{page.url}/#chat")
        browser.driver.execute_script(CHOOSE, model)
        browser.type(ASK, "Go\n")
        browser.wait_for(".answer[data-status=done]")

    chat("ash")
    browser.click(".sources button")
    assert browser.text(".source mark") == said
    assert browser.text(".source blockquote") == text
    assert "13 words in a row" in browser.text(".source figcaption")
    assert image in browser.text(".source figcaption")
    assert browser.all(f".sources :is({FORBIDDEN})") == []
    assert browser.driver.execute_script(WIDER_THAN_THE_WINDOW) <= 0
    browser.click(".sources button")
    assert not browser.shows(".source")
    chat("elm")
    browser.click(".sources button")
    browser.wait_until(lambda: "No passage of the training data" in browser.text(".sources-panel"))
    chat("oak")
    assert browser.all(".sources") == [], "no index, no control"
    assert asked == [] and not browser.errors()


def test_a_battle_offers_sources_after_its_vote_only(open_page, browser, tmp_path: Path) -> None:
    file = str(tmp_path / "passages.db")
    with write_passages(file) as writer:
        writer.add(Passage(conversation="c", turn=2, role="assistant", text=GOOD))
    page = open_page(PAIR, sources=dict.fromkeys(PAIR, file))
    begin(browser, f"{page.url}/")
    browser.type(ASK, "Why is the sky blue?\n")
    browser.wait_until(lambda: browser.shows(".vote"))
    assert browser.all(".sources") == []
    browser.click("[data-verdict=tie]")
    browser.wait_for(".outcome .card")
    assert len(browser.all(".sources")) == 2


def test_the_page_fits_a_phone(open_page, browser) -> None:
    page = open_page(PAIR, examples=("Why is the sky blue?",))
    for height in (844, 450):
        browser.shape(390, height, "dark")
        begin(browser, f"{page.url}/")
        browser.type(ASK, "Why?\n")
        browser.wait_until(lambda: browser.shows(".vote"))
        assert browser.driver.execute_script(WIDER_THAN_THE_WINDOW) == 0
        assert browser.driver.execute_script(SMALL_TARGETS) == []
        box = browser.wait_for(ASK).rect
        assert box["y"] > 0 and box["y"] + box["height"] <= browser.driver.execute_script(
            "return scrollY + innerHeight"
        )
    browser.shape(1280, 900, "light")


SMALL_TARGETS = """
return [...document.querySelectorAll('button, select, .tabs a')].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && Math.min(box.width, box.height) < 43.5;
}).map((element) => element.outerHTML);
"""
