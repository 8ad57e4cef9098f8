"""The report's numbers are the ledger's, and its page needs nothing but itself."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.common.command.events import Reporter
from apps.common.errors import InputError, NotFoundError
from apps.data import report, view
from apps.data.config import ReportConfig, ViewConfig
from apps.data.rules.profiles import Rules
from tests.data.commands import conversation, run_clean, write_dump


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
    assert "color-scheme:light dark" in page


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


def test_what_is_no_conversation_is_shown_as_it_is(tmp_path: Path) -> None:
    bare = conversation("", "What is a verb?", "network error")["conversations"]
    wild = {"conversation": [{"role": "user", "content": "What is 7?"}]}
    records = [3, "x", [1], [None], bare, wild, conversation("a", "What is a noun?", "A word.")]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    report.write_report(ReportConfig(folder=str(tmp_path / "out")), Reporter("json"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<pre class="raw">3</pre>' in page or '<pre class="raw">&#34;x&#34;</pre>' in page
    for said in ("network error", "What is 7?", "A word."):
        assert f'<pre class="raw">{said}</pre>' in page


def test_the_page_asks_for_nothing_that_a_conversation_names(tmp_path: Path) -> None:
    answer = "![a](https://x.y/p.png) [b](javascript:c) <img src=z> [d](https://x.y)"
    dump = write_dump(tmp_path / "dump.json", [conversation("a", "<img src=q> what?", answer)])
    run_clean(tmp_path / "out", dump)
    report.write_report(ReportConfig(folder=str(tmp_path / "out")), Reporter("json"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.findall(r"<script|<link|<img|[\"' ]src=[\"']|href=.javascript", page)
    assert '<a href="https://x.y">d</a>' in page


def test_every_rule_and_reason_has_a_sample(tmp_path: Path) -> None:
    records = [{"id": "x", "conversations": [{"from": "martian", "value": "?"}]}] * 300
    first = ["Please explain to me what a noun is.", "A word for a thing or a being. " * 4]
    second = ["What is a verb?", "A doing word."]
    records += [{"id": "y"}, conversation("a", *first, *second), conversation("b", *first, "So?")]
    records += [conversation(f"c{i}", *second) for i in range(300)]
    records += [conversation("d", *first, "Why?", "Because.")]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    samples = report.collect(str(tmp_path / "out"))["samples"]
    assert {"duplicate", "duplicate_opening"} <= set(samples)
    assert {"quarantine: unknown-role", "quarantine: no-messages"} <= set(samples)


def test_a_huge_duplicate_does_not_bloat_the_page(tmp_path: Path) -> None:
    same = conversation("a", "What is a noun?", "word " * 400_000)
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", [same, same]))
    report.write_report(ReportConfig(folder=str(tmp_path / "out")), Reporter("json"))
    assert (tmp_path / "out" / "report.html").stat().st_size < 200_000
    assert (tmp_path / "out" / "report.json").stat().st_size < 200_000


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
    assert "raw assistant" in shown and "Too many requests" in shown
    view.show(ViewConfig(folder=str(cleaned), rule="quarantine"), Reporter("text"))
    assert "bad-message" in capsys.readouterr().out
    with pytest.raises(InputError, match="expected one of banner, duplicate, quarantine"):
        view.show(ViewConfig(folder=str(cleaned), rule="taste"), Reporter("text"))


def test_view_shows_what_a_terminal_would_obey(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "a\x1b]0;title\x07 \x9b2J `\x1b[2J` :smile: [bold]b[/bold] "
    records = [
        conversation("i\x1b[1m", hostile, hostile + "word " * 30_000),
        conversation("b", hostile, "network error"),
        {"id": "c", "conversations": [{"from": "martian", "value": hostile}]},
    ]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    for rule in (None, "banner", "quarantine"):
        view.show(ViewConfig(folder=str(tmp_path / "out"), rule=rule), Reporter("text"))
        shown = capsys.readouterr().out
        assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
        assert ":smile: [bold]b[/bold]" in shown
        assert ("more characters)" in shown) == (rule is None)


@pytest.mark.parametrize("form", ["bare list", "JSON text"])
def test_view_shows_dropped_records_of_every_form(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = conversation("", "What is a verb?", "network error")["conversations"]
    record = turns if form == "bare list" else {"conversations": json.dumps(turns)}
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", [record]))
    view.show(ViewConfig(folder=str(tmp_path / "out"), rule="banner"), Reporter("text"))
    shown = capsys.readouterr().out
    assert "raw assistant" in shown and "network error" in shown


def test_view_shows_calls_and_what_is_not_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"of": "Linz"}}}
    messages = [
        {"role": "user", "content": "How cold is it?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "content": "-3"},
        {"role": "assistant", "content": "Three below.", "weight": 0},
    ]
    dump = write_dump(tmp_path / "dump.json", [{"messages": messages}])
    run_clean(tmp_path / "out", dump, profile="none")
    view.show(ViewConfig(folder=str(tmp_path / "out")), Reporter("text"))
    shown = capsys.readouterr().out
    assert "Let me look." in shown and "look_up" in shown
    assert shown.count("(not learned)") == 1
    samples = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert "look_up" in samples["kept"][0]["messages"][1]["content"]


def test_view_shows_a_dropped_record_under_names_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"wer": "ich", "was": "What is a verb?"}, {"wer": "du", "was": "network error"}]
    names = "column:rede=messages,field:wer=role,field:was=content,role:ich=user,role:du=assistant"
    dump = write_dump(tmp_path / "dump.json", [{"rede": turns}])
    run_clean(tmp_path / "out", dump, map=names)
    view.show(ViewConfig(folder=str(tmp_path / "out"), rule="banner"), Reporter("text"))
    assert "network error" in capsys.readouterr().out


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


def test_the_end_of_input_ends_view(cleaned: Path) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "apps.data", "view", str(cleaned)]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE) as process:
        os.close(slave)
        read_until(master, "q: quit")
        os.write(master, b"\x04")
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(master)
    assert process.returncode == 0


def read_until(terminal: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 4096).decode()
    return shown


def test_the_report_says_what_to_look_at_first(tmp_path: Path) -> None:
    records: list[Any] = [conversation(f"o{i}", "Who are you?", "ChatGPT!") for i in range(3)]
    records += [3, conversation("a", "What is a noun?", "It is a word for a thing. " * 12)]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    page = _page(tmp_path / "out")
    assert "20.0 % of the records could not be read, most for the reason not-an-object" in page
    assert "The rule blocked_words dropped 60.0 % of all conversations" in page
    run_clean(tmp_path / "good", write_dump(tmp_path / "good.json", records[-1:]))
    assert "Nothing stands out" in _page(tmp_path / "good")


def test_quality_is_shown_with_the_lowest_first(tmp_path: Path) -> None:
    good = "It is a word for a thing, an idea or a being. " * 12
    records = [conversation(f"a{i}", f"What is noun {i}?", f"{i}: {good}") for i in range(8)]
    records.append(conversation("low", "What is a preposition in English?", "#+#+#+"))
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    found = report.collect(str(tmp_path / "out"))
    assert sum(count for _, count in found["quality"]) == 9
    lowest = found["samples"]["lowest quality"]
    assert len(lowest) == 5
    assert lowest[0]["messages"][1]["content"] == "#+#+#+"


def test_a_report_of_long_samples_stays_small_and_links_to_the_rest(tmp_path: Path) -> None:
    text = "كلمات كثيرة جدا في هذا النص الطويل "
    records = [conversation(f"a{i}", f"{i} {text * 400}", f"{i} {text * 900}") for i in range(40)]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    page = _page(tmp_path / "out")
    assert len(page) < 600_000
    assert '<a href="samples.html">' in page or not (tmp_path / "out" / "samples.html").exists()
    assert page.count('dir="auto"') >= 2


def test_every_language_is_listed(tmp_path: Path) -> None:
    greetings = ["你好吗", "こんにちは", "안녕하세요", "สวัสดีครับ", "γεια σου", "שלום לך", "नमस्ते जी"]
    greetings += ["გამარჯობა", "բարև ձեզ", "வணக்கம்", "నమస్కారం", "ಸ್ಕಾರನಮ", "സ്കാരംനമ", "নমস্কার"]
    records = [conversation(f"a{i}", hello, hello) for i, hello in enumerate(greetings)]
    run_clean(
        tmp_path / "out",
        write_dump(tmp_path / "dump.json", records),
        profile="none",
        rules=Rules(scores="all"),
    )
    assert len(report.collect(str(tmp_path / "out"))["languages"]) == len(greetings)


def _page(folder: Path) -> str:
    report.write_report(ReportConfig(folder=str(folder)), Reporter("json"))
    return (folder / "report.html").read_text()


def test_the_report_shows_what_reading_left_out_and_which_fields_nothing_carries(
    tmp_path: Path,
) -> None:
    talk = conversation("a", "What is a verb?", "A word that says what is done.") | {"rating": 5}
    image = {"messages": [{"role": "user", "content": [{"type": "image"}]}]}
    piece = {"id": "c_3", "conversations": [{"from": "gpt", "value": "It is."}]}
    piece["conversations"] += conversation("", "And what is a noun?", "A word for a thing.")[
        "conversations"
    ]
    records = [talk, {"id": "b", "conversations": []}, image, piece]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records))
    found = report.collect(str(tmp_path / "out"))
    assert [step["step"] for step in found["funnel"]] == ["read", "no_messages", "media"]
    report.write_report(ReportConfig(folder=str(tmp_path / "out")), Reporter("json"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "rating is not carried" in page and "layout sharegpt" in page
    assert "continuations, whose beginning is not there" in page
