"""What a record says about its messages: flags, ranks, weights, plugins."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.data.read.reader import Reading, read_record
from apps.data.rules.profiles import FLAGS, Rules
from tests.data.commands import rows_of, run_clean
from tests.data.read.layouts.one_record import ANSWER, ASKED, clean_one, said

FLAGGED = [{"flagged": True}, {"flagged": False}]


@pytest.mark.parametrize(
    ("own", "flag"),
    [
        *(({"toxic": value}, "toxic") for value in (True, 1, 1.0, "True", "true", "1")),
        ({"is_toxic": True}, "toxic"),
        ({"redacted": "yes"}, "redacted"),
        ({"nsfw": True}, "moderation"),
        ({"flagged": 1}, "moderation"),
        ({"openai_moderation": FLAGGED}, "moderation"),
        ({"openai_moderation": str(FLAGGED)}, "moderation"),
        ({"openai_moderation": json.dumps(FLAGGED)}, "moderation"),
        ({"openai_moderation": [{"flagged": "True"}]}, "moderation"),
        ({"moderation": {"id": "m", "results": FLAGGED}}, "moderation"),
        ({"moderation": {"categories": {"hate": True, "self-harm": False}}}, "moderation"),
        *(({"toxic": value}, "") for value in (False, 0, 0.0, "False", "0", None, math.nan, "")),
        ({"openai_moderation": [{"flagged": "False"}]}, ""),
        ({"moderation": {"categories": {"hate": False}}}, ""),
    ],
)
def test_a_flag_is_seen_however_it_is_written(
    own: dict[str, Any], flag: str, tmp_path: Path
) -> None:
    rest = {"messages": [{**ASKED, "content": "And tomorrow, will it be warmer?"}, ANSWER]}
    for name, messages, beside in (
        ("record", [ASKED, ANSWER], own),
        ("message", [{**ASKED, **own}, ANSWER], {}),
    ):
        path = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"messages": messages, **beside}), json.dumps(rest)]
        path.write_text("\n".join(lines))
        ledger = run_clean(tmp_path / name, path, profile="none", rules=Rules(flagged=FLAGS))
        assert ledger["records"]["dropped"] == ({"flagged": 1} if flag else {}), name
        assert ledger["ignored"] == {}
        if flag:
            (row,) = rows_of(tmp_path / name / "dropped")
            assert row["detail"] == flag


def test_a_flag_that_is_a_score_is_counted_as_ignored(tmp_path: Path) -> None:
    ledger = clean_one(tmp_path, {"messages": [{**ASKED, "toxic": 0.4}, ANSWER], "nsfw": 0.9})
    assert ledger["ignored"] == {"nsfw": 1, "messages[].toxic": 1}


@pytest.mark.parametrize(
    ("plugins", "has_any"),
    [
        *((none, False) for none in ([], None, "", "[]", "null", "None", "nan", math.nan)),
        *((some, True) for some in (["browser"], '["browser"]', "['browser']", "browser")),
    ],
)
def test_a_cell_of_plugins_is_a_list(plugins: Any, has_any: bool, tmp_path: Path) -> None:
    table = pa.table({"plugins": [plugins], "messages": [[ASKED, ANSWER]]})
    pq.write_table(table, tmp_path / "dump.parquet")
    rules = Rules(plugins="drop")
    ledger = run_clean(tmp_path / "out", tmp_path / "dump.parquet", profile="none", rules=rules)
    assert ledger["records"]["dropped"] == ({"plugins": 1} if has_any else {})


@pytest.mark.parametrize("ranks", [("1", "0"), ("1.0", "0.0"), (math.nan, "0"), ("best", 0)])
def test_a_rank_may_be_a_text(ranks: tuple[Any, Any], tmp_path: Path) -> None:
    rows = [
        {"message_id": "a", "parent_id": None, "role": "prompter", "text": "What floats?"},
        {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Stones."},
        {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "Cork."},
    ]
    for row, rank in zip(rows[1:], ranks, strict=True):
        row["rank"] = rank
    (tmp_path / "dump.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none")
    assert said(tmp_path) == [("user", "What floats?"), ("assistant", "Cork.")]


def test_ranks_that_pandas_wrote_as_fractions_choose_the_path(tmp_path: Path) -> None:
    lines = [
        "message_id,parent_id,role,text,rank",
        "m1,,prompter,What floats?,",
        "m2,m1,assistant,Stones do.,1.0",
        "m3,m1,assistant,Cork does.,0.0",
    ]
    (tmp_path / "dump.csv").write_text("\n".join(lines))
    run_clean(tmp_path / "out", tmp_path / "dump.csv", profile="none")
    assert said(tmp_path) == [("user", "What floats?"), ("assistant", "Cork does.")]


@pytest.mark.parametrize("nothing", ["", "nan", "None", None, math.nan])
def test_a_review_that_was_not_made_has_not_failed(nothing: Any, tmp_path: Path) -> None:
    rows = [
        {"message_id": "a", "parent_id": None, "role": "prompter", "text": "What floats?"},
        {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Stones.", "rank": 1},
        {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "Cork.", "rank": 0},
        {"message_id": "d", "parent_id": "a", "role": "assistant", "text": "No.", "rank": 0},
    ]
    given = [nothing, True, nothing, False]
    rows = [{**row, "review_result": said} for row, said in zip(rows, given, strict=True)]
    (tmp_path / "dump.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_clean(tmp_path / "out", tmp_path / "dump.jsonl", profile="none")
    assert said(tmp_path) == [("user", "What floats?"), ("assistant", "Cork.")]


@pytest.mark.parametrize("weight", [None, "", "nan", math.nan, 1, 1.0, "1", "TRUE", True])
def test_an_answer_whose_weight_is_not_there_is_learned(weight: Any) -> None:
    messages = [ASKED, {**ANSWER, "weight": weight}]
    turns = read_record({"messages": messages}, Reading())[0].turns
    assert [turn.is_learned for turn in turns] == [True, True]


@pytest.mark.parametrize("weight", [0, 0.0, -0.0, "0", "0.00", "False", "f", False])
def test_an_answer_of_no_weight_is_not_learned(weight: Any) -> None:
    turns = read_record({"messages": [ASKED, {**ANSWER, "weight": weight}]}, Reading())[0].turns
    assert [turn.is_learned for turn in turns] == [True, False]


@pytest.mark.parametrize("plugins", ["", "nan", "None", "[]", None, [], math.nan, "false"])
def test_a_cell_without_plugins_has_none(plugins: Any) -> None:
    record = {"messages": [ASKED, ANSWER], "plugins": plugins, "toxic": plugins}
    assert not read_record(record, Reading())[0].has_plugins
