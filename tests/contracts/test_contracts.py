"""One tiny artifact per contract, in artifacts/: what every writer writes and every reader reads.

A change of format shows here first: the stored files are read as a user's older files would be.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

from apps.common import packs
from apps.common.command.cli import run
from apps.common.command.events import Reporter
from apps.common.files import schema
from apps.common.text.template_check import check_template
from apps.common.text.templates import load_template, write_template
from apps.common.text.tokenizer import load_tokenizer

ARTIFACTS = Path(__file__).parent / "artifacts"
TOKENIZER = str(ARTIFACTS / "tokenizer")
EVALUATION = ARTIFACTS / "evaluation"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_valid(records: list[dict], json_schema: dict) -> None:
    Draft202012Validator.check_schema(json_schema)
    assert records
    for record in records:
        Draft202012Validator(json_schema).validate(record)


def pack_folder(source: str, out: Path) -> packs.Pack:
    from apps.data import pack
    from apps.data.config import PackConfig
    from apps.data.units import run_serially

    config = PackConfig(
        inputs=(source,), tokenizer=TOKENIZER, out=str(out), max_length=256, val_percent=0
    )
    pack.run_pack(pack.prepare(config), Reporter("json"), run_serially)
    return packs.open_pack(str(out))


def test_clean_writes_the_conversations_contract_and_pack_reads_it(tmp_path):
    from apps.data import clean
    from apps.data.config import CleanConfig

    config = CleanConfig(inputs=(str(ARTIFACTS / "dump.json"),), out=str(tmp_path / "clean"))
    clean.run(*clean.prepare(config), Reporter("json"))
    written = pq.read_table(tmp_path / "clean" / "part-00000.parquet")
    stored = pq.read_table(ARTIFACTS / "clean" / "part-00000.parquet")
    assert written.schema.equals(schema.CONVERSATIONS)
    assert stored.schema.equals(schema.CONVERSATIONS)
    assert written.to_pylist() == stored.to_pylist()
    ledger = json.loads((tmp_path / "clean" / schema.LEDGER_NAME).read_text())
    assert ledger["records"]["input"] == 3
    older = ARTIFACTS / "clean-role-and-content"
    for i, source in enumerate((ARTIFACTS / "clean", older, tmp_path / "clean")):
        opened = pack_folder(str(source), tmp_path / f"pack-{i}")
        assert opened.info.splits["train"].num_segments == 2


def test_pack_writes_the_rows_contract_and_training_reads_it(tmp_path):
    from apps.train.batches.micro_batch import PackRows

    stored = packs.open_pack(str(ARTIFACTS / "pack"))
    stored.verify()
    written = pack_folder(str(ARTIFACTS / "clean"), tmp_path / "pack")
    for opened in (stored, written):
        shard = pq.read_table(Path(opened.uri) / "train" / "00000.parquet")
        assert shard.schema.equals(schema.packed_schema(256))
        rows = PackRows(opened.split("train"), opened.info.pad_id)
        assert rows.row_tokens == 256
        assert rows.supervised.sum() == opened.info.splits["train"].num_supervised_tokens
        ids, mask, lengths = rows.row(0)
        assert sum(lengths) <= 256
        assert (ids[sum(lengths) :] == opened.info.pad_id).all()
        assert not mask[sum(lengths) :].any()
    assert written.info.digest == stored.info.digest
    saved = json.loads((ARTIFACTS / "pack" / "pack.json").read_text())
    assert saved == json.loads(json.dumps(stored.info.to_dict()))


def test_an_index_of_passages_keeps_its_contract(tmp_path):
    """The page opens what `apps.data index` wrote, also what it wrote long ago, row by row."""
    import sqlite3

    from apps.common.passages import Passage, open_passages, write_passages
    from apps.serve.page.arena.sources import check_sources

    stored, written = ARTIFACTS / "passages.db", tmp_path / "passages.db"
    made_of = packs.open_pack(str(ARTIFACTS / "pack")).info.digest
    with write_passages(str(written), made_of) as writer:
        for passage in PASSAGES:
            writer.add(Passage(**passage))
    rows = []
    for path in (stored, written):
        connection = sqlite3.connect(path)
        rows.append(list(connection.iterdump()))
        connection.close()
        passages = open_passages(str(path))
        assert passages.made_of == made_of
        (found,) = passages.sharing("he said the old mill by the river grinds no corn in winter")
        assert found.passage == Passage(**PASSAGES[0]) and found.num_words == 11
    assert rows[0] == rows[1]
    model = tmp_path / "model"
    model.mkdir()
    (model / "lineage.json").write_text(json.dumps({"inputs": {"data": made_of}}))
    check_sources({"tuned": str(stored)}, {"tuned": str(model)})


PASSAGES = (
    {
        "conversation": "a1",
        "turn": 2,
        "role": "assistant",
        "text": "The old mill by the river grinds no corn in winter, and nobody minds.",
    },
    {
        "conversation": "b2",
        "turn": 1,
        "role": "user",
        "text": "Warum mahlt die alte Mühle am Fluss im Winter denn kein Korn?",
    },
)


def test_packed_ids_are_those_of_the_exported_template(tmp_path):
    from transformers import AutoTokenizer

    shutil.copytree(TOKENIZER, tmp_path / "model")
    opened = packs.open_pack(str(ARTIFACTS / "pack"))
    write_template(str(tmp_path / "model"), opened.info.template)
    exported = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = opened.split("train").rows([0, 1])
    packed = [
        tuple(ids[: lengths[0]].tolist())
        for ids, lengths in zip(rows.input_ids, rows.lengths, strict=True)
    ]
    conversations = pq.read_table(ARTIFACTS / "clean" / "part-00000.parquet")["messages"]
    expected = [
        tuple(exported.apply_chat_template(messages, return_dict=False))
        for messages in conversations.to_pylist()
    ]
    assert sorted(packed) == sorted(expected)


def test_serving_takes_template_and_stop_tokens_from_the_model_folder(tmp_path):
    from apps.serve.config import ModelConfig
    from apps.serve.model.served import load_model

    folder = tmp_path / "model"
    shutil.copytree(TOKENIZER, folder)
    opened = packs.open_pack(str(ARTIFACTS / "pack"))
    tokenizer = load_tokenizer(TOKENIZER)
    assert tokenizer.digest == opened.info.tokenizer_digest
    write_template(str(folder), opened.info.template)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 300}))
    served = load_model(ModelConfig(name="tuned", path=str(folder)))
    check_template(load_template(str(folder)), tokenizer)
    assert served.eos_token_ids == {tokenizer.backend.token_to_id("</s>")}
    prompt = served.render_chat(
        [{"role": "user", "content": "Was ist 2+2?"}],
        add_generation_prompt=True,
        continue_final_message=False,
        tools=None,
    )
    row = opened.split("train").rows([1])
    first = int(np.argmax(row.loss_mask[0]))
    ids = served.encode(prompt, special_tokens=False)
    assert ids == row.input_ids[0, :first].tolist()


def test_questions_and_answers_keep_their_contract(tmp_path):
    from apps.data.sample.sample import SampleConfig, write_sample
    from apps.eval.records.answer import Answer, load_all
    from apps.eval.records.question import dump_questions, load_questions

    questions = load_questions(str(EVALUATION / "questions.jsonl"))
    assert_valid(lines(EVALUATION / "questions.jsonl"), schema.QUESTION)
    written = [json.loads(line) for line in dump_questions(questions).splitlines()]
    assert written == lines(EVALUATION / "questions.jsonl")
    write_sample(SampleConfig(out=str(tmp_path), conversations=50, questions=5), Reporter("json"))
    assert_valid(lines(tmp_path / "questions.jsonl"), schema.QUESTION)
    answers = load_all(str(EVALUATION), questions)
    for model in ("base", "tuned"):
        stored = lines(EVALUATION / "answers" / f"{model}.jsonl")
        assert_valid(stored, schema.ANSWER)
        answer = answers[model]["capital"]
        assert isinstance(answer, Answer)
        assert json.loads(answer.to_json()) == stored[0]


def test_stored_judgments_keep_their_contract(tmp_path):
    from apps.eval.protocols.parsing import parse_record
    from apps.eval.scores.judgments import contests, load_judgments

    raw = lines(EVALUATION / "judgments" / "raw.jsonl")
    parsed = lines(EVALUATION / "judgments" / "parsed-2.jsonl")
    assert_valid(raw, schema.JUDGMENT)
    assert_valid(parsed, schema.PARSED)
    assert [parse_record(record) for record in raw] == parsed
    (contest,) = contests(load_judgments(str(EVALUATION)))
    assert (contest.models, contest.outcome) == (("base", "tuned"), 0.0)


@pytest.mark.ray
def test_judging_writes_the_judgments_contract(tmp_path, ray_session, monkeypatch):
    from apps.eval.__main__ import COMMANDS

    monkeypatch.setenv("RAY_ADDRESS", ray_session.address)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tmp_path / "evaluation"
    shutil.copytree(EVALUATION, folder, ignore=shutil.ignore_patterns("judgments"))
    assert run("apps.eval", COMMANDS, ["judge", str(folder), "--log-format", "json"]) == 0
    (parsed,) = (folder / "judgments").glob("parsed-*.jsonl")
    assert_valid(lines(folder / "judgments" / "raw.jsonl"), schema.JUDGMENT)
    assert_valid(lines(parsed), schema.PARSED)


def test_votes_keep_their_contract(tmp_path):
    from apps.serve.page.config import PageLimits
    from apps.serve.page.store import conversations
    from apps.serve.page.store.database import Database
    from apps.serve.page.store.votes import cast_vote
    from apps.serve.votes import exported

    database = Database(f"sqlite:///{tmp_path}/page.db")
    asker = conversations.Asker(visitor_id="v", address="a")
    with database.write() as session:
        conversations.known_visitor(session, "v")
        pair = ("base", "tuned")
        battle, sides = conversations.new_battle(session, asker, pair, True, {}, "hi")
        for side in sides:
            turn = conversations.add_turn(session, asker, side, side.id, None, "hi", {})
            turn.status, turn.answer = "done", "hello"
    cast_vote(database, asker, battle.id, "right", PageLimits())
    with database.read() as session:
        (record,) = exported(session)
    database.close()
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    wanted = {
        "battle_id": battle.id,
        "models": ["base", "tuned"],
        "verdict": "right",
        "blind": True,
        "counted": True,
        "left_out_by": "",
        "consent": False,
        "conversations": [talk, talk],
    }
    assert wanted.items() <= record.items()
    assert set(record) == wanted.keys() | {"created", "visitor", "category"}
