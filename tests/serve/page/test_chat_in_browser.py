"""Chat as a visitor uses it, in a real Chromium: branches, second tries, links, files, deletion."""

import contextlib
import math
from collections.abc import Iterator

import pytest

from tests.serve.browser import Browser
from tests.serve.page.arena.test_evaluation import FOLDER
from tests.serve.page.live import Person
from tests.serve.page.talk import GOOD, OTHER

pytestmark = pytest.mark.browser
ASK = ".box textarea"
LINES = "\n\n".join(f"Line {n} of a long answer." for n in range(200))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with contextlib.closing(Browser(20)) as it:
        it.shape(1280, 900, "light")
        yield it


LOSE_ONE = """
const real = window.fetch;
window.fetch = async () => {
  [window.fetch, window.lost] = [real, true];
  throw new TypeError("lost");
};
"""


def begin(browser: Browser, url: str, *questions: str) -> None:
    browser.open("about:blank")
    browser.open(f"{url}/#chat")
    browser.wait_for(ASK)
    for number, question in enumerate(questions, 1):
        browser.type(ASK, f"{question}\n")
        finished(browser, number)


def finished(browser: Browser, number: int) -> None:
    """So many answers are there, and the next question may be asked."""
    browser.wait_until(lambda: len(browser.all(".answer[data-status=done]")) == number)
    browser.wait_until(lambda: browser.shows(".send:not(.stop)"))


def saved_as_markdown(browser: Browser) -> str:
    """What the button's file would hold."""
    keep = "HTMLAnchorElement.prototype.click = function () { window.file = this.href; };"
    browser.driver.execute_script(keep)
    browser.click(".tools button:nth-child(2)")
    read = "const [end] = arguments; fetch(window.file).then((r) => r.text()).then(end);"
    return browser.driver.execute_async_script(read)


def questions(browser: Browser) -> list[str]:
    return [element.text for element in browser.all(".turns .question")]


def said(browser: Browser) -> list[str]:
    return [element.text for element in browser.all(".turns .answer-body")]


def test_conversations_that_are_too_many_for_one_list_come_when_asked_for(
    open_page, browser, monkeypatch
) -> None:
    monkeypatch.setattr("apps.serve.page.arena.views.HISTORY_PAGE", 2)
    page = open_page({"ash": lambda m: "yes"})
    browser.open("about:blank")
    browser.open(f"{page.url}/#chat")
    browser.wait_for(ASK)
    person = Person(page.url, cookie=False)
    for cookie in browser.driver.get_cookies():
        person.http.cookies.set(cookie["name"], cookie["value"])
    for number in range(5):
        person.wait(person.ask(f"question {number}", kind="chat", models=["ash"]))
    browser.click("#history-button")

    def listed() -> list[str]:
        return [element.text[-1] for element in browser.all("dialog.history a span")]

    for expected in ("43", "4321", "43210"):
        browser.wait_until(lambda expected=expected: "".join(listed()) == expected)
        assert browser.shows("dialog.history > button") == (len(expected) < 5)
        if len(expected) < 5:
            browser.click("dialog.history > button")
    assert not browser.errors()


def test_an_edited_question_is_a_branch_and_the_old_one_stays(open_page, browser) -> None:
    page = open_page({"ash": lambda m: f"about {m[-1]['content']}, after {len(m)}"})
    begin(browser, page.url, "one", "two")
    browser.click(".turn:first-child [aria-label='Edit the question']")
    area = browser.wait_for("textarea.edit")
    area.clear()
    area.send_keys("edited")
    browser.click(".editing .primary")
    browser.wait_until(lambda: said(browser) == ["about edited, after 1"])
    finished(browser, 1)
    assert "2 / 2" in browser.text(".branches")
    browser.click("[aria-label='Earlier branch']")
    assert questions(browser) == ["one", "two"]
    assert said(browser) == ["about one, after 1", "about two, after 3"]
    file = saved_as_markdown(browser)
    assert "about two, after 3" in file and "edited" not in file, "what is on show"
    browser.click(".turn:last-child [aria-label='Answer again']")
    browser.wait_until(lambda: len(browser.all(".branches")) == 2)
    finished(browser, 2)
    assert questions(browser) == ["one", "two"]
    browser.driver.refresh()
    finished(browser, 1)
    assert questions(browser) == ["edited"], "the newest branch is on show"
    assert not browser.errors()


def test_a_stopped_and_a_broken_answer_keep_their_text_and_are_tried_again(
    open_page, browser
) -> None:
    page = open_page({"ash": lambda m: LINES})
    page.upstream.pieces = 3
    begin(browser, page.url)
    browser.type(ASK, "Go\n")
    browser.wait_for(".answer-body .block")
    browser.click(".send.stop")
    browser.wait_for(".answer[data-status=stopped]")
    assert "Stopped." in browser.text(".answer-note") and "Line 0" in said(browser)[0]
    page.upstream.pieces, page.upstream.cut_after = math.inf, 5
    browser.click(".answer-note button")
    browser.wait_for(".answer[data-status=failed]")
    assert "Line 0" in said(browser)[0], "what came before the error is still there"
    assert browser.text(".answer-note .error") == "The model could not answer. Try again."
    browser.click(".answer-note button")
    browser.wait_for(".answer[data-status=done]")
    assert "Line 199" in said(browser)[0] and browser.all(".answer-note .error") == []


def test_a_growing_answer_is_followed_until_its_reader_scrolls_up(open_page, browser) -> None:
    page = open_page({"ash": lambda m: LINES})
    page.upstream.pieces = 8
    begin(browser, page.url)
    browser.type(ASK, "Go\n")

    def blocks() -> int:
        return len(browser.all(".block"))

    def from_below() -> float:
        run = browser.driver.execute_script
        return run("return document.documentElement.scrollHeight - innerHeight - scrollY")

    browser.wait_until(lambda: blocks() > 60 and from_below() < 3)
    browser.driver.execute_script("scrollTo(0, 40)")
    browser.wait_until(lambda: browser.driver.execute_script("return scrollY") == 40)
    page.upstream.pieces = 16
    browser.wait_until(lambda: blocks() > 140)
    assert browser.driver.execute_script("return scrollY") == 40
    browser.driver.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
    page.upstream.pieces = math.inf
    finished(browser, 1)
    browser.wait_until(lambda: from_below() < 3)


def test_a_link_is_given_read_and_taken_back(open_page, browser) -> None:
    page = open_page({"ash": lambda m: f"about {m[-1]['content']}"})
    begin(browser, page.url, "first")
    talk = browser.driver.current_url
    browser.click(".tools button:first-child")
    browser.wait_for("dialog.share input")
    link = browser.value("dialog.share input")
    browser.open(link)
    browser.wait_for(".shared .answer-body")
    assert "about first" in browser.text(".shared") and browser.all(ASK) == []
    browser.open(talk)
    finished(browser, 1)
    browser.click(".tools button:first-child")
    browser.wait_for("dialog.share input")
    assert browser.value("dialog.share input") == link, "the same link, until it is taken back"
    assert "as it was when the link was made" in browser.text("dialog.share")
    browser.click("dialog.share .row button:nth-child(2)")
    browser.wait_until(lambda: "The link is gone" in browser.text("#toast"))
    browser.open(link)
    assert "nothing behind this link" in browser.text(".notice")
    browser.errors()  # the browser tells of the 404


def test_a_shared_answer_that_is_on_its_way_arrives_at_its_reader(open_page, browser) -> None:
    page = open_page({"ash": lambda m: "word " * 40})
    page.upstream.pieces = 4
    person = Person(page.url)
    talk = person.ask("Go", kind="chat", models=["ash"])
    turn = talk["turns"][0]["id"]
    token = person.act("share", id=talk["id"], turn=turn)["token"]
    browser.open(f"{page.url}/s/{token}")
    browser.wait_for(".shared .answer")
    browser.driver.execute_script(LOSE_ONE)  # what is on show stays, and is asked for again
    browser.wait_until(lambda: browser.driver.execute_script("return window.lost"))
    page.upstream.pieces = math.inf
    person.wait(talk)
    browser.wait_for(".shared .answer[data-status=done]")
    assert browser.text(".shared .answer-body").split() == ["word"] * 40


def test_a_page_with_a_password_asks_for_it_also_behind_a_link(
    open_page, browser, monkeypatch
) -> None:
    monkeypatch.setenv("PAGE_PASSWORD", "open sesame")
    page = open_page({"ash": lambda m: "about it"}, login_password_env="PAGE_PASSWORD")

    def log_in() -> None:
        browser.type(".login input", "open\n")
        browser.wait_until(lambda: "not the password" in browser.text("#toast"))
        browser.wait_for(".login input").clear()
        browser.type(".login input", "open sesame\n")

    browser.open(f"{page.url}/#chat")
    log_in()
    browser.type(ASK, "first\n")
    finished(browser, 1)
    browser.click(".tools button:first-child")
    browser.wait_for("dialog.share input")
    link = browser.value("dialog.share input")
    browser.driver.delete_all_cookies()
    browser.open(link)
    log_in()
    browser.wait_for(".shared .answer-body")
    assert "about it" in browser.text(".shared")
    browser.errors()  # the browser tells of each 401 and 403


def test_a_conversation_is_saved_found_again_and_deleted(open_page, browser) -> None:
    page = open_page({"ash": lambda m: f"about {m[-1]['content']}"})
    begin(browser, page.url, "kettles")
    for number, wanted in ((2, "## You\n\nkettles"), (3, '"content": "kettles"')):
        browser.driver.execute_script(
            "HTMLAnchorElement.prototype.click = function () { window.saved = this.href; }"
        )
        browser.click(f".tools button:nth-child({number})")
        address = browser.driver.execute_script("return window.saved")
        text = browser.driver.execute_async_script(
            "fetch(arguments[0]).then((r) => r.text()).then(arguments[1])", address
        )
        assert wanted in text
    browser.open("about:blank")
    browser.open(page.url)
    browser.click("#history-button")
    assert "kettles" in browser.text("dialog.history a")
    browser.click("dialog.history a")
    finished(browser, 1)
    assert said(browser) == ["about kettles"]
    browser.click(".tools button:nth-child(4)")
    browser.driver.switch_to.alert.accept()
    browser.wait_until(lambda: browser.driver.current_url.endswith("#chat"))
    browser.click("#history-button")
    assert "Nothing yet." in browser.text("dialog.history")


def test_code_and_answers_are_copied_as_they_are(open_page, browser) -> None:
    page = open_page({"ash": lambda m: OTHER})
    begin(browser, page.url, "Go")
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", grant)

    def copied() -> str:
        browser.wait_until(lambda: "Copied." in browser.text("#toast"))
        return browser.driver.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0])"
        )

    browser.click(".code-copy")
    code = OTHER.partition("```python\n")[2].partition("```")[0]
    assert copied() == code
    browser.click("[aria-label='Copy the answer']")
    browser.wait_until(lambda: "Small particles" in copied())
    assert "python" not in copied() and "Copy" not in copied()
    assert "def scattered" in copied() and browser.shows(".code-copy")


def test_a_card_shows_what_is_known_of_a_model_and_its_scores(open_page, browser) -> None:
    page = open_page({"base": lambda m: "one", "tuned": lambda m: "two"}, evaluation=FOLDER)
    person = Person(page.url)
    battle = person.wait(person.ask())
    person.act("vote", battle=battle["id"], verdict="left")
    begin(browser, page.url)
    browser.wait_until(lambda: "By the judge" in browser.text(".card"))
    card = browser.text(".card")
    assert card.startswith("base") and "By votes" in card and "between" in card


def test_the_about_tab_tells_a_visitor_the_number_to_be_forgotten_by(open_page, browser) -> None:
    page = open_page({"ash": lambda m: GOOD}, terms="Be kind.")
    browser.open(f"{page.url}/#about")
    number = browser.text(".read code")
    person = Person(page.url, cookie=False)
    for cookie in browser.driver.get_cookies():
        person.http.cookies.set(cookie["name"], cookie["value"])
    assert person.act("start")["visitor"] == number
    text = browser.text(".read")
    for part in ("Be kind.", "What is kept", "What is published", "not for commercial use"):
        assert part in text


SET = """
for (const [selector, value] of Object.entries(arguments[0])) {
  const field = document.querySelector(`.fields ${selector}`);
  field.value = value;
  field.dispatchEvent(new Event("input"));
}
"""
TEMPERATURE, SYSTEM = "label:first-child input", "textarea"


@pytest.mark.parametrize("tab", ["chat", "side_by_side"])
def test_what_a_visitor_set_holds_for_both_questions_and_after_a_reload(
    open_page, browser, tab: str
) -> None:
    page = open_page({"ash": lambda m: "Yes.", "elm": lambda m: "No."})
    browser.open("about:blank")
    browser.open(f"{page.url}/#{tab}")
    browser.wait_for(ASK)
    num_models = 1 if tab == "chat" else 2
    asked = 0
    for set_now in ({TEMPERATURE: "0.2"}, {TEMPERATURE: "0.4", SYSTEM: "Rhyme."}, {}):
        browser.driver.execute_script(SET, set_now)
        browser.type(ASK, "And?\n")
        asked += num_models
        finished(browser, asked)
        if not set_now:
            break
        browser.driver.refresh()
        finished(browser, asked)
    sent = page.upstream.requests
    temperatures = [request["temperature"] for request in sent[::num_models]]
    assert temperatures == [0.2, 0.4, 0.4]
    heads = [request["messages"][0] for request in sent]
    assert heads[0]["role"] == "user"
    assert heads[-1] == heads[num_models] == {"role": "system", "content": "Rhyme."}
    assert not browser.errors()


PICK = """
document.querySelectorAll(".model-select select").forEach((select, number) => {
  select.value = arguments[0][number];
  select.dispatchEvent(new Event("change"));
});
"""


@pytest.mark.parametrize("tab", ["chat", "side_by_side"])
def test_a_long_answer_that_was_asked_for_comes_back_though_the_first_model_takes_less(
    open_page, browser, tab: str
) -> None:
    page = open_page(dict.fromkeys(("ash", "elm", "oak"), lambda m: "Yes."))
    page.upstream.context_tokens = {"ash": 256}
    browser.open("about:blank")
    browser.open(f"{page.url}/#{tab}")
    browser.wait_for(ASK)
    browser.driver.execute_script(PICK, ["elm", "oak"])
    browser.driver.execute_script(SET, {"label:nth-child(3) input": "2000"})
    num_models = 1 if tab == "chat" else 2
    for asked in (num_models, 2 * num_models):
        browser.type(ASK, "And?\n")
        finished(browser, asked)
        browser.driver.refresh()
        finished(browser, asked)
    assert {request["max_completion_tokens"] for request in page.upstream.requests} == {2000}


def test_the_way_past_the_head_leaves_the_conversation_where_it_is(open_page, browser) -> None:
    page = open_page({"ash": lambda m: "Yes."})
    begin(browser, page.url, "one")
    address = browser.driver.current_url
    browser.driver.execute_script("document.querySelector('.skip').focus()")
    browser.press("\ue007")  # Enter
    assert browser.driver.execute_script("return document.activeElement.id") == "main"
    assert browser.driver.current_url == address and questions(browser) == ["one"]


HOLD = """
const real = window.fetch;
window.fetch = async (...args) => {
  window.fetch = real;
  const answer = await real(...args);
  await new Promise((done) => { window.letGo = done; });
  return answer;
};
"""


def test_a_question_that_is_still_on_its_way_draws_nobody_back(open_page, browser) -> None:
    page = open_page({"ash": lambda m: "Yes."})
    begin(browser, page.url)
    browser.driver.execute_script(HOLD)
    browser.type(ASK, "one\n")
    browser.wait_until(lambda: browser.driver.execute_script("return Boolean(window.letGo)"))
    browser.click(".tabs [data-tab=about]")
    browser.wait_for(".read")
    browser.driver.execute_script("window.letGo()")
    browser.click("#history-button")
    browser.wait_for("dialog.history a")
    assert browser.driver.current_url.endswith("#about")
    browser.click("dialog.history a")
    finished(browser, 1)
    assert questions(browser) == ["one"] and not browser.errors()


def test_an_answer_that_another_window_deletes_is_awaited_no_more(open_page, browser) -> None:
    page = open_page({"ash": lambda m: "A long answer."})
    begin(browser, page.url)
    page.upstream.pieces = 0
    browser.type(ASK, "one\n")
    browser.wait_for(".dots")
    browser.driver.execute_async_script(
        """const [id, done] = [location.hash.split("/")[1], arguments[0]];
        fetch("gradio_api/run/delete", { method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ data: [JSON.stringify({ id })] }) }).then(done);"""
    )
    browser.wait_until(lambda: "This answer was deleted." in browser.text(".answer"))
    assert browser.shows(".send:not(.stop)") and not browser.shows(".dots")
    page.upstream.pieces = math.inf


def test_a_battle_is_deleted_under_its_answers(open_page, browser) -> None:
    page = open_page({"ash": lambda m: "Yes.", "elm": lambda m: "No."})
    browser.open("about:blank")
    browser.open(f"{page.url}/#battle")
    browser.wait_for(ASK)
    assert not browser.shows(".tools button")
    browser.type(ASK, "one\n")
    finished(browser, 2)
    browser.click(".tools button")
    browser.driver.switch_to.alert.accept()
    browser.wait_until(lambda: browser.driver.current_url.endswith("#battle"))
    browser.click("#history-button")
    assert "Nothing yet." in browser.text("dialog.history")
