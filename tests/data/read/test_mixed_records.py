"""Whatever lies between, around or inside the records of an array, each is kept or told of."""

import json
import random
from pathlib import Path

import pytest

from tests.data.read.reading import read

BETWEEN = (
    "null",
    "5",
    '"text"',
    "true",
    "{}",
    "[]",
    '[{"id": 1}]',
    '{"id": "n"}',
    '{"x": {"id": 3}}',
)
BROKEN = ('{"id": "broken", "conversations": [{"from"', "}", '"un')


def record(draw: random.Random, number: int) -> str:
    """One of five orders of keys; inner objects may open with the key that records open with."""
    said = [("human", f"q{number} " + "x" * draw.choice([0, 5, 400])), ("gpt", f"a{number}")]
    inner = {"cites": [{"id": f"c{i}"} for i in range(draw.choice([1, 3, 90]))]}
    name = {"id": f"r{number}"}
    talk = {**name, "conversations": [{"from": who, "value": text} for who, text in said]}
    orders = ({"model": "m", **talk}, {**talk, **inner}, {**name, **inner, **talk})
    return json.dumps(draw.choice([talk, talk, *orders, {**name, "meta": {"id": "z"}, **talk}]))


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_every_record_of_a_mixed_array_is_kept_or_quarantined(
    seed: int, broken: bool, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    names = [f"r{i}" for i in range(draw.randint(2, 40))]
    parts: list[str] = []
    for number in range(len(names)):
        parts.append(record(draw, number))
        if draw.random() < 0.25:
            parts.append(draw.choice([*BETWEEN, *(BROKEN if broken else ())]))
    text = "[" + draw.choice([",", ",\n", ",\n  "]).join(parts) + "]"
    (tmp_path / "dump.json").write_text(text)
    outputs, _ = read(tmp_path / "dump.json", unit_bytes=draw.choice([700, 1 << 20]))
    kept = {row.source_id for output in outputs for row in output.kept}
    aside = b"".join(row.raw for output in outputs for row in output.quarantined)
    told = {name for name in names if f'"{name}"'.encode() in aside} if broken else set()
    assert set(names) <= kept | told
