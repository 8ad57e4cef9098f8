"""Alpaca's instructions are questions, but where they are what the system says."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.commands import rows_of, run_clean

TOLD = ("You are an AI assistant. Explain your answer.", "You are a teacher.", "Think in steps.")


def dolphin(told: tuple[str, ...] = TOLD, num: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "instruction": told[i % len(told)],
            "input": f"What is thing {i}?",
            "output": f"It is {i}.",
        }
        for i in range(num)
    ]


def said(tmp_path: Path, records: list[dict[str, Any]], form: str = "lines") -> list[list[str]]:
    dump = tmp_path / f"dump.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), dump)
    else:
        dump.write_bytes(b"\n".join(map(orjson.dumps, records)))
    run_clean(tmp_path / "out", dump, profile="none")
    rows = rows_of(tmp_path / "out")
    return [[f"{m['role']}: {m['content']}" for m in row["messages"]] for row in rows]


@pytest.mark.parametrize("form", ["lines", "parquet"])
def test_instructions_that_come_again_and_speak_to_a_model_are_the_systems(
    form: str, tmp_path: Path
) -> None:
    joke = {"instruction": "Tell me a joke.", "input": "", "output": "No."}
    silent = {"instruction": "", "input": "Who?", "output": "Me."}
    told_nothing, first, *_, asked = said(tmp_path, [silent, *dolphin(num=24), joke], form)
    assert first == [f"system: {TOLD[0]}", "user: What is thing 0?", "assistant: It is 0."]
    assert told_nothing == ["user: Who?", "assistant: Me."]
    assert asked == ["user: Tell me a joke.", "assistant: No."]


@pytest.mark.parametrize(
    "records",
    [
        dolphin(("Classify the text.", "Translate the text.")),  # tasks
        dolphin(("You are given a question. Rephrase it.", "You're shown a text. Rate it.")),
        dolphin(tuple(f"You are guide {i}. Plan a trip." for i in range(12))),  # each its own
        dolphin(num=4),  # too few to tell
        [*dolphin(), {"instruction": "Tell me a joke.", "input": "", "output": "No."}],
    ],
)
def test_other_instructions_are_asked(records: list[dict[str, Any]], tmp_path: Path) -> None:
    told = records[0]["instruction"]
    assert said(tmp_path, records)[0] == [
        f"user: {told}\n\nWhat is thing 0?",
        "assistant: It is 0.",
    ]
