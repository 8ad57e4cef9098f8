"""Pictures of a running page: every tab, in both schemes, on a desk, a phone and under a keyboard.

    python -m tests.serve.page.pictures http://127.0.0.1:8000/ui --out shots
    python -m tests.serve.page.pictures http://127.0.0.1:8000/ui --readme docs/page.png --ask "..."
    python -m tests.serve.page.pictures http://127.0.0.1:8000/ui --sources docs/sources.png

Asks the question on the first three tabs, waits for the answers, and votes once. `--readme` takes
the one picture of a battle with its two answers, `--sources` that of an answer with the training
data it shares words with; `--model` chooses who gives it.
"""

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from tests.serve.browser import Browser

SIZES = {"desk": (1280, 900), "phone": (390, 844), "keyboard": (390, 450)}
SCHEMES = ("light", "dark")
BOX = ".box textarea"
READY = {
    "battle": BOX,
    "chat": BOX,
    "side_by_side": BOX,
    "leaderboard": ".ratings, .board .notice",
    "evaluation": ".detail .pane, .evaluation .notice",
    "about": ".read",
}
SOURCES = ".sources button"
ASKED = [tab for tab, ready in READY.items() if ready == BOX]
CHOOSE = """
const select = document.querySelector('.model-select select');
select.value = arguments[0];
select.dispatchEvent(new Event('change'));
"""
_TIMEOUT_S = 120


def open_tab(browser: Browser, url: str, tab: str) -> None:
    browser.open("about:blank")
    browser.open(f"{url.rstrip('/')}/#{tab}")
    browser.wait_for(READY[tab])


def ask(browser: Browser, tab: str, question: str) -> None:
    """Returns when all is there that the answers bring, the vote among it."""
    browser.type(BOX, f"{question}\n")
    browser.wait_for(".answer[data-status=done]")
    browser.wait_until(lambda: browser.all(".answer:not([data-status=done])") == [])
    if tab != "chat":
        browser.wait_until(lambda: browser.shows(".vote"))
    browser.wait_until(lambda: browser.shows(".send:not(.stop)"))


def look_for_sources(browser: Browser) -> None:
    """Where did this come from?"""
    browser.click(SOURCES)
    button = browser.wait_for(f"{SOURCES}[aria-expanded=true]")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'start'})", button)
    browser.driver.execute_script("scrollBy(0, -140)")


def walk(browser: Browser, url: str, question: str) -> Iterator[str]:
    """Shows one state after another, named as its picture."""
    for size, scheme in itertools.product(SIZES, SCHEMES):
        browser.shape(*SIZES[size], scheme)
        for tab in READY:
            open_tab(browser, url, tab)
            yield f"{tab}-{size}-{scheme}"
            if tab in ASKED:
                ask(browser, tab, question)
                yield f"{tab}-answered-{size}-{scheme}"
            if tab == "chat" and browser.find(SOURCES):
                look_for_sources(browser)
                yield f"sources-{size}-{scheme}"
        open_tab(browser, url, "battle")
        ask(browser, "battle", question)
        browser.click("[data-verdict=left]")
        browser.wait_for(".outcome .card")
        yield f"battle-voted-{size}-{scheme}"
        browser.click(".outcome .row button:last-child")
        browser.wait_for("dialog.share")
        yield f"share-{size}-{scheme}"
        open_tab(browser, url, "chat")
        browser.click("#history-button")
        browser.wait_for("dialog.history")
        yield f"history-{size}-{scheme}"
        open_tab(browser, url, "chat")
        browser.click("[aria-label=Parameters]")
        yield f"parameters-{size}-{scheme}"


def picture_for_the_readme(browser: Browser, url: str, question: str, path: Path) -> None:
    browser.shape(*SIZES["desk"], "light")
    open_tab(browser, url, "battle")
    ask(browser, "battle", question)
    browser.driver.execute_script("scrollTo(0, 0)")
    save(browser, path)


def picture_of_sources(browser: Browser, url: str, question: str, model: str, path: Path) -> None:
    browser.shape(*SIZES["desk"], "light")
    open_tab(browser, url, "chat")
    if model:
        browser.driver.execute_script(CHOOSE, model)
    ask(browser, "chat", question)
    look_for_sources(browser)
    save(browser, path)


def save(browser: Browser, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    browser.driver.save_screenshot(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the page, such as http://127.0.0.1:8000/ui")
    parser.add_argument("--ask", default="Why is the sky blue?", help="the question")
    parser.add_argument("--out", type=Path, help="folder for the pictures of every tab")
    parser.add_argument("--readme", type=Path, help="file for the picture of one battle")
    parser.add_argument("--sources", type=Path, help="file for that of an answer's sources")
    parser.add_argument("--model", default="", help="who answers for --sources")
    given = parser.parse_args()
    with contextlib.closing(Browser(_TIMEOUT_S)) as browser:
        if given.readme:
            picture_for_the_readme(browser, given.url, given.ask, given.readme)
        if given.sources:
            picture_of_sources(browser, given.url, given.ask, given.model, given.sources)
        if given.out:
            for name in walk(browser, given.url, given.ask):
                save(browser, given.out / f"{name}.png")


if __name__ == "__main__":
    main()
