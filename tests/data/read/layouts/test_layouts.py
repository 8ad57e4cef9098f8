"""Every layout, written by a writer of its own, comes back in every kind of file."""

import random
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from apps.common.command import cli
from apps.common.command.events import Reporter
from apps.data import clean, layouts
from apps.data.__main__ import COMMANDS
from apps.data.config import CleanConfig, LayoutsConfig
from apps.data.ledger import Ledger
from apps.data.read.layouts.known import BY_NAME, LAYOUTS, LayoutName, recognised
from tests.data.commands import rows_of, run_clean
from tests.data.read.layouts.writing import (
    FILES,
    NOT_IN_TABLES,
    TABLES,
    TALKS,
    WRITERS,
    records_of,
    talks_of,
    write,
)
from tests.data.read.reading import mutate, read_all


def talks(folder: Path) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in row["messages"]] for row in rows_of(folder)]


def test_every_layout_has_a_writer_here_and_a_name() -> None:
    assert set(WRITERS) == set(BY_NAME) == set(get_args(LayoutName))
    assert len(LAYOUTS) == len(BY_NAME)


@pytest.mark.parametrize(
    ("layout", "name"),
    [(layout, name) for layout in WRITERS for name in FILES]
    + [(layout, name) for layout in WRITERS if layout not in NOT_IN_TABLES for name in TABLES],
)
def test_a_layout_comes_back_from_every_kind_of_file(
    layout: str, name: str, tmp_path: Path
) -> None:
    dump = write(tmp_path, layout, name)
    ledger = run_clean(tmp_path / "out", dump, profile="none")
    assert talks(tmp_path / "out") == talks_of(layout)
    assert set(ledger["layouts"]) <= {layout, "oasst-trees"}
    assert sum(ledger["layouts"].values()) == ledger["records"]["kept"] == len(TALKS)
    Ledger.from_json(ledger).check()


@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_by_name_reads_what_it_recognises(layout: str, tmp_path: Path) -> None:
    dump = write(tmp_path, layout, "lines.jsonl")
    run_clean(tmp_path / "out", dump, profile="none", layout=layout)
    assert talks(tmp_path / "out") == talks_of(layout)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_file_of_one_record_is_one_conversation(layout: str, tmp_path: Path) -> None:
    rows = WRITERS[layout](1, TALKS[1])
    if BY_NAME[layout].regrouped:
        rows = rows[:1]
    for name, data in (("a.json", orjson.dumps(rows[0])), ("b.json", orjson.dumps(rows[:1]))):
        (tmp_path / name).write_bytes(data)
        run_clean(tmp_path / f"out-{name}", tmp_path / name, profile="none")
        expected = talks_of(layout)[1]
        if BY_NAME[layout].regrouped:
            expected = expected[:1] if layout == "oasst-messages" else expected[-2:]
        assert talks(tmp_path / f"out-{name}") == [expected]


def test_layouts_may_be_mixed_in_one_file(tmp_path: Path) -> None:
    mixed = [row for name in WRITERS if not BY_NAME[name].regrouped for row in records_of(name)]
    random.Random(3).shuffle(mixed)
    (tmp_path / "dump.jsonl").write_bytes(b"\n".join(map(orjson.dumps, mixed)))
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none")
    assert ledger["records"]["kept"] == len(mixed)
    assert set(ledger["layouts"]) == {name for name in WRITERS if not BY_NAME[name].regrouped}


def test_the_example_of_a_layout_is_one_of_its_own() -> None:
    for layout in LAYOUTS:
        assert recognised(orjson.loads(layout.example)) is layout


def test_layouts_shows_a_line_and_an_example_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    layouts.show(LayoutsConfig(), Reporter("text"))
    shown = capsys.readouterr().out
    assert all(name in shown and BY_NAME[name].example in shown for name in WRITERS)


def test_the_help_of_clean_lists_the_layouts_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run("apps.data", COMMANDS, ["clean", "--help"]) == 0
    assert layouts.described() in capsys.readouterr().out


@pytest.mark.parametrize("num_files", [140, pytest.param(5000, marks=pytest.mark.slow)])
def test_mutated_files_of_every_layout_never_crash_and_always_add_up(
    num_files: int, tmp_path: Path
) -> None:
    draw = random.Random(17)
    whole = {
        (layout, name): {**FILES, **TABLES}[name](records_of(layout))
        for layout in WRITERS
        for name in (*FILES, *(TABLES if layout not in NOT_IN_TABLES else ()))
    }
    places = list(whole)
    for i in range(num_files):
        layout, name = places[i % len(places)] if i < len(places) else draw.choice(places)
        data = bytearray(whole[layout, name])
        for _ in range(draw.randint(1, 4)):
            mutate(data, draw)
        path = tmp_path / str(i % 5) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        tools: Any = draw.choice(["keep", "drop", "refuse"])
        config = CleanConfig(inputs=(str(path),), out="unused", profile="none", tools=tools)
        read_all(config.resolved(), draw.choice([1, 999, 1 << 20]))


def test_a_zip_is_read_by_the_members_that_hold_conversations(tmp_path: Path) -> None:
    dump = write(tmp_path, "chatgpt-export", "export.zip")
    run_clean(tmp_path / "out", dump, profile="none")
    lineage = orjson.loads((tmp_path / "out" / "lineage.json").read_bytes())
    assert list(lineage["inputs"]) == [f"{dump}!/export/conversations.json"]
    skipped = {uri.rsplit("/", 1)[1]: why for uri, why in lineage["skipped"].items()}
    assert skipped == {
        "chat.html": "by its name no dump",
        "user.json": "first record: email (text)",
    }
    assert clean.finished(*clean.prepare(_config(tmp_path, dump)), Reporter("json"))


def _config(tmp_path: Path, dump: Path) -> CleanConfig:
    return CleanConfig(inputs=(str(dump),), out=str(tmp_path / "out"), profile="none")
