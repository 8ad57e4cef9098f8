"""Every state of every tab in both schemes and all sizes: fits, is reachable, has its picture.

    CRIA_SCREENSHOTS=shots python -m pytest tests/serve/page/test_looks.py -m slow

Without the variable the pictures go where the test's other files go.
"""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from apps.common.passages import Passage, write_passages
from apps.serve.page.config import PageLimits
from tests.serve.browser import Browser
from tests.serve.page.arena.test_evaluation import FOLDER
from tests.serve.page.live import Person
from tests.serve.page.pictures import ASKED, READY, SCHEMES, SIZES, save, walk
from tests.serve.page.talk import GOOD, OTHER

pytestmark = [pytest.mark.browser, pytest.mark.slow]
AXE = "axe-core@4.14.1"
QUESTIONS = (
    "Why is the sky blue?",
    "Write a short letter to a landlord about a broken heater.",
    "How many piano tuners work in Chicago?",
    "Explain recursion to a ten-year-old.",
)
UNLIMITED = PageLimits(
    answers_per_minute=0, answers_per_hour=0, address_answers_per_hour=0, votes_per_hour=0
)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Source of Deque's accessibility rules (MPL 2.0), from npm; used here, never shipped."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, and axe-core comes from it")
    folder = tmp_path_factory.mktemp("axe")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
    got = subprocess.run(install, capture_output=True, text=True, timeout=120)
    if got.returncode:
        pytest.skip(f"npm could not fetch {AXE}: {got.stderr.strip()[-200:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


NO_WORDS = r"return document.body.innerText.match(/\b(undefined|null|NaN)\b|\[object/g)"
RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run({resultTypes: ['violations']}).then((result) => done(JSON.stringify(
    result.violations.filter((found) => ['serious', 'critical'].includes(found.impact)).map((found) =>
        [found.id, found.help, found.nodes.slice(0, 3).map((node) => node.html)]))));
"""  # noqa: E501
WIDER_THAN_THE_WINDOW = "return document.documentElement.scrollWidth - innerWidth"
SMALL_TARGETS = """
return [...document.querySelectorAll('button, select, summary, input, .tabs a, .brand, dialog a')]
.filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && Math.min(box.width, box.height) < 43.5;
}).map((element) => element.outerHTML.slice(0, 200));
"""
NARROW_GUTTERS = """
return [...document.querySelectorAll('.intro, .question, .composer, .vote, .read, .outcome')]
.filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && (box.left < 11.5 || innerWidth - box.right < 11.5);
}).map((element) => element.className);
"""


def index(folder: Path) -> str:
    """What the models were trained on: some of it shares words with their answers."""
    file = str(folder / "passages.db")
    texts = (
        "I have read that sunlight holds all colours, and that air scatters short waves more than "
        "long ones. Is that so? And what of the evening?",
        f"Yes. {GOOD} Painters knew it long before anybody measured it.",
        f"Here is a table.\n\n{OTHER}",
    )
    with write_passages(file) as writer:
        for number, text in enumerate(texts):
            role = "assistant" if number else "user"
            name = f"3f9c{number}0b7d-000{number}"
            writer.add(Passage(conversation=name, turn=number + 1, role=role, text=text))
    return file


def test_every_tab_looks_right_in_both_schemes_and_all_sizes(
    open_page, axe: str, tmp_path: Path
) -> None:
    """No serious finding of axe, nothing wider than the window, 44 px to touch, 12 px around."""
    shots = Path(os.environ.get("CRIA_SCREENSHOTS", tmp_path / "shots"))
    page = open_page(
        {"vicuna-7b": lambda m: GOOD, "koala-13b": lambda m: OTHER},
        examples=QUESTIONS,
        evaluation=FOLDER,
        sources=dict.fromkeys(("vicuna-7b", "koala-13b"), index(tmp_path)),
        limits=UNLIMITED,
    )
    for verdict in ("left", "tie", "right"):
        person = Person(page.url)
        battle = person.wait(person.ask(QUESTIONS[0]))
        person.act("vote", battle=battle["id"], verdict=verdict)
    faults: list[object] = []
    names: list[str] = []
    with contextlib.closing(Browser(20)) as browser:
        for name in walk(browser, page.url, QUESTIONS[0]):
            names.append(name)
            save(browser, shots / f"{name}.png")
            run = browser.driver.execute_script
            faults += [(name, "wider than the window")] * (run(WIDER_THAN_THE_WINDOW) > 0)
            if "-desk-" not in name:
                faults += [(name, "too small to touch", html) for html in run(SMALL_TARGETS)]
                faults += [(name, "gutter under 12 px", html) for html in run(NARROW_GUTTERS)]
            if "-keyboard-" not in name:
                browser.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})
                found = json.loads(browser.driver.execute_async_script(RUN_AXE))
                faults += [(name, *one) for one in found]
            faults += [(name, "no word for people", word) for word in run(NO_WORDS) or ()]
            faults += [(name, error) for error in browser.errors()]
    assert not faults, "\n".join(map(str, faults))
    assert len(names) == len(SIZES) * len(SCHEMES) * (len(READY) + len(ASKED) + 5)
