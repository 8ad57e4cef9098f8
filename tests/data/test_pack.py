"""`pack` end to end on small folders: rows, ledger, splits, mixing, resuming."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.common import packs
from apps.common.command.events import Reporter
from apps.common.errors import CriaError, InputError
from apps.common.files import storage
from apps.common.files.schema import CONVERSATIONS
from apps.common.text.tokenizer import load_tokenizer
from apps.data import pack, units
from apps.data.config import PackConfig
from apps.data.pack import even_ranges, finished, prepare, run_pack
from apps.data.packing import mix
from apps.data.packing.identity import built_in
from apps.data.packing.tokenize import split_of
from tests import made
from tests.data.commands import conversation, run_clean, write_dump


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return made.byte_level_folder(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(mix, "_UNIT_BYTES", 4000)
    monkeypatch.setattr(pack, "_SHARD_TOKENS", 8000)


def turns(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)
    ]


def clean_folder(folder: Path, num_conversations: int = 200, start: int = 0) -> str:
    """One to four rounds each, in two shards of row groups of 20."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(start, start + num_conversations):
        texts = [f"question {i}.0", f"answer {i}.0 " * (1 + i % 7)]
        for j in range(1, 1 + i % 4):
            texts += [f"and {j} of {i}?", f"answer {i}.{j}"]
        row = {"id": f"s{i}", "source_id": f"c{i}", "messages": turns(*texts)}
        rows.append({**row, "model": None, "language": "en", "scores": []})
    for part in range(2):
        table = pa.Table.from_pylist(rows[part::2], CONVERSATIONS)
        pq.write_table(table, folder / f"{part:05d}.parquet", row_group_size=20)
    return str(folder)


def make(out: Path, tokenizer: str, *inputs: str, run_units=units.run_serially, **settings):
    settings = {"max_length": 256, "val_percent": 10, **settings}
    config = PackConfig(inputs=inputs, tokenizer=tokenizer, out=str(out), **settings)
    job = prepare(config)
    return finished(job) or run_pack(job, Reporter("json"), run_units)


def digests(folder: Path) -> dict[str, str]:
    files = [*folder.rglob("*.parquet"), folder / "pack.json", folder / "ledger.json"]
    return {str(f.relative_to(folder)): hashlib.blake2b(f.read_bytes()).hexdigest() for f in files}


def segments(opened: packs.Pack, split: str) -> list[list[int]]:
    part = opened.split(split)
    rows = part.rows(range(len(part)))
    found = []
    for ids, lengths in zip(rows.input_ids, rows.lengths, strict=True):
        at = 0
        for length in lengths:
            found.append(ids[at : at + length].tolist())
            at += length
    return found


def test_packed_rows_are_the_template_ids_of_every_round(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    info = make(tmp_path / "pack", tokenizer, source)
    opened = packs.open_pack(str(tmp_path / "pack"))
    opened.verify()
    backend = load_tokenizer(tokenizer).backend
    texts = {
        backend.decode(ids, skip_special_tokens=False)
        for split in packs.SPLITS
        for ids in segments(opened, split)
    }
    said = " ".join(texts)
    for i in range(200):
        assert all(f"answer {i}.{j}" in said for j in range(1 + i % 4))
    assert all(text.startswith("<s>A chat between") for text in texts)
    assert info.splits["train"].num_rows > info.splits["val"].num_rows > 0
    assert len(list((tmp_path / "pack" / "train").iterdir())) > 1
    assert not (tmp_path / "pack" / "_work").exists()


def test_the_ledger_adds_up(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    make(tmp_path / "pack", tokenizer, source, identity="built-in")
    ledger = json.loads((tmp_path / "pack" / "ledger.json").read_text())
    conversations, rounds = ledger["conversations"], ledger["rounds"]
    assert conversations == {"read": 200, "kept": 200, "dropped": {}}
    assert rounds["read"] == rounds["kept"] == sum(1 + i % 4 for i in range(200))
    assert ledger["generated"]["conversations"]["kept"] == len(built_in("Cria", "x"))
    assert sum(ledger["segments"].values()) == sum(ledger["segments_after_weights"].values())


def test_no_source_is_in_both_splits(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    make(tmp_path / "pack", tokenizer, source, max_length=160)
    opened = packs.open_pack(str(tmp_path / "pack"))
    backend = load_tokenizer(tokenizer).backend
    sources: dict[str, list[str]] = {split: [] for split in packs.SPLITS}
    for split in packs.SPLITS:
        for ids in segments(opened, split):
            text = backend.decode(ids, skip_special_tokens=False)
            (number,) = set(re.findall(r"answer (\d+)\.", text))
            assert split_of(f"c{number}", 10) == split
            sources[split].append(number)
    assert not set(sources["train"]) & set(sources["val"])
    assert len(sources["val"]) > len(set(sources["val"])) > 5  # some have several segments


def test_identity_conversations_are_all_in_train(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    identity = {"identity": "built-in", "identity_name": "Ada", "identity_makers": "Acme"}
    make(tmp_path / "pack", tokenizer, source, val_percent=50, **identity)
    opened = packs.open_pack(str(tmp_path / "pack"))
    backend = load_tokenizer(tokenizer).backend
    said = {
        split: [
            "Ada" in backend.decode(ids) and "Acme" in backend.decode(ids)
            for ids in segments(opened, split)
        ]
        for split in packs.SPLITS
    }
    assert (sum(said["train"]), sum(said["val"])) == (len(built_in("Ada", "Acme")), 0)


@pytest.mark.parametrize("over_long", ["truncate_answer", "drop"])
def test_what_becomes_of_over_long_rounds_is_counted(tmp_path, tokenizer, over_long):
    rows = [{"messages": turns("one?", "short", "two?", "long " * 300, "three?", "short")}]
    schema = pa.schema([CONVERSATIONS.field("messages")])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "chats.parquet")
    source = str(tmp_path / "chats.parquet")
    make(tmp_path / "pack", tokenizer, source, val_percent=0, over_long=over_long)
    rounds = json.loads((tmp_path / "pack" / "ledger.json").read_text())["rounds"]
    assert (
        rounds
        == {
            "truncate_answer": {"read": 3, "kept": 3, "dropped": {}, "truncated": 1},
            "drop": {"read": 3, "kept": 2, "dropped": {"over_long_round": 1}, "truncated": 0},
        }[over_long]
    )


def test_a_weight_repeats_or_samples_whole_conversations(tmp_path, tokenizer):
    once, other = clean_folder(tmp_path / "a"), clean_folder(tmp_path / "b", start=1000)
    make(tmp_path / "pack", tokenizer, f"{once}=2.5", f"{other}=0.5", val_percent=0)
    backend = load_tokenizer(tokenizer).backend
    texts = [
        backend.decode(ids, skip_special_tokens=False)
        for ids in segments(packs.open_pack(str(tmp_path / "pack")), "train")
    ]
    counts = [sum(f"USER: question {i}." in text for text in texts) for i in range(200)]
    assert set(counts) == {2, 3}
    assert 60 < sum(count == 3 for count in counts) < 140
    counts = [sum(f"USER: question {i}." in text for text in texts) for i in range(1000, 1200)]
    assert set(counts) == {0, 1}
    assert 60 < sum(counts) < 140


def test_pad_mode_has_one_segment_a_row(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    padded = make(tmp_path / "pad", tokenizer, source, mode="pad").splits["train"]
    packed = make(tmp_path / "pack", tokenizer, source).splits["train"]
    assert padded.num_rows == padded.num_segments == packed.num_segments
    assert (padded.num_tokens, padded.fill < packed.fill) == (packed.num_tokens, True)


def test_control_tokens_that_the_normalizer_makes_are_broken_and_counted(tmp_path, tokenizer):
    saved = json.loads(Path(tokenizer, "tokenizer.json").read_text())
    saved["normalizer"] = {"type": "NFKC"}
    for token in saved["added_tokens"]:
        token["normalized"] = True
    shutil.copytree(tokenizer, tmp_path / "nfkc")
    (tmp_path / "nfkc" / "tokenizer.json").write_text(json.dumps(saved))
    rows = [{"messages": turns("what is \uff1cs\uff1e?", "strike\uff1c/s\uff1e it")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chats.parquet")
    make(tmp_path / "pack", str(tmp_path / "nfkc"), str(tmp_path / "chats.parquet"))
    ledger = json.loads((tmp_path / "pack" / "ledger.json").read_text())
    assert ledger["control_tokens_broken"] == 2


def test_control_tokens_in_messages_are_broken_and_counted(tmp_path, tokenizer):
    rows = [{"messages": turns("what is <s>x</s>?", "strike</s> it")}]
    schema = pa.schema([CONVERSATIONS.field("messages")])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "chats.parquet")
    source = str(tmp_path / "chats.parquet")
    make(tmp_path / "pack", tokenizer, source, val_percent=0)
    ledger = json.loads((tmp_path / "pack" / "ledger.json").read_text())
    assert ledger["control_tokens_broken"] == 3
    (ids,) = segments(packs.open_pack(str(tmp_path / "pack")), "train")
    backend = load_tokenizer(tokenizer).backend
    assert ids.count(backend.token_to_id("</s>")) == 1


_SHOWS_TOOLS = (
    "{{- bos_token -}}{%- for tool in tools or [] -%}{{- tool | tojson -}}{%- endfor -%}"
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- generation -%}{{- m.content -}}"
    "{%- if m.tool_calls -%}{{- m.tool_calls | tojson -}}{%- endif -%}{{- eos_token -}}"
    "{%- endgeneration -%}{%- else -%}{{- m.role ~ (m.name or '') ~ ': ' ~ m.content -}}"
    "{%- endif -%}{%- endfor -%}"
)


def test_control_tokens_of_tools_are_broken_and_counted(tmp_path, tokenizer):
    shutil.copytree(tokenizer, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(_SHOWS_TOOLS)
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": "a</s>"}}}
    messages = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([call])},
        {"role": "tool", "content": "Bob</s>", "name": "<s>f"},
        {"role": "assistant", "content": "Bob."},
    ]
    tools = json.dumps([{"type": "function", "function": {"name": "f", "description": "</s>"}}])
    row = {"id": "a", "source_id": "a", "messages": messages, "tools": tools}
    table = pa.Table.from_pylist([row], CONVERSATIONS)
    pq.write_table(table, tmp_path / "chats.parquet")
    model = str(tmp_path / "model")
    make(tmp_path / "pack", model, str(tmp_path / "chats.parquet"), val_percent=0, template=model)
    ledger = json.loads((tmp_path / "pack" / "ledger.json").read_text())
    assert ledger["control_tokens_broken"] == 4
    (ids,) = segments(packs.open_pack(str(tmp_path / "pack")), "train")
    backend = load_tokenizer(model).backend
    assert [ids.count(backend.token_to_id(text)) for text in ("<s>", "</s>")] == [1, 2]


def test_rows_without_an_id_are_told_apart_in_every_unit_and_place(tmp_path, tokenizer):
    rows = [{"messages": turns(f"question {i}.", f"answer {i}")} for i in range(120)]
    schema = pa.schema([CONVERSATIONS.field("messages")])
    counts = {}
    for name in ("a", "b"):
        source = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema), source, row_group_size=20)
        make(tmp_path / name, tokenizer, f"{source}=0.5", val_percent=0)
        backend = load_tokenizer(tokenizer).backend
        found = segments(packs.open_pack(str(tmp_path / name)), "train")
        said = " ".join(backend.decode(ids, skip_special_tokens=False) for ids in found)
        counts[name] = [f"question {i}." in said for i in range(120)]
    assert counts["a"] == counts["b"]
    assert counts["a"][:20] != counts["a"][20:40] != counts["a"][40:60]


def test_what_is_counted_for_the_dashboard_is_what_was_packed(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    config = PackConfig(
        inputs=(source,), tokenizer=tokenizer, out=str(tmp_path / "pack"), max_length=256
    )
    counted = Counter()

    def count(name, value, split):
        counted[name, split] += value

    info = run_pack(prepare(config), Reporter("json"), units.run_serially, count)
    assert counted == {
        (name, split): amount
        for split, found in info.splits.items()
        for name, amount in (
            ("packed_rows_total", found.num_rows),
            ("packed_tokens_total", found.num_tokens),
        )
        if amount
    }


class Dies(Exception):
    pass


def dying_runner(num_units: int) -> Callable:
    """Runs units in reverse and dies after some, as a killed command would."""

    def run(all_units, process, folder, on_done=None):
        for left, unit in zip(range(num_units, -1, -1), reversed(all_units), strict=False):
            if not left:
                raise Dies
            units.finish(unit, process, folder)
        return units.run_serially(all_units, process, folder, on_done)

    return run


def test_rows_are_identical_after_a_kill_and_in_any_order(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    make(tmp_path / "whole", tokenizer, source)
    for num_units in (1, 5, 7):
        with pytest.raises(Dies):
            make(tmp_path / "cut", tokenizer, source, run_units=dying_runner(num_units))
        with pytest.raises(CriaError, match=r"holds no pack|not finished"):
            packs.open_pack(str(tmp_path / "cut"))
    make(tmp_path / "cut", tokenizer, source, run_units=dying_runner(10**6))
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_a_finished_pack_is_not_made_again_nor_overwritten(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean", 20)
    make(tmp_path / "pack", tokenizer, source)

    def none(*args, **kwargs):
        raise AssertionError("a finished pack needs no unit")

    (tmp_path / "pack" / "_work").mkdir()  # of a run that another overtook
    make(tmp_path / "pack", tokenizer, source, run_units=none)
    assert not (tmp_path / "pack" / "_work").exists()
    with pytest.raises(InputError, match="other settings"):
        make(tmp_path / "pack", tokenizer, source, max_length=64)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"template": "vicuna"}, "expected one of vicuna-v1.1"),
        ({"template": "own"}, "has no chat template"),
        ({"template": "chatml"}, "add it to the tokenizer"),
        ({"tokenizer": "/nowhere"}, "No model folder"),
        ({"inputs": ("/nowhere",)}, "holds no Parquet files"),
        ({"inputs": ("{clean}=0",)}, "weight is 0"),
        ({"max_length": 20}, "No conversation is left"),
        ({"identity": "{clean}/00000.parquet"}, "is not JSON"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, tokenizer, change, why):
    source = clean_folder(tmp_path / "clean", 20)
    settings = {"inputs": (source,), "tokenizer": tokenizer, **change}
    settings["inputs"] = tuple(text.format(clean=source) for text in settings["inputs"])
    if "identity" in settings:
        settings["identity"] = settings["identity"].format(clean=source)
    inputs, folder = settings.pop("inputs"), settings.pop("tokenizer")
    with pytest.raises(CriaError, match=why) as raised:
        make(tmp_path / "pack", folder, *inputs, **settings)
    assert "\n" not in str(raised.value)


def test_a_folder_named_like_a_weight_is_a_folder(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "day=20240101", 20)
    once = make(tmp_path / "once", tokenizer, source).splits["train"]
    twice = make(tmp_path / "twice", tokenizer, f"{source}=2").splits["train"]
    assert twice.num_segments == 2 * once.num_segments


def test_a_folder_of_anything_else_is_refused_and_left_alone(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean", 20)
    (tmp_path / "own" / "train").mkdir(parents=True)
    (tmp_path / "own" / "train" / "rows.parquet").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="is not empty and not from this command"):
        make(tmp_path / "own", tokenizer, source)
    assert (tmp_path / "own" / "train" / "rows.parquet").read_bytes() == b"somebody's"
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["train"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        make(tmp_path / "file", tokenizer, source)
    run_clean(tmp_path / "other", write_dump(tmp_path / "d.json", [conversation("a", "Q", "A")]))
    with pytest.raises(InputError, match="holds the output of another command"):
        make(tmp_path / "other", tokenizer, source)


def test_an_unfinished_clean_folder_is_refused(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean", 20)
    (tmp_path / "clean" / "config.yaml").write_text("profile: vicuna\n")
    with pytest.raises(InputError, match="no finished output"):
        make(tmp_path / "pack", tokenizer, source)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.unlink(), r"lacks .*\.parquet, which .* copy the whole folder again"),
        (lambda path: path.write_bytes(b"PAR1"), "not a whole Parquet file"),
        (
            lambda path: pq.write_table(pq.read_table(path).slice(1), path),
            "is not what `clean` wrote there",
        ),
    ],
)
def test_a_clean_folder_that_lost_or_changed_a_shard_is_refused(change, why, tmp_path, tokenizer):
    talks = [conversation(f"r{i}", f"Hello number {i}", "Good day to you.") for i in range(3)]
    run_clean(tmp_path / "clean", write_dump(tmp_path / "dump.json", talks))
    folder = str(tmp_path / "clean")
    assert make(tmp_path / "a", tokenizer, folder, val_percent=0).splits["train"].num_segments == 3
    (shard,) = (tmp_path / "clean").glob("*.parquet")
    change(shard)
    with pytest.raises(CriaError, match=why):
        make(tmp_path / "b", tokenizer, folder)


def test_a_clean_folder_that_kept_nothing_is_told_as_such(tmp_path, tokenizer):
    dump = write_dump(tmp_path / "dump.json", [conversation("a", "Hello, friend", "network error")])
    run_clean(tmp_path / "clean", dump)
    with pytest.raises(InputError, match=r"kept no conversation; .* report"):
        make(tmp_path / "pack", tokenizer, str(tmp_path / "clean"))


def test_even_ranges_cover_everything_in_order():
    sizes = [3.0, 1, 4, 1, 5, 9, 2, 6]
    for target in (1, 5, 10, 100):
        ranges = even_ranges(sizes, target)
        assert [i for first, stop in ranges for i in range(first, stop)] == list(range(8))
        assert all(first < stop for first, stop in ranges)
    assert even_ranges([], 5) == []


def command(source: str, tokenizer: str, out: Path, workers: int) -> list[str]:
    start = [sys.executable, "-m", "apps.data", "pack", source, "--tokenizer", tokenizer]
    settings = ["--max-length", "256", "--val-percent", "10", "--workers", str(workers)]
    return [*start, "--out", str(out), *settings, "--log-format", "json"]


@pytest.mark.ray
def test_the_command_gives_the_same_bytes_with_any_number_of_workers(
    tmp_path, tokenizer, ray_session, monkeypatch
):
    monkeypatch.undo()  # the command runs with its real unit size
    source = clean_folder(tmp_path / "clean", 60)
    make(tmp_path / "serial", tokenizer, source)
    for workers in (1, 3):
        out = tmp_path / f"ray{workers}"
        done = subprocess.run(
            command(source, tokenizer, out, workers),
            env={**os.environ, **ray_session.child_env()},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["event"] == "pack.done"
        assert digests(out) == digests(tmp_path / "serial")


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_command_goes_on_and_gives_the_same_bytes(
    tmp_path, tokenizer, ray_session, monkeypatch
):
    monkeypatch.undo()
    source = tmp_path / "clean"
    for part in range(12):
        clean_folder(tmp_path / str(part), 40, start=40 * part)
        source.mkdir(exist_ok=True)
        for file in (tmp_path / str(part)).iterdir():
            file.rename(source / f"{part:02d}-{file.name}")
    make(tmp_path / "whole", tokenizer, str(source))
    out = tmp_path / "killed"
    start = command(str(source), tokenizer, out, 1)
    env = {**os.environ, **ray_session.child_env()}
    process = subprocess.Popen(start, env=env, stdout=subprocess.DEVNULL)
    while len(list(out.glob("_work/tokenize-*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    with pytest.raises(CriaError):
        packs.open_pack(str(out))
    done = {file: file.stat().st_mtime_ns for file in out.glob("_work/tokenize-*.json")}
    assert 3 <= len(done) < 24
    second = subprocess.Popen(start, env=env, stdout=subprocess.DEVNULL)
    while second.poll() is None:
        for file, written in done.items():
            with contextlib.suppress(FileNotFoundError):
                assert file.stat().st_mtime_ns == written, "a finished unit is not done again"
        time.sleep(0.1)
    assert second.returncode == 0
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"id": 7, "messages": [{"role": "user", "content": "q"}]}, "id as int64"),
        ({"messages": [{"role": "user", "content": ["q"]}]}, "content as list"),
        (
            {"messages": [{"role": "user", "content": "q", "tool_calls": [{"id": "1"}]}]},
            "tool_calls",
        ),
        (
            {"messages": [{"role": "user", "content": "q"}], "tools": [{"name": "f"}]},
            "tools as list",
        ),
    ],
)
def test_columns_as_other_makers_fill_them_are_refused(
    row: dict[str, object], name: str, tmp_path: Path
) -> None:
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"has {name}.* expected a text; put the file through"):
        mix.find_source(str(tmp_path))


def test_a_column_that_is_there_twice_is_checked_twice(tmp_path: Path) -> None:
    messages = pa.array([[{"role": "user", "content": "q"}]])
    columns = [messages, pa.array(["a"]), pa.array([7])]
    table = pa.Table.from_arrays(columns, names=["messages", "tools", "tools"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has tools as int64, expected a text"):
        mix.find_source(str(tmp_path))


@pytest.mark.parametrize("hole", [{"content": None}, {"role": None}])
def test_a_message_that_other_makers_left_empty_is_refused(hole, tmp_path, tokenizer):
    rows = [{"messages": turns("Hello there", "Good day")} for _ in range(3)]
    rows[2]["messages"][1] |= hole
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=r"a\.parquet, row 2 has a message without role or content"
    ):
        make(tmp_path / "pack", tokenizer, str(tmp_path / "a.parquet"))


def test_a_folder_given_twice_has_both_weights(tmp_path, tokenizer):
    source = clean_folder(tmp_path / "clean")
    make(tmp_path / "twice", tokenizer, source, f"{source}=0.5")
    make(tmp_path / "once", tokenizer, f"{source}=1.5")
    assert digests(tmp_path / "twice") == digests(tmp_path / "once")
    ledger = json.loads((tmp_path / "twice" / "ledger.json").read_text())
    assert ledger["mix"] == {source: 1.5} and ledger["conversations"]["read"] == 200


def test_a_folder_given_twice_is_read_once(tmp_path, monkeypatch):
    source = clean_folder(tmp_path / "clean")
    digested = []
    digest_file = storage.digest_file
    monkeypatch.setattr(storage, "digest_file", lambda u: digested.append(u) or digest_file(u))
    (found,) = mix.find_sources((source, f"{source}=60", f"{source}=60"))
    assert found.weight == 121 and digested == [file.uri for file in found.files]
