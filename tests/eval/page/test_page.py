"""The report opens from disk in a real browser, shows its figures, and runs nothing it was fed."""

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from apps.common.command.events import Reporter
from apps.common.errors import CriaError
from apps.common.files import storage
from apps.eval.calls import journal
from apps.eval.calls.reply import Reply
from apps.eval.config import JudgeConfig, ReportConfig
from apps.eval.folder import questions_uri, write_plan
from apps.eval.judging.call import Call
from apps.eval.judging.plan import make_plan
from apps.eval.judging.prices import Price
from apps.eval.page import texts
from apps.eval.page.curve import render_curve
from apps.eval.records.answer import Answer, answers_uri
from apps.eval.records.question import Question, dump_questions
from apps.eval.report import report
from apps.eval.scores.costs import busiest_minute
from tests.eval.scripted_judge import respond

ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
CHROMIUM = Path("/usr/bin/chromium")
# 100 and 10 tokens come to one cent.
PRICE = Price(usd_per_million_prompt_tokens=50.0, usd_per_million_completion_tokens=500.0)


def judged(directory: Path, num_questions: int, models: dict[str, str], words: int = 3) -> Path:
    """A folder whose judgments were written down as if an endpoint had made them."""
    questions = [
        Question(
            question_id=f"q{i}",
            category=["generic", "writing", "math"][i % 3],
            turns=(f"Question {i}: tell me about trains, ships and planes",),
        )
        for i in range(num_questions)
    ]
    storage.write_atomic(questions_uri(str(directory)), dump_questions(questions))
    answers = {
        name: {
            q.question_id: Answer(
                question_id=q.question_id,
                turn_texts=(f"{text} {q.turns[0][: 9 * i % 50]}",),
                model=name,
            )
            for i, q in enumerate(questions, 1)
        }
        for name, text in models.items()
    }
    for name, made in answers.items():
        lines = b"".join(item.to_json() for item in made.values())
        storage.write_atomic(answers_uri(str(directory), name), lines)
    config = JudgeConfig(dir=str(directory), judge=("judge-4",))
    plan = make_plan(config, questions, answers)
    write_plan(config, plan)
    lines = [
        json.dumps(
            {**call.response_line(_reply(call, words), PRICE, created_s=0.0), "latency_s": 1.5}
        )
        for call in plan.calls
    ]
    storage.write_atomic(journal.raw_path(str(directory)), ("\n".join(lines) + "\n").encode())
    report(
        ReportConfig(dir=str(directory), reference_set=True, style_control=True), Reporter("json")
    )
    return directory / "report.html"


def _reply(call: Call, words: int) -> Reply:
    return Reply(
        text=" ".join(["Because."] * words) + "\n" + respond(call.judge, list(call.messages)),
        finish_reason="stop",
        prompt_tokens=100,
        completion_tokens=10,
        endpoint_model="judge-4",
        fingerprint=None,
    )


def test_a_report_of_80_questions_5_models_2_orders_is_small_and_self_contained(tmp_path: Path):
    models = {f"model-{i}": "A long answer. " * 100 for i in range(5)}
    page = judged(tmp_path, 80, models, words=130)
    text = page.read_text()
    assert page.stat().st_size < 5e6
    for outside in ('src="http', 'href="http', "url(http", "@import", "<link"):
        assert outside not in text
    for fact in ("early draft", "678.5", "57.5 %", "93 %", "664.0"):
        assert fact in text
    report_json = json.loads((tmp_path / "report.json").read_text())
    counts = report_json["protocols"]["pairwise-swap"]["judgments"]
    assert counts["ok"] == counts["total"] == 80 * 10 * 2
    under = report_json["evidence"]
    assert len(under["questions"]) == 80 and len(under["judgments"]) == counts["total"]
    assert under["answers"]["model-3"]["q7"]["turns"][0].startswith("A long answer.")
    assert {j["order"] for j in under["judgments"]} == {0, 1} and under["judgments"][0]["text"]
    (paid,) = report_json["costs"]
    assert paid["busiest_minute_calls"] == paid["calls"] > 1600, "self-checks and canaries too"
    lines = Path(journal.raw_path(str(tmp_path))).read_text().splitlines()
    usd = sum(json.loads(line)["usd"] for line in lines)
    assert paid["usd_per_1000_calls"] == pytest.approx(1000 * usd / len(lines))
    assert paid["latency_p95_s"] == 1.5
    assert f">{paid['calls']:,}</td>" in text


def test_judgments_of_answers_that_were_replaced_are_refused(tmp_path: Path) -> None:
    judged(tmp_path, 3, {"good": "trains ships planes", "poor": "no"})
    file = Path(answers_uri(str(tmp_path), "poor"))
    file.write_text(file.read_text().replace("no ", "never ", 1))
    with pytest.raises(CriaError, match="poor has another answer to question q0 now"):
        report(ReportConfig(dir=str(tmp_path)), Reporter("json"))


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if not CHROMIUM.exists():
        pytest.skip("/usr/bin/chromium is not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")
    )
    yield driver
    driver.quit()


def resize(browser, width: int, height: int, scheme: str) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


@pytest.mark.browser
def test_the_page_shows_searches_and_does_not_run_what_answers_contain(tmp_path, browser) -> None:
    page = judged(tmp_path, 9, {"good": "trains ships planes", "evil": ATTACK, "poor": "no"})
    resize(browser, 1200, 900, "light")
    browser.get(page.as_uri())
    assert browser.title == "Evaluation"
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    visible = "return [...document.querySelectorAll('.q')].filter(q => !q.hidden).length"
    assert browser.execute_script(visible) == 9
    browser.find_element("id", "search").send_keys('"question 7"')
    assert browser.execute_script(visible) == 1
    browser.execute_script("document.querySelector('.q:not([hidden]) summary').click()")
    answers = browser.execute_script(
        "return [...document.querySelectorAll('.q[open] .answer')].map(a => a.innerText)"
    )
    assert len(answers) == 3 and any("<script>" in text for text in answers)
    verdicts = browser.find_elements("css selector", ".q[open] .verdict")
    assert len(verdicts) == 6
    assert browser.title == "Evaluation", "nothing that an answer contains was run"


@pytest.mark.browser
def test_the_keyboard_a_link_and_the_filters_find_a_question(tmp_path: Path, browser) -> None:
    page = judged(tmp_path, 9, {"good": "trains ships planes", "fair": "ships", "poor": "no"})
    resize(browser, 1200, 900, "light")
    browser.get(f"{page.as_uri()}#q-q4")
    opened = "return [...document.querySelectorAll('.q[open]')].map(q => q.id)"
    assert browser.execute_script(opened) == ["q-q4"]
    shown = "return [...document.querySelectorAll('.q')].filter(q => !q.hidden).length"
    browser.switch_to.active_element.send_keys("/")
    search = browser.find_element("id", "search")
    assert browser.switch_to.active_element == search
    search.send_keys("covers nothing of this kind")
    assert browser.execute_script(shown) == 0
    search.send_keys("\ue00c")
    assert browser.execute_script(shown) == 9
    from selenium.webdriver.support.select import Select

    winner = Select(browser.find_element("id", "winner"))
    winner.select_by_value("good")
    led = browser.execute_script(shown)
    assert led > 0
    browser.execute_script("document.getElementById('unfold').click()")
    assert len(browser.execute_script(opened)) >= led
    winner.select_by_value("poor")
    assert browser.execute_script(shown) == 0


@pytest.mark.browser
def test_the_pages_fit_a_phone_and_a_dark_room_without_a_network(tmp_path: Path, browser) -> None:
    page = judged(tmp_path, 6, {"good": "trains ships planes", "poor": "no", "other": "ships"})
    curve = tmp_path / "curve.html"
    found = {"correct": 1, "total": 6, "rate": 1 / 6, "low": 0.03, "high": 0.56}
    point = {"score": 5.5, "low": 5, "high": 6, "n": 6, "accuracy": found, "judge": "offline"}
    points = [{**point, "step": i, "report": f"step-{i}/report.html"} for i in range(100, 4000, 90)]
    curve.write_text(render_curve(points, "runs/vicuna"))
    resize(browser, 390, 844, "dark")
    for file in (page, curve):
        browser.get(file.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(20, 22, 26)"
        asked = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert browser.execute_script(asked) == []
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        picture = base64.b64decode(browser.get_screenshot_as_base64())
        file.with_suffix(".png").write_bytes(picture)
        assert len(picture) > 10_000
    labels = "return [...document.querySelectorAll('svg')].map(chart => [...chart.querySelectorAll("
    labels += "'text[text-anchor=middle]')].map(label => label.getBoundingClientRect().toJSON()))"
    for boxes in browser.execute_script(labels):
        ordered = sorted(boxes, key=lambda box: box["left"])
        assert len(ordered) > 3
        assert all(a["right"] < b["left"] for a, b in pairwise(ordered)), "labels do not collide"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page whose texts lie beside it; some of them in Arabic and Chinese."""
    monkeypatch.setattr(texts, "INLINE_BYTES", 1000)
    monkeypatch.setattr(texts, "PART_BYTES", 4000)
    models = {"good": "trains ships planes", "arab": "باريس عاصمة فرنسا", "han": "巴黎是法国的首都"}
    return judged(tmp_path, 40, models, words=20)


def test_the_texts_of_a_large_run_lie_beside_the_page_in_parts(large: Path) -> None:
    (folder,) = (large.parent / "report-texts").iterdir()
    parts = sorted(folder.glob("part-*.js"))
    assert len(parts) > 5 and "trains ships planes" not in large.read_text()
    shown = [
        one
        for part in parts
        for one in json.loads(part.read_text().partition(",")[2].removesuffix(")"))
    ]
    assert len({one["question"]["id"] for one in shown}) == 40
    assert all(len(one["answers"]) == 3 for one in shown)
    report(ReportConfig(dir=str(large.parent)), Reporter("json"))
    assert {part.name for part in folder.glob("part-*.js")} == {part.name for part in parts}


def test_a_report_that_is_killed_leaves_the_older_page_its_own_texts(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures would stand over the texts of another run, or over none."""
    folder, before = large.parent / "report-texts", large.read_text()
    (kept,) = folder.iterdir()
    files = {file.name: file.read_bytes() for file in kept.iterdir()}
    raw = Path(journal.raw_path(str(large.parent)))
    raw.write_text(raw.read_text().replace("Because. ", "", 1))

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("apps.eval.page.page.render", killed)
        report(ReportConfig(dir=str(large.parent)), Reporter("json"))
    assert large.read_text() == before and f"report-texts/{kept.name}" in before
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == files
    report(ReportConfig(dir=str(large.parent)), Reporter("json"))
    (newer,) = folder.iterdir()
    assert newer.name != kept.name and f"report-texts/{newer.name}" in large.read_text()


def test_a_manifest_that_a_killed_run_left_half_written_is_passed_over(tmp_path: Path) -> None:
    judged(tmp_path, 2, {"good": "trains ships planes", "poor": "no"})
    half = Path(journal.judgments_dir(str(tmp_path))) / "manifest-single.json.0a1b2c3d.tmp"
    half.write_text('{"judges": ["ju')
    report(ReportConfig(dir=str(tmp_path)), Reporter("json"))
    assert "ju" not in json.loads((tmp_path / "report.json").read_text())["manifest"]["judging"]


@pytest.mark.browser
def test_a_large_page_loads_what_is_opened_and_finds_words_of_every_script(large, browser) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    resize(browser, 1200, 900, "light")
    browser.get(large.as_uri())
    loaded = "return [...document.head.querySelectorAll('script')].map(s => s.src.split('/').pop())"
    assert browser.execute_script(loaded) == []
    wait = WebDriverWait(browser, 20)
    browser.execute_script("document.querySelector('#q-q30 summary').click()")
    wait.until(lambda b: len(b.find_elements("css selector", "#q-q30 .answer")) == 3)
    assert [name.split("?")[0] for name in browser.execute_script(loaded)] != ["part-0.js"]
    arab = browser.find_elements("css selector", "#q-q30 .answer .said")[0]
    assert arab.text.startswith("باريس") and arab.get_attribute("dir") == "auto"
    assert browser.execute_script("return getComputedStyle(arguments[0]).direction", arab) == "rtl"
    search, count = browser.find_element("id", "search"), browser.find_element("id", "count")
    for asked, found in (
        ("عاصمة", 40),
        ("法国", 40),
        ("nowhere-to-be-found", 0),
        ('"question 7:"', 1),
        ("", 40),
    ):
        search.send_keys("\ue009a\ue009" + (asked or "\ue017"))
        wait.until(lambda _, n=found: count.text == f"{n} of 40 questions")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_questions_are_cut_into_parts_by_size() -> None:
    assert texts._places([400_000, 500_000, 300_000, 900_000]) == [0, 0, 0, 1]


def test_the_busiest_minute_is_not_diluted_by_waiting() -> None:
    assert busiest_minute([]) == 0
    assert busiest_minute([0.0, 59.9, 60.0, 4000.0]) == 2
    assert busiest_minute([4000.0, 4001.0, 0.0, 4030.0]) == 3
