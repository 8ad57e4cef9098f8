"""The report's numbers are the ledger's, and its page needs nothing but itself."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from apps.common.errors import InputError, NotFoundError
from apps.common.events import Reporter
from apps.data import report, view
from apps.data.config import ReportConfig, ViewConfig
from tests.data.test_clean import conversation, run_clean, write_dump


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    records = [
        conversation("a", "What is <script>alert(1)</script>?", "<p>A <b>tag</b> & more.</p>"),
        conversation("b", "What is a noun?", "Too many requests in 1 hour. Try again later."),
        conversation("c", "What is a verb?", "A doing word.", "And a noun?", "A naming word."),
        conversation("d", "What is a verb?", "A doing word."),
        {"id": "e", "conversations": [{"from": "human", "value": 3}]},
    ]
    run_clean(folder / "out", write_dump(folder / "dump.json", records))
    return folder / "out"


def test_the_report_tells_what_the_ledger_tells(cleaned: Path) -> None:
    report.write_report(ReportConfig(folder=str(cleaned)), Reporter("json"))
    found = json.loads((cleaned / "report.json").read_bytes())
    assert found["totals"] == {"records": 5, "kept": 2, "dropped": 2, "quarantined": 1}
    assert [(step["step"], step["left"]) for step in found["funnel"]] == [
        ("read", 5),
        ("quarantine", 4),
        ("banner", 3),
        ("duplicate", 2),
    ]
    assert found["rounds"][:2] == [["1", 1], ["2", 1]]
    assert sum(count for _, count in found["chars"]) == 2
    assert {"kept", "banner", "duplicate", "quarantine: bad-message"} <= set(found["samples"])


def test_the_page_is_self_contained_and_escapes_what_people_typed(cleaned: Path) -> None:
    report.write_report(ReportConfig(folder=str(cleaned)), Reporter("json"))
    page = (cleaned / "report.html").read_text()
    assert not re.findall(r"<script|<link|<img|src=|@import|url\(", page)
    assert "&lt;script&gt;alert(1)" in page
    assert "A <strong>tag</strong> &amp; more." in page
    assert "prefers-color-scheme:dark" in page


def test_the_report_of_a_packed_folder_shows_its_fill(cleaned: Path, tmp_path: Path) -> None:
    packed = Path(__file__).parents[1] / "contracts" / "artifacts" / "pack"
    config = ReportConfig(folder=str(cleaned), pack=str(packed), out=str(tmp_path))
    report.write_report(config, Reporter("json"))
    stored = json.loads((packed / "pack.json").read_bytes())
    assert json.loads((tmp_path / "report.json").read_bytes())["pack"] == stored
    train = stored["splits"]["train"]
    page = (tmp_path / "report.html").read_text()
    assert f"{train['fill']:.1%}" in page
    assert f"{train['num_tokens']:,}" in page


def test_an_unfinished_folder_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no finished output"):
        report.write_report(ReportConfig(folder=str(tmp_path)), Reporter("json"))


def test_view_shows_what_was_kept_or_dropped(
    cleaned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view.show(ViewConfig(folder=str(cleaned)), Reporter("json"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["source_id"] for event in events] == ["a", "c"]
    view.show(ViewConfig(folder=str(cleaned), rule="banner"), Reporter("text"))
    shown = capsys.readouterr().out
    assert "raw gpt" in shown and "Too many requests" in shown
    view.show(ViewConfig(folder=str(cleaned), rule="quarantine"), Reporter("text"))
    assert "bad-message" in capsys.readouterr().out
    with pytest.raises(InputError, match="expected one of banner, duplicate, quarantine"):
        view.show(ViewConfig(folder=str(cleaned), rule="taste"), Reporter("text"))


def test_on_a_terminal_view_shows_one_conversation_at_a_time(cleaned: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "apps.data", "view", str(cleaned)]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        first = read_until(master, "q: quit")
        os.write(master, b"\n")
        second = read_until(master, "q: quit")
        os.write(master, b"q\n")
    os.close(master)
    assert process.returncode == 0
    assert "alert(1)" in first and "A doing word." not in first
    assert "A doing word." in second


def read_until(terminal: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 4096).decode()
    return shown
