"""The clean command: what comes out, and that everything that came in is accounted for."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.files import schema
from apps.data import __main__ as main
from apps.data import clean
from apps.data.config import CleanConfig
from apps.data.ledger import Ledger
from apps.data.rules.profiles import Rules
from apps.data.units import run_serially
from tests.data import corpus
from tests.data.commands import conversation, rows_of, run_clean, write_dump


def test_a_dump_becomes_conversations_with_a_ledger_that_adds_up(tmp_path: Path) -> None:
    dump = write_dump(
        tmp_path / "dump.json",
        [
            conversation(
                "a", "What is <b>?", '<div class="markdown"><p>It is <b>bold</b>.</p></div>'
            ),
            conversation(
                "b", "Hello there, friend", "Too many requests in 1 hour. Try again later."
            ),
            conversation("c", "What is it?", "An answer.", "a question without an answer"),
            {"id": "d", "conversations": [{"from": "alien", "value": "?"}]},
            conversation("e", "What is it?", "An answer."),
        ],
    )
    ledger = run_clean(tmp_path / "out", dump)
    kept = rows_of(tmp_path / "out")
    assert [row["source_id"] for row in kept] == ["a", "c"]
    assert kept[0]["messages"] == [
        {"role": "user", "content": "What is <b>?"},
        {"role": "assistant", "content": "It is **bold**."},
    ]
    assert ledger["records"]["dropped"] == {"banner": 1, "duplicate": 1}
    assert ledger["records"]["quarantined"] == {"unknown-role": 1}
    assert ledger["messages"]["trimmed"] == {"ends": 1}
    assert ledger["bytes"]["input"] == dump.stat().st_size
    Ledger.from_json(ledger).check()
    assert [row["rule"] for row in rows_of(tmp_path / "out" / "dropped")] == ["duplicate", "banner"]
    assert pq.read_schema(next((tmp_path / "out").glob("*.parquet"))) == schema.CONVERSATIONS
    assert json.loads((tmp_path / "out" / "COMMITTED.json").read_bytes())["shards"]
    assert not (tmp_path / "out" / "_work").exists()


def test_what_people_typed_stays_byte_for_byte(tmp_path: Path) -> None:
    typed = [message.raw for message in corpus.messages(60, seed=5) if message.role == "user"]
    typed += ["a <b> c\r\nd", "\ufeffx", "  both ends \n\n", "<p>Why?</p>", "&amp; &lt;", "a\0b"]
    typed += ["\u200b", "e\u0301 \u00e9", "\t\t", "```\n<x>\n```", "a\x85b\u2028c", "\x1b[31m", ""]
    records = [conversation(f"{i}", text, "<p>An answer.</p>") for i, text in enumerate(typed)]
    run_clean(tmp_path / "out", write_dump(tmp_path / "dump.json", records), profile="none")
    kept = [row["messages"][0]["content"] for row in rows_of(tmp_path / "out")]
    assert len(typed) > 25 and kept == typed


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    dump = write_dump(
        tmp_path / "dump.json", [conversation("a", "A question for you", "An answer")]
    )
    first = run_clean(tmp_path / "out", dump)
    stamp = (tmp_path / "out" / "COMMITTED.json").stat().st_mtime_ns
    assert run_clean(tmp_path / "out", dump, workers=3) == first
    assert (tmp_path / "out" / "COMMITTED.json").stat().st_mtime_ns == stamp


class Dies(Exception):
    pass


@pytest.fixture
def killed_before_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*args: Any, **settings: Any) -> None:
        with monkeypatch.context() as patch, pytest.raises(Dies):
            patch.setattr(clean, "_commit", lambda *args: (_ for _ in ()).throw(Dies))
            run_clean(*args, **settings)

    return run


def test_a_run_that_the_same_command_overtakes_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = write_dump(tmp_path / "dump.json", [conversation("a", "What floats?", "Cork does.")])
    out = tmp_path / "out"

    def overtaken(units: Any, *given: Any) -> list[Any]:
        if units[0].stage == "decide":
            run_clean(out, dump)
        return run_serially(units, *given)

    monkeypatch.setattr(main, "_workers", lambda _: contextlib.nullcontext((overtaken, None)))
    main.run_clean(CleanConfig(inputs=(str(dump),), out=str(out)), Reporter("json"))
    assert [row["source_id"] for row in rows_of(out)] == ["a"]
    assert not (out / "_work").exists()


def test_what_a_killed_run_wrote_of_another_input_is_gone(
    killed_before_commit: Callable[..., None], tmp_path: Path
) -> None:
    records = [conversation(f"{i}", "q" * 3000 + str(i), f"Answer {i}.") for i in range(800)]
    odd = [{"id": "x"}, conversation("b", "Hello there, friend", "network error")]
    dump, out = write_dump(tmp_path / "dump.json", [*records, *odd]), tmp_path / "out"
    killed_before_commit(out, dump, shard_mb=1)
    assert len(list(out.glob("*.parquet"))) > 1 and rows_of(out / "quarantine")
    ledger = run_clean(out, write_dump(dump, records[:100]), shard_mb=1)
    assert len(rows_of(out)) == ledger["records"]["kept"] == 100
    assert rows_of(out / "dropped") == rows_of(out / "quarantine") == []


def test_an_input_that_changes_and_changes_back_is_written_again(
    killed_before_commit: Callable[..., None], tmp_path: Path
) -> None:
    dump, out = tmp_path / "dump.json", tmp_path / "out"
    texts = ["What is the first question?", "What is the second question?"]
    for text in texts:
        write_dump(dump, [conversation("a", text, "An answer.")])
        os.utime(dump, (1, 1))
        killed_before_commit(out, dump)
    write_dump(dump, [conversation("a", texts[0], "An answer.")])
    os.utime(dump, (1, 1))
    run_clean(out, dump)
    assert rows_of(out)[0]["messages"][0]["content"] == texts[0]


@pytest.mark.parametrize("text", ["", "[]", "hello\n", '{"a": 1}\n'])
def test_a_refused_input_leaves_nothing_in_the_way_of_the_right_one(
    tmp_path: Path, text: str
) -> None:
    wrong, out = tmp_path / "wrong.json", tmp_path / "out"
    wrong.write_text(text)
    with pytest.raises(InputError):
        run_clean(out, wrong)
    assert not out.exists() or list(out.iterdir()) == []
    right = write_dump(tmp_path / "right.json", [conversation("a", "Hi there", "Hello, friend.")])
    assert run_clean(out, right, profile="none")["records"]["kept"] == 1


def test_a_file_that_is_refused_costs_nothing_that_an_earlier_run_had_done(
    killed_before_commit: Callable[..., None], tmp_path: Path
) -> None:
    folder, out = tmp_path / "dumps", tmp_path / "out"
    folder.mkdir()
    write_dump(folder / "a.json", [conversation("a", "Hi there", "Hello, friend.")])
    killed_before_commit(out, folder, profile="none")
    done = {path: path.stat().st_mtime_ns for path in (out / "_work").rglob("*.json")}
    assert len(done) > 2
    wrong = json.dumps([conversation("b", "É? é? è?", "Où?")], ensure_ascii=False)
    (folder / "b.json").write_bytes(wrong.encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        run_clean(out, folder, profile="none")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    (folder / "b.json").write_text(wrong)
    assert run_clean(out, folder, profile="none")["records"]["kept"] == 2


def test_a_run_that_was_killed_as_it_began_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml.0a1b2c3d.tmp").write_text("out: ")
    dump = write_dump(tmp_path / "dump.json", [conversation("a", "What floats?", "Cork does.")])
    assert run_clean(out, dump)["records"]["kept"] == 1
    assert not list(out.glob("*.tmp"))


def test_what_a_killed_run_had_begun_to_write_is_gone(
    killed_before_commit: Callable[..., None], tmp_path: Path
) -> None:
    records = [conversation("a", "What floats?", "Cork does."), conversation("b", "Hi", "")]
    dump, out = write_dump(tmp_path / "dump.json", records), tmp_path / "out"
    killed_before_commit(out, dump)
    for name in ("part-00000.parquet.0a1b2c3d.tmp", "dropped/part-00000.parquet.0a1b2c3d.tmp"):
        (out / name).write_text("PAR1")
    (out / "mine.tmp").write_text("of the user")
    assert run_clean(out, dump)["records"]["kept"] == 1
    assert [path.name for path in out.rglob("*.tmp")] == ["mine.tmp"]
    (out / "_work" / "clean-1").mkdir(parents=True)
    run_clean(out, dump)
    assert not (out / "_work").exists()


def test_an_output_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    dump = write_dump(
        tmp_path / "dump.json", [conversation("a", "A question for you", "An answer")]
    )
    run_clean(tmp_path / "out", dump)
    with pytest.raises(InputError, match=r"other settings \(.*min_chars.*\); name an empty folder"):
        run_clean(tmp_path / "out", dump, rules=Rules(min_chars=3))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.doc").touch()
    with pytest.raises(InputError, match="not empty and not from this command"):
        run_clean(tmp_path / "foreign", dump)


@pytest.mark.parametrize(
    "texts", [("What is a noun?", ""), ("What is a noun?",), ("\u200b", "An answer.")]
)
def test_a_conversation_of_which_nothing_is_left_is_called_empty(
    texts: tuple[str, ...], tmp_path: Path
) -> None:
    talks = [conversation("a", *texts), conversation("b", "What is a verb?", "A word for doing.")]
    dump = write_dump(tmp_path / "dump.json", talks)
    cut = Rules(empty="cut", ends="trim")
    for name, settings in (("vicuna", {}), ("cut", {"profile": "none", "rules": cut})):
        ledger = run_clean(tmp_path / name, dump, **settings)
        assert ledger["records"]["dropped"] == {"empty": 1}
        assert sum(ledger["messages"]["trimmed"].values()) == len(texts)
