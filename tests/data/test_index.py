"""`index` finds what a model was trained on, and nothing that it was not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from apps.common.command.cli import run
from apps.common.command.events import Reporter
from apps.common.errors import InputError
from apps.common.passages import open_passages
from apps.common.text.shared_runs import MIN_RUN
from apps.data.__main__ import COMMANDS
from apps.data.config import IndexConfig, PackConfig
from apps.data.index import _pieces, write_index
from apps.data.pack import prepare, run_pack
from apps.data.packing.tokenize import draw, split_of
from apps.data.units import run_serially
from tests import made
from tests.data.commands import conversation, rows_of, run_clean, write_dump

NUM = 60


def answer(number: int) -> str:
    return " ".join(f"word{number}x{n}" for n in range(12))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> str:
    return made.byte_level_folder(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    records = [conversation(f"c{n}", f"Question {n}?", answer(n)) for n in range(NUM)]
    run_clean(tmp_path / "clean", write_dump(tmp_path / "dump.json", records), profile="none")
    return tmp_path / "clean"


def packed(clean: Path, tokenizer: str, weight: float = 1, **settings: Any) -> str:
    out = str(clean.parent / "pack")
    settings = {"max_length": 256, "val_percent": 20, **settings}
    inputs = (f"{clean}={weight}",)
    run_pack(prepare(PackConfig(inputs=inputs, tokenizer=tokenizer, out=out, **settings)),
             Reporter("json"), run_serially)  # fmt: skip
    return out


def index(tmp_path: Path, *inputs: str) -> set[int]:
    """The numbers of the answers that are found in an index of these inputs."""
    out = str(tmp_path / "passages.db")
    write_index(IndexConfig(inputs=inputs, out=out), Reporter("json"))
    passages = open_passages(out)
    return {n for n in range(NUM) if passages.sharing(answer(n))}


@pytest.mark.parametrize("name", ["config.yaml", "ledger.json", "lineage.json"])
def test_a_pack_that_does_not_say_what_it_was_made_of_is_refused(
    clean: Path, tokenizer: str, tmp_path: Path, capsys, name: str
) -> None:
    """As an older one, or one that was copied in part."""
    pack = packed(clean, tokenizer)
    (Path(pack) / name).unlink()
    out = tmp_path / "passages.db"
    assert run("apps.data", COMMANDS, ["index", pack, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"has no {name}, which says what it was made of; index the folders" in said
    assert not out.exists()


def test_a_clean_folder_is_found_whole_with_ids_and_turns(clean: Path, tmp_path: Path) -> None:
    assert index(tmp_path, str(clean)) == set(range(NUM))
    (found,) = open_passages(str(tmp_path / "passages.db")).sharing(answer(7))
    row = next(row for row in rows_of(clean) if row["source_id"] == "c7")
    assert (found.passage.conversation, found.passage.turn) == (row["id"], 2)
    assert (found.passage.role, found.passage.text) == ("assistant", answer(7))


def test_of_a_pack_what_it_held_back_is_not_found(clean: Path, tokenizer, tmp_path: Path) -> None:
    pack = packed(clean, tokenizer)
    trained_on = {n for n in range(NUM) if split_of(f"c{n}", 20) == "train"}
    assert index(tmp_path, pack) == trained_on != set(range(NUM))
    digest = json.loads((Path(pack) / "pack.json").read_text())["digest"]
    assert open_passages(str(tmp_path / "passages.db")).made_of == digest


def test_of_a_folder_taken_by_half_the_other_half_is_not_found(
    clean: Path, tokenizer, tmp_path: Path
) -> None:
    pack = packed(clean, tokenizer, weight=0.5, val_percent=0)
    ids = {row["source_id"]: row["id"] for row in rows_of(clean)}
    taken = {n for n in range(NUM) if draw(ids[f"c{n}"]) < 0.5}
    assert index(tmp_path, pack) == taken and 0 < len(taken) < NUM


def test_identity_conversations_are_found(clean: Path, tokenizer, tmp_path: Path) -> None:
    pack = packed(clean, tokenizer, identity="built-in", identity_name="Alder")
    index(tmp_path, pack)
    said = "My name is Alder. I am a language model, trained by the Cria contributors."
    found = open_passages(str(tmp_path / "passages.db")).sharing(said)
    assert found[0].passage.conversation.startswith("identity-")


def test_a_folder_that_has_changed_since_is_refused(clean: Path, tokenizer, tmp_path: Path) -> None:
    pack = packed(clean, tokenizer)
    records = [conversation("c", "Question?", answer(1))]
    shutil.rmtree(clean)
    run_clean(clean, write_dump(tmp_path / "other.json", records), profile="none")
    with pytest.raises(InputError, match="has changed since"):
        index(tmp_path, pack)
    with pytest.raises(InputError, match="one pack alone"):
        index(tmp_path, pack, str(clean))


def test_nothing_long_enough_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    records = [conversation("c", "Yes?", "No.")]
    run_clean(tmp_path / "clean", write_dump(tmp_path / "dump.json", records), profile="none")
    with pytest.raises(InputError, match=f"{MIN_RUN} words"):
        index(tmp_path, str(tmp_path / "clean"))
    assert not (tmp_path / "passages.db").exists()


@pytest.mark.parametrize("length", [0, 1, 399, 4000, 4001, 7000, 11_111])
def test_pieces_cover_a_text_and_overlap(length: int) -> None:
    text = "".join(chr(0x4E00 + n % 5000) for n in range(length))
    first, *others = _pieces(text)
    for piece in others:
        assert first.endswith(piece[:400]) and len(piece) > 400
        first += piece[400:]
    assert first == text


def test_the_command_says_what_it_wrote(clean: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "passages.db"
    arguments = ["index", str(clean), "--out", str(out), "--log-format", "json"]
    assert run("apps.data", COMMANDS, arguments) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (done["event"], done["conversations"], done["passages"]) == ("index.done", NUM, NUM)
    assert run("apps.data", COMMANDS, ["index", str(tmp_path), "--out", str(out)]) == 2


def test_a_file_that_is_no_index_is_not_written_over(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    config = IndexConfig(inputs=(str(clean),), out=str(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="is there and no index"):
        write_index(config, Reporter("json"))
    assert (tmp_path / "notes.txt").read_text() == "precious"
    for _ in range(2):
        assert index(tmp_path, str(clean)) == set(range(NUM))
