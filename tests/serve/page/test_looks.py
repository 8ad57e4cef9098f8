"""Pictures of every tab in both schemes and both sizes, for whoever judges the looks.

    CRIA_SCREENSHOTS=shots python -m pytest tests/serve/page/test_looks.py -m slow

Without the variable they go where the test's other files go.
"""

import contextlib
import itertools
import os
from pathlib import Path

import pytest

from tests.serve.browser import Browser
from tests.serve.page.arena.test_evaluation import FOLDER
from tests.serve.page.live import Person
from tests.serve.page.talk import GOOD, OTHER

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
QUESTIONS = (
    "Why is the sky blue?",
    "Write a short letter to a landlord about a broken heater.",
    "How many piano tuners work in Chicago?",
    "Explain recursion to a ten-year-old.",
)
READY = {
    "battle": ".box textarea",
    "chat": ".box textarea",
    "side_by_side": ".box textarea",
    "leaderboard": ".ratings, .notice",
    "evaluation": ".detail .pane",
    "about": ".read",
}


def test_every_tab_in_both_schemes_and_sizes(open_page, tmp_path: Path) -> None:
    shots = Path(os.environ.get("CRIA_SCREENSHOTS", tmp_path / "shots"))
    shots.mkdir(parents=True, exist_ok=True)
    page = open_page(
        {"vicuna-7b": lambda m: GOOD, "koala-13b": lambda m: OTHER},
        examples=QUESTIONS,
        evaluation=FOLDER,
    )
    person = Person(page.url)
    for verdict in ("left", "tie", "right"):
        battle = person.wait(person.ask(QUESTIONS[0]))
        person.act("vote", battle=battle["id"], verdict=verdict)
    with contextlib.closing(Browser(20)) as browser:

        def shoot(name: str) -> None:
            browser.driver.save_screenshot(str(shots / f"{name}.png"))

        for size, scheme in itertools.product(SIZES, ("light", "dark")):
            browser.shape(*SIZES[size], scheme)
            for tab, ready in READY.items():
                browser.open("about:blank")
                browser.open(f"{page.url}/#{tab}")
                browser.wait_for(ready)
                shoot(f"{tab}-{size}-{scheme}")
                if ready == READY["battle"]:
                    browser.type(ready, f"{QUESTIONS[0]}\n")
                    browser.wait_for(".answer[data-status=done]")
                    open_answers = ".answer:not([data-status=done])"
                    browser.wait_until(lambda css=open_answers: browser.all(css) == [])
                    shoot(f"{tab}-answered-{size}-{scheme}")
                assert not browser.errors(), tab
    assert len(list(shots.glob("*.png"))) == 2 * 2 * (len(READY) + 3)
